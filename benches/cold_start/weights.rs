//! From a pod's creation to its having read 2 GiB of weights: downloaded by itself first, or read from Stoker's cache.

use std::time::Duration;

use serde_json::{Value, json};
use stoker::types::Digest;

use crate::cluster::{Cluster, pod};
use crate::figures::{Side, print_race};
use crate::image::noise;
use crate::measure::pages;
use crate::parts::{ImageBuilder, Layer, PushedImage};

const ROUNDS: usize = 3;
const SHARDS: u64 = 4;
const SHARD: usize = 512 << 20;
/// Where the weights are in the bucket.
pub(crate) const URI: &str = "s3://models/llama/";

/// Downloads one shard after the other as a user would, and checks them against what was published.
const DOWNLOAD: &str = r#"
set -eu
cd /weights
for shard in $SHARDS; do
    curl --silent --show-error --fail --aws-sigv4 "aws:amz:$AWS_REGION:s3" \
        --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" --header "x-amz-content-sha256: UNSIGNED-PAYLOAD" \
        --output "$shard" "$AWS_ENDPOINT_URL/models/llama/$shard"
done
[ "$(openssl dgst -sha256 -r $SHARDS)" = "$SUMS" ]
cat $SHARDS > /dev/null
"#;

/// Reads them from Stoker's cache.
const READ: &str = "set -eu\ncd /weights/llama/current/\ncat $SHARDS > /dev/null\n";

/// The shards' names and digests.
pub(crate) struct Shards {
    names: Vec<String>,
    sums: Vec<Digest>,
}

/// Uploads them.
pub(crate) async fn publish(cluster: &Cluster) -> Shards {
    cluster.s3.make_bucket("models").await;
    let mut shards = Shards { names: Vec::new(), sums: Vec::new() };
    for number in 0..SHARDS {
        let name = format!("model-{:05}-of-{SHARDS:05}.safetensors", number + 1);
        let made = tokio::task::spawn_blocking(move || {
            let bytes = noise(number, SHARD);
            let sum = Digest::of(&bytes);
            (bytes, sum)
        });
        let (bytes, sum) = made.await.expect("a shard is made");
        cluster.s3.put("models", &format!("llama/{name}"), bytes).await;
        shards.names.push(name);
        shards.sums.push(sum);
    }
    shards
}

/// Runs it. The weights are left in the cache, off the list.
pub(crate) async fn race(cluster: &Cluster, shards: &Shards) {
    let tools = ["/bin/sh", "/bin/cat", "/usr/bin/curl", "/usr/bin/openssl"];
    let layer = |image: ImageBuilder, path: &&str| image.layer(Layer::new().program(path));
    let built = tools.iter().fold(ImageBuilder::new(), layer).build();
    let image = cluster.installed.bed.registry.push(&built, "bench/reader", "v1").await;
    cluster.node().pull(&image.by_tag()).await;

    let entry = format!("id: llama, weights: {URI}, required: true");
    let mut warming = Side::new("what Stoker did before: list written → label on the Node");
    warming.times.push(cluster.list_until_label(&[entry], "weights.stoker.dev/llama").await);
    let mut cold = Side::new("cold: the pod downloads with curl, one stream, checks, reads");
    let mut warm = Side::new("warm: it reads Stoker's cache, mounted read-only, from the disk");
    let mut again = Side::new("warm, and in memory: another pod has just read them");
    for _ in 0..ROUNDS {
        cold.times.push(download(cluster, &image, shards).await);
        pages::forget(&cluster.node().host_path("/var/cache/stoker"));
        warm.times.push(read(cluster, &image, shards).await);
        again.times.push(read(cluster, &image, shards).await);
    }
    cluster.clear().await;
    let what = format!("Pod created → its process has read 2 GiB of weights in {SHARDS} files, and ended");
    let notes = "\
all: the same bytes from the same S3 server (versitygw 1.8), which has them in memory, and no network between; read
  with cat; the pod's own image is on the node; each file's SHA-256 is checked, by openssl dgst or by Stoker before
Stoker has all of it on the disk (fsync) before it says warm; a cold pod's emptyDir may be in memory only
the page cache forgets the weights before the first warm pod; a cold pod reads from memory what it has just written
";
    print_race(&what, &[cold, warm, again], &warming, notes);
}

async fn download(cluster: &Cluster, image: &PushedImage, shards: &Shards) -> Duration {
    let mut env = shards.env();
    env.extend(cluster.s3.env().map(|(name, value)| json!({"name": name, "value": value})));
    let container = json!({"env": env, "volumeMounts": [{"name": "weights", "mountPath": "/weights"}]});
    let spec = json!({"volumes": [{"name": "weights", "emptyDir": {}}]});
    cluster.pod_until(&pod("downloads", &image.by_tag(), DOWNLOAD, container, spec), "Succeeded").await
}

async fn read(cluster: &Cluster, image: &PushedImage, shards: &Shards) -> Duration {
    let mount = json!({"name": "weights", "mountPath": "/weights", "readOnly": true});
    let container = json!({"env": shards.env(), "volumeMounts": [mount]});
    let cache = json!({"path": "/var/cache/stoker/weights", "type": "Directory"});
    let spec = json!({"volumes": [{"name": "weights", "hostPath": cache}]});
    cluster.pod_until(&pod("reads", &image.by_tag(), READ, container, spec), "Succeeded").await
}

impl Shards {
    /// What both scripts find in their environment.
    fn env(&self) -> Vec<Value> {
        let line = |(name, sum): (&String, &Digest)| format!("{} *{name}", sum.hex());
        let sums: Vec<String> = self.names.iter().zip(&self.sums).map(line).collect();
        vec![
            json!({"name": "SHARDS", "value": self.names.join(" ")}),
            json!({"name": "SUMS", "value": sums.join("\n")}),
        ]
    }
}
