//! From a changed list to a label on the Node, for what is on the node already.

use std::time::Duration;

use crate::cluster::Cluster;
use crate::figures::slowest;
use crate::measure::median;
use crate::weights::URI;

/// Of each kind of goods.
const ROUNDS: usize = 12;
/// Lists don't change more often, and in the long run the Node is written once in ten seconds.
const BETWEEN: Duration = Duration::from_secs(12);

/// Runs them: each lists the same goods under one more id.
pub(crate) async fn rounds(cluster: &Cluster) {
    let app = cluster.installed.push_app("bench/listed", "listed").await;
    cluster.node().pull(&app.by_digest()).await;
    let mut entries = vec![format!("id: llama, weights: {URI}")];
    cluster.list_until_label(&entries, "weights.stoker.dev/llama").await;
    let (mut images, mut weights) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        entries.push(format!("id: app-{round}, image: \"{}\"", app.by_digest()));
        images.push(next(cluster, &entries, &format!("image.stoker.dev/app-{round}")).await);
        entries.push(format!("id: llama-{round}, weights: {URI}"));
        weights.push(next(cluster, &entries, &format!("weights.stoker.dev/llama-{round}")).await);
    }
    cluster.clear().await;
    print(&images, &weights);
}

async fn next(cluster: &Cluster, entries: &[String], key: &str) -> Duration {
    tokio::time::sleep(BETWEEN).await;
    cluster.list_until_label(entries, key).await
}

fn print(images: &[Duration], weights: &[Duration]) {
    println!(
        "\nConfigMap written → label on the Node, bytes already there, {} rounds {} s apart",
        images.len() + weights.len(),
        BETWEEN.as_secs()
    );
    let both = [images, weights].concat();
    let rows =
        [("an image in containerd", images), ("2 GiB of weights in the cache", weights), ("both", &both)];
    for (name, times) in rows {
        let (middle, last) = (median(times).as_secs_f64(), slowest(times).as_secs_f64());
        println!("  {name:<30} p50 {middle:>5.2} s   slowest {last:>5.2} s");
    }
    println!(
        "  - Goal: p50 under 3 s, p99 under 5 s; of so few rounds the slowest stands for p99. There is no peer."
    );
    println!(
        "  - From the API server's answer to the write until a watch shows the label. The agent gathers changes"
    );
    println!("    for 1 s before it writes to its Node, so no figure can be below that.");
}
