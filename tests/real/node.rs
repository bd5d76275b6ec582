//! One node under test: the agent with flags that suit a test, the servers around it, and what is on its disk.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use stoker::types::Digest;

use super::parts::{
    Agent, Containerd, FaultProxy, Gpus, ImageBuilder, Layer, Nginx, PushedImage, Registry, S3, Status,
    Version,
};

/// Generous: the machine may be building something else.
pub(crate) const SOON: Duration = Duration::from_secs(60);

pub(crate) const BUCKET: &str = "models";

/// A list document of these entries, each a YAML mapping in one line.
pub(crate) fn list(entries: &[&str]) -> String {
    let head = "apiVersion: stoker.dev/v1\nkind: PrefetchList\n";
    if entries.is_empty() {
        return format!("{head}entries: []\n");
    }
    entries.iter().fold(format!("{head}entries:\n"), |list, entry| format!("{list}- {{{entry}}}\n"))
}

/// An agent that isn't started yet, with an empty list, on a node with these GPUs and without a containerd. What is
/// set here may be set again: the last word counts.
pub(crate) fn agent(gpus: &Gpus) -> Agent {
    let agent = Agent::new().args(gpus.args());
    let list = agent.write_list(&list(&[]));
    let nobody = agent.scratch().join("no-containerd.sock");
    agent
        .env("STOKER_LIST", list.to_str().unwrap())
        .env("STOKER_CONTAINERD_ADDRESS", nobody.to_str().unwrap())
        .env("STOKER_ALLOW_SCHEMES", "https,http,s3,gs,az")
        .env("STOKER_GPU_INTERVAL", "0.3")
}

/// What a run of `stoker` said, for a failure's message.
pub(crate) fn said(run: &Output) -> String {
    let [out, err] = [&run.stdout, &run.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    format!("{}\n--- stdout ---\n{out}\n--- stderr ---\n{err}", run.status)
}

/// A node with everything: GPUs, containerd, a registry, an S3 server with one bucket, nginx.
pub(crate) struct Node {
    pub(crate) agent: Agent,
    pub(crate) gpus: Gpus,
    pub(crate) containerd: Containerd,
    pub(crate) registry: Registry,
    pub(crate) s3: S3,
    pub(crate) nginx: Nginx,
    /// In front of nginx, to see what is asked of it.
    pub(crate) http: FaultProxy,
}

impl Node {
    /// With a healthy driver.
    pub(crate) async fn start(version: Version) -> Self {
        Self::start_with(version, Gpus::healthy(2)).await
    }

    /// With these GPUs. The agent isn't started.
    pub(crate) async fn start_with(version: Version, gpus: Gpus) -> Self {
        let (containerd, registry, s3, nginx) =
            tokio::join!(Containerd::start(version), Registry::start(), S3::start(), Nginx::start());
        containerd.trust(&registry.host(), &registry.url());
        s3.make_bucket(BUCKET).await;
        let agent = agent(&gpus)
            .env("STOKER_CONTAINERD_ADDRESS", containerd.address().to_str().unwrap())
            .envs(s3.env());
        let http = FaultProxy::start(&nginx.host());
        Self { agent, gpus, containerd, registry, s3, nginx, http }
    }

    /// Pushes a small image; another `text` is another image.
    pub(crate) async fn push(&self, repository: &str, text: &str) -> PushedImage {
        push(&self.registry, repository, text).await
    }
}

/// Pushes a small image of two layers below an index.
pub(crate) async fn push(registry: &Registry, repository: &str, text: &str) -> PushedImage {
    let base = Layer::new().dir("etc", 0o755).file("etc/base", "base", 0o644);
    let image = ImageBuilder::new().layer(base).layer(Layer::new().file("app", text, 0o755)).with_index();
    registry.push(&image.build(), repository, "v1").await
}

/// Bytes that look like weights: `size` of them, the same for the same seed, without a period.
pub(crate) fn bytes(seed: u64, size: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; size];
    random.fill(&mut bytes);
    bytes
}

/// The JSON index of these files, which lie beside it.
pub(crate) fn index(files: &[(&str, &[u8])]) -> String {
    let file = |(path, bytes): &(&str, &[u8])| serde_json::json!({"path": path, "size": bytes.len(), "sha256": Digest::of(bytes).hex()});
    serde_json::json!({"files": files.iter().map(file).collect::<Vec<_>>()}).to_string()
}

/// The revision of weights, as the label has it: written out here once more, from what is promised.
pub(crate) fn label_of(files: &[(&str, &[u8])]) -> String {
    let line =
        |(path, bytes): &(&str, &[u8])| format!("{path}\t{}\t{}\n", bytes.len(), Digest::of(bytes).hex());
    let mut lines: Vec<String> = files.iter().map(line).collect();
    lines.sort();
    Digest::of(lines.concat().as_bytes()).hex()[..12].to_owned()
}

/// What a pod sees of an entry's weights: path → bytes. Empty where there's no `current`.
pub(crate) fn current(agent: &Agent, id: &str) -> BTreeMap<String, Vec<u8>> {
    files_below(&agent.cache().join("weights").join(id).join("current/."))
}

/// All files below a directory.
pub(crate) fn files_below(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in std::fs::read_dir(&next).into_iter().flatten().flatten() {
            if entry.file_type().unwrap().is_dir() {
                dirs.push(entry.path());
            } else {
                let name = entry.path().strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
                files.insert(name, std::fs::read(entry.path()).unwrap_or_default());
            }
        }
    }
    files
}

/// Those files as they should be.
pub(crate) fn tree(files: &[(&str, &[u8])]) -> BTreeMap<String, Vec<u8>> {
    files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.to_vec())).collect()
}

/// Compares what a pod sees with what it should see, without printing megabytes.
#[track_caller]
pub(crate) fn assert_current(agent: &Agent, id: &str, files: &[(&str, &[u8])]) {
    let (seen, wanted) = (current(agent, id), tree(files));
    assert_eq!(seen.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>(), "{id}");
    for (path, bytes) in &wanted {
        assert_eq!(Digest::of(&seen[path]), Digest::of(bytes), "{id}: {path}, {} bytes", seen[path].len());
    }
}

/// What half-done work has left in the cache: nothing, once all is warm.
pub(crate) fn leftovers(agent: &Agent) -> Vec<String> {
    let v1 = agent.cache().join("v1");
    let dirs = ["partial", "staging"].map(|name| v1.join(name));
    let entries = dirs.iter().flat_map(|dir| std::fs::read_dir(dir).into_iter().flatten().flatten());
    entries.map(|entry| entry.path().display().to_string()).collect()
}

/// How many blobs the cache has.
pub(crate) fn blobs(agent: &Agent) -> usize {
    files_below(&agent.cache().join("v1/blobs")).len()
}

/// The reason's code of an entry.
pub(crate) fn code(status: &Status, id: &str) -> Option<String> {
    status.entry(id)?.reason.as_ref().map(|reason| reason.code.clone())
}

/// The keys of the labels.
pub(crate) fn label_keys(status: &Status) -> Vec<&str> {
    status.labels.keys().map(String::as_str).collect()
}

/// The names of the image records that carry CRI's pin and our mark.
pub(crate) async fn our_pins(containerd: &Containerd) -> Vec<String> {
    let records = containerd.ctr_ok(&["images", "ls"]).await;
    let ours =
        |line: &&str| line.contains("io.cri-containerd.pinned=pinned") && line.contains("stoker.dev/pinned=");
    records
        .lines()
        .filter(ours)
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// The status of an agent that is started for it and stopped again.
pub(crate) async fn once_more(agent: &mut Agent) -> Status {
    agent.start().await;
    let status = agent.wait_for("warmth", SOON, |status| status.done && status.all_warm()).await;
    agent.stop(SOON).await;
    status
}
