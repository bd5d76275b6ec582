//! Stoker's own puller on a real containerd, and what a pull has left there.

use std::sync::Arc;
use std::time::Duration;

use stoker::fetch::{Engine, Limits};
use stoker::image::{GcThreshold, ImageError, PullSettings, Puller, WarmImage};
use stoker::list::ImageGoods;
use stoker::source::SourceConfig;
use stoker::types::{Digest, ImageRef, Progress};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::commit::bench::Bench;
use super::node::files_below;
use super::parts::{BuiltImage, Options, Registry, Scratch, Version};

/// Ranges are this long at most, so that small layers have many of them.
const RANGE: u64 = 64 << 10;

/// A pull that isn't over by then hangs.
const HANGS: Duration = Duration::from_secs(120);

/// A containerd, and the puller.
pub(crate) struct Pulling {
    pub(crate) bench: Bench,
    puller: Puller,
    secrets: Scratch,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Pulling {
    /// On a containerd of the newer line, with little patience for servers that say nothing.
    pub(crate) async fn start() -> Self {
        Self::start_on(Version::newer()).await
    }

    pub(crate) async fn start_on(version: Version) -> Self {
        Self::start_with(version, Options::default()).await
    }

    pub(crate) async fn start_with(version: Version, options: Options) -> Self {
        let bench = Bench::start_with(version, options).await;
        let stop = CancellationToken::new();
        let (_, wanted) = watch::channel(Default::default());
        let (handle, _, task) = stoker::image::spawn(bench.client.clone(), wanted, stop.clone());
        let secrets = Scratch::new("secrets");
        let sources = SourceConfig {
            credentials_dir: Some(secrets.path().to_path_buf()),
            stall: Duration::from_secs(1),
            ..SourceConfig::default()
        };
        let host_root = bench.containerd.host_root();
        let settings =
            PullSettings { sources, host_root, gc_threshold: GcThreshold(100), ..PullSettings::default() };
        let engine = Engine::new(Limits { range: RANGE, ..Limits::default() });
        let puller = Puller::new(bench.client.clone(), handle, engine, Arc::default(), settings).unwrap();
        Self { bench, puller, secrets, stop, task }
    }

    /// Has pulls from `host` go to these servers, the registry itself last.
    pub(crate) fn hosts(&self, host: &str, servers: &[&str]) {
        let (registry, mirrors) = servers.split_last().unwrap();
        let mirror = |text: String, url: &&str| {
            format!("{text}[host.\"{url}\"]\n  capabilities = [\"pull\", \"resolve\"]\n")
        };
        let text = mirrors.iter().fold(format!("server = \"{registry}\"\n"), mirror);
        let dir = self.bench.containerd.directory().join("certs.d").join(host);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("hosts.toml"), text).unwrap();
    }

    /// Mounts the registry's password under the name "registry", as credentials for `host`.
    pub(crate) fn password(&self, host: &str) -> &'static str {
        self.secrets.file("registry/.dockerconfigjson", Registry::docker_config(host));
        "registry"
    }

    pub(crate) async fn pull(&self, image: &ImageRef) -> Result<WarmImage, ImageError> {
        self.pull_as(image, None).await
    }

    pub(crate) async fn pull_as(
        &self,
        image: &ImageRef,
        credentials: Option<&str>,
    ) -> Result<WarmImage, ImageError> {
        let goods = ImageGoods { reference: image.clone(), pin: true };
        let progress = Progress::default();
        let pull = self.puller.ensure(&goods, credentials, false, &progress, &self.stop);
        tokio::time::timeout(HANGS, pull).await.unwrap_or_else(|_| panic!("the pull of {image} hangs"))
    }

    /// Pulls meanwhile, whatever becomes of this.
    pub(crate) fn spawn(&self, image: &ImageRef) -> JoinHandle<Result<WarmImage, ImageError>> {
        let (puller, stop) = (self.puller.clone(), self.stop.clone());
        let goods = ImageGoods { reference: image.clone(), pin: true };
        tokio::spawn(async move { puller.ensure(&goods, None, false, &Progress::default(), &stop).await })
    }

    /// Holds what containerd has against what was built: every blob by its digest, every layer's files.
    pub(crate) async fn assert_holds(&self, image: &BuiltImage, files: &[(&str, &[u8])]) {
        // What the pull has let go of.
        self.bench.collect().await;
        let blobs = self.bench.blobs().await;
        let dir = self.bench.containerd.root().join("io.containerd.content.v1.content/blobs/sha256");
        for blob in &blobs {
            let bytes = std::fs::read(dir.join(blob.trim_start_matches("sha256:"))).unwrap();
            assert_eq!(Digest::of(&bytes).to_string(), *blob);
        }
        for layer in &image.layers {
            assert!(blobs.contains(&layer.digest.to_string()), "{} isn't kept: {blobs:?}", layer.digest);
        }
        let snapshots = self.bench.snapshots().await;
        assert_eq!(snapshots.len(), image.layers.len(), "{snapshots:?}");
        let unpacked = files_below(&self.bench.containerd.snapshots());
        for (path, bytes) in files {
            let found = unpacked.iter().find(|(name, _)| name.ends_with(&format!("/fs/{path}")));
            let (_, found) = found.unwrap_or_else(|| panic!("{path} isn't unpacked"));
            assert_eq!(Digest::of(found), Digest::of(bytes), "{path}");
        }
    }

    /// Gives up what waits for another try: it hangs on leases of ours, and on nothing else.
    pub(crate) async fn give_up(&self, what: &str) {
        let leases = self.bench.containerd.ctr_ok(&["leases", "ls", "-q"]).await;
        for lease in leases.split_whitespace() {
            assert!(lease.starts_with("stoker-sha256:"), "{what}: {lease}");
            self.bench.containerd.ctr_ok(&["leases", "rm", "--sync", lease]).await;
        }
    }

    /// Nothing is left of pulls that failed: no record, and after a collection no snapshot, blob or lease.
    pub(crate) async fn assert_empty(&self, what: &str) {
        let records = self.bench.containerd.ctr_ok(&["images", "ls", "-q"]).await;
        assert_eq!(records, "", "{what}: records");
        self.bench.collect_all().await;
        assert_eq!(
            (self.bench.snapshots().await, self.bench.blobs().await),
            Default::default(),
            "{what}: something is left"
        );
        assert_eq!(
            self.bench.containerd.ctr_ok(&["leases", "ls", "-q"]).await,
            "",
            "{what}: a lease is left"
        );
    }

    pub(crate) async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(HANGS, self.task).await.expect("the task stops").unwrap();
    }
}
