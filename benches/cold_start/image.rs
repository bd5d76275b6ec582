//! From a pod's creation to its running, with an image of about 200 MB: pulled by kubelet then, or by Stoker before.

use serde_json::json;

use crate::cluster::{Cluster, pod};
use crate::figures::{Side, print_race};
use crate::measure::pages;
use crate::parts::{BuiltImage, ImageBuilder, Layer, PushedImage};

const ROUNDS: usize = 3;
const MB: u64 = 1_000_000;
/// Layers of content, the files in each, and their size. One in this many can't be compressed, the others are like
/// text.
const LAYERS: u64 = 4;
const FILES: u64 = 1500;
const FILE: usize = 100_000;
const PACKED_ALREADY: u64 = 8;

/// Runs it.
pub(crate) async fn race(cluster: &Cluster) {
    let built = tokio::task::spawn_blocking(build).await.expect("the image is built");
    let image = cluster.installed.bed.registry.push(&built, "bench/app", "v1").await;
    let unpacked: u64 = built.layers.iter().map(|layer| layer.tar_size).sum();
    let what = format!(
        "Pod created → Running, an image of {} MB in {} layers, {} MB unpacked",
        built.compressed_size() / MB,
        built.layers.len(),
        unpacked / MB
    );
    drop(built);
    let mut cold = Side::new("cold: kubelet has containerd 2.4 pull it");
    let mut warm = Side::new("warmed: Stoker has pulled it before");
    let mut warming = Side::new("what Stoker did before: list written → label on the Node");
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
    let notes = "\
both sides: the same bytes from the same registry, which has them in memory; imagePullPolicy IfNotPresent; before each
  pull the image, its snapshots and its layers are gone; containerd checks each layer's digests, packed and unpacked
Stoker then has all of it on the disk (syncfs) before it says warm; a cold pod's image may be in memory only
the page cache forgets all of containerd's files before a warmed pod; a cold pod finds what was just written there
";
    print_race(&what, &[cold, warm], &warming, notes);
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
            let bytes =
                if number.is_multiple_of(PACKED_ALREADY) { noise(seed, FILE) } else { prose(seed, FILE) };
            all.file(&format!("srv/{layer}/{number:04}"), bytes, 0o644)
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
