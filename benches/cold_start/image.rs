//! From a pod's creation to its running, with an image of about 200 MB: pulled by kubelet then, or by Stoker before.

use serde_json::json;

use crate::cluster::{Cluster, pod};
use crate::figures::{Side, print_race};
use crate::pages;
use crate::parts::{BuiltImage, ImageBuilder, Layer, PushedImage};

const ROUNDS: usize = 3;
const MB: usize = 1_000_000;
/// Layers of content, and files of 1 MB in each: one in this many can't be compressed, the others are like text.
const LAYERS: u64 = 4;
const FILES: u64 = 148;
const PACKED_ALREADY: u64 = 10;

/// Runs it.
pub(crate) async fn race(cluster: &Cluster) {
    let built = tokio::task::spawn_blocking(build).await.expect("the image is built");
    let image = cluster.installed.bed.registry.push(&built, "bench/app", "v1").await;
    let unpacked: u64 = built.layers.iter().map(|layer| layer.tar_size).sum();
    let what = format!(
        "Pod created → Running, an image of {} MB in {} layers, {} MB unpacked",
        built.compressed_size() / MB as u64,
        built.layers.len(),
        unpacked / MB as u64
    );
    drop(built);
    let mut cold = Side::new("cold: kubelet has containerd 2.4 pull it");
    let mut warm = Side::new("warmed: Stoker has pulled it before the pod comes");
    let mut warming = Side::new("(that pull: list written → label on the Node)");
    for _ in 0..ROUNDS {
        cold.times.push(run(cluster, &image).await);
        cluster.remove_image(&image).await;
        let entry = format!("id: app, image: \"{}\"", image.by_tag());
        warming.times.push(cluster.list_until_label(&[entry], "image.stoker.dev/app").await);
        pages::forget(&cluster.node().host_path("/var/lib/containerd"));
        warm.times.push(run(cluster, &image).await);
        cluster.clear().await;
        cluster.remove_image(&image).await;
    }
    print_race(
        &what,
        &[cold, warm, warming],
        &[
            "Both: the same bytes from the same registry, imagePullPolicy IfNotPresent. Before each pull the image, \
             its snapshots and its layers are gone. The registry has them in memory.",
            "Both: containerd checks the digest of each layer, packed and unpacked. Only Stoker then has them on the \
             disk (syncfs) before it says warm; kubelet's pod runs with what is still in memory only.",
            "Before each warmed pod the page cache forgets all of containerd's files; a cold pod finds in memory \
             what was just written.",
        ],
    );
}

async fn run(cluster: &Cluster, image: &PushedImage) -> std::time::Duration {
    let pod = pod("app", &image.by_tag(), "exec sleep 1000", json!({}), json!({}));
    cluster.pod_until(&pod, "Running").await
}

fn build() -> BuiltImage {
    let programs = Layer::new().program("/bin/sh").program("/bin/sleep");
    let content = |layer: u64| {
        let file = |all: Layer, number: u64| {
            let seed = layer * FILES + number;
            let bytes = if number.is_multiple_of(PACKED_ALREADY) { noise(seed, MB) } else { prose(seed, MB) };
            all.file(&format!("srv/{layer}/{number:03}"), bytes, 0o644)
        };
        (0..FILES).fold(Layer::new(), file)
    };
    (0..LAYERS)
        .map(content)
        .fold(ImageBuilder::new().with_index().layer(programs), ImageBuilder::layer)
        .build()
}

/// Bytes that can't be compressed.
pub(crate) fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// Bytes that gzip makes about a fourth of, as it does of programs and text: words of eight bytes out of a few hundred.
fn prose(seed: u64, size: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let words: Vec<[u8; 8]> = (0..256).map(|_| random.u64(..).to_le_bytes()).collect();
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        bytes.extend_from_slice(&words[usize::from(random.u8(..))]);
    }
    bytes.truncate(size);
    bytes
}
