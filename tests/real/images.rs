//! Images in a real containerd, of both lines, pulled from a real registry.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use stoker::containerd::Containerd as Client;
use stoker::fetch::{Engine, Limits};
use stoker::image::{GcThreshold, ImageError, Images, ImagesHandle, PullSettings, Puller, WarmImage};
use stoker::list::ImageGoods;
use stoker::source::SourceConfig;
use stoker::types::{Digest, ErrorKind, ImageRef, Progress, Revision};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::on_each_version::on_each_version;
use super::parts::{
    Containerd, Fault, FaultProxy, ImageBuilder, Kind, Layer, Options, Registry, Rule, Scratch, Seen,
    Version, until,
};

const SOON: Duration = Duration::from_secs(30);

on_each_version! {
    a_tag_and_a_digest_become_warm
    what_is_warm_is_not_pulled_again
    a_moved_tag_is_found_on_recheck
    an_image_that_is_removed_is_noticed
    a_name_without_a_snapshot_is_not_warm
    a_name_without_snapshot_and_layers_is_fetched_again
    only_our_pins_are_taken_off
    a_private_registry_wants_credentials
    a_restart_of_containerd_is_survived
    what_is_not_there_is_told_apart
    a_pull_that_is_stopped_leaves_nothing
    what_a_registry_does_wrong_is_told_apart
}

/// containerd, a registry, and Stoker's image room on top of them.
struct Bench {
    registry: Registry,
    containerd: Containerd,
    client: Client,
    wanted: watch::Sender<BTreeSet<ImageRef>>,
    handle: ImagesHandle,
    images: watch::Receiver<Option<Arc<Images>>>,
    puller: Puller,
    secrets: Scratch,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

/// An image in the registry.
struct Published {
    tag: ImageRef,
    digest: ImageRef,
    target: Digest,
    config: Digest,
    top: Digest,
    /// The digest of its lowest layer's blob.
    layer: Digest,
}

/// An image with one small file a layer.
fn image(layers: &[&str]) -> ImageBuilder {
    let layer = |name: &&str| Layer::new().file(&format!("file-{name}"), *name, 0o644);
    layers.iter().map(layer).fold(ImageBuilder::new(), ImageBuilder::layer)
}

async fn publish(registry: &Registry, image: &ImageBuilder, repository: &str, tag: &str) -> Published {
    let pushed = registry.push(&image.build(), repository, tag).await;
    Published {
        tag: pushed.by_tag().parse().unwrap(),
        digest: pushed.by_digest().parse().unwrap(),
        target: pushed.digest,
        config: pushed.config,
        top: pushed.chain_id,
        layer: pushed.layers[0].digest,
    }
}

impl Bench {
    async fn start(version: Version) -> Self {
        Self::start_with(version, Options::default()).await
    }

    async fn start_with(version: Version, options: Options) -> Self {
        let registry = Registry::start().await;
        let containerd = Containerd::start_with(version, options).await;
        containerd.trust(&registry.host(), &registry.url());
        let client = Client::new(&containerd.address());
        let (wanted, wanted_by) = watch::channel(BTreeSet::new());
        let stop = CancellationToken::new();
        let (handle, images, task) = stoker::image::spawn(client.clone(), wanted_by, stop.clone());
        let secrets = Scratch::new("secrets");
        let credentials_dir = Some(secrets.path().to_path_buf());
        let sources = SourceConfig { credentials_dir, ..SourceConfig::default() };
        let host_root = containerd.host_root();
        let settings =
            PullSettings { sources, host_root, gc_threshold: GcThreshold(100), ..PullSettings::default() };
        let engine = Engine::new(Limits::default());
        let metrics = Arc::default();
        let puller = Puller::new(client.clone(), handle.clone(), engine, metrics, settings).unwrap();
        Self { registry, containerd, client, wanted, handle, images, puller, secrets, stop, task }
    }

    async fn publish(&self, repository: &str, tag: &str, layers: &[&str]) -> Published {
        publish(&self.registry, &image(layers).with_index(), repository, tag).await
    }

    /// Puts a proxy between containerd and the registry.
    fn proxy(&self) -> FaultProxy {
        let proxy = FaultProxy::start(&self.registry.host());
        self.containerd.trust(&self.registry.host(), &proxy.url());
        proxy
    }

    fn want(&self, references: &[&ImageRef]) {
        self.wanted.send_replace(references.iter().map(|reference| (*reference).clone()).collect());
    }

    async fn ensure(&self, reference: &ImageRef) -> Result<WarmImage, ImageError> {
        self.ensure_with(reference, None, false).await
    }

    async fn ensure_with(
        &self,
        reference: &ImageRef,
        credentials: Option<&str>,
        recheck: bool,
    ) -> Result<WarmImage, ImageError> {
        let goods = ImageGoods { reference: reference.clone(), pin: true };
        self.puller.ensure(&goods, credentials, recheck, &Progress::default(), &self.stop).await
    }

    /// What the image task says now.
    fn images(&self) -> Arc<Images> {
        self.images.borrow().clone().expect("a sweep was published")
    }

    /// Waits until the image task says so by itself.
    async fn comes(&mut self, what: &str, condition: impl Fn(&Images) -> bool) {
        let holds = |images: &Option<Arc<Images>>| images.as_deref().is_some_and(&condition);
        let came = tokio::time::timeout(SOON, self.images.wait_for(holds)).await.is_ok();
        if !came {
            panic!("{what} didn't come; {:?}", self.images());
        }
    }

    /// The names of the records that carry a label.
    async fn labelled(&self, label: &str) -> BTreeSet<String> {
        let records = self.client.records().await.unwrap();
        records
            .into_iter()
            .filter(|record| record.labels.contains_key(label))
            .map(|record| record.name)
            .collect()
    }

    /// Blobs that were asked for since the start.
    fn blob_requests(&self) -> usize {
        self.registry.pulls().iter().filter(|request| request.contains("/blobs/")).count()
    }

    async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(SOON, self.task).await.expect("the task stops").unwrap();
    }
}

const PIN: &str = "io.cri-containerd.pinned";
const MARK: &str = "stoker.dev/pinned";

mod scenario {
    use super::*;

    pub(super) async fn a_tag_and_a_digest_become_warm(version: Version) {
        let mut bench = Bench::start(version).await;
        let one = bench.publish("team/one", "v1", &["a", "b"]).await;
        let plain = image(&["c"]).kind(Kind::Docker);
        let two = publish(&bench.registry, &plain, "team/two", "v1").await;
        bench.want(&[&one.tag, &two.digest]);
        bench.comes("a first sweep", |images| images.connected && images.by_ref.is_empty()).await;

        for (published, reference) in [(&one, &one.tag), (&two, &two.digest)] {
            let warm = bench.ensure(reference).await.unwrap();
            assert_eq!(
                warm,
                WarmImage { revision: Revision::of_image(published.target), pulled: true, unable: None }
            );
            let images = bench.images();
            let presence = images.by_ref[reference];
            assert_eq!((presence.target, presence.config), (published.target, published.config));
            assert!(presence.unpacked && presence.pinned && presence.pinned_by_us, "{presence:?}");
            assert_eq!(images.problem, None);
            // CRI and containerd say the same.
            let shown = bench.client.image_status(reference).await.unwrap().unwrap();
            assert_eq!(shown.pinned, version.shows_pins());
            assert!(bench.client.snapshot("overlayfs", published.top).await.unwrap().is_some());
        }
        // The id, the tag and the digest of the one; the id and the digest of the other.
        assert_eq!(bench.images().our_pins.len(), 5);
        assert_eq!(bench.labelled(MARK).await, bench.labelled(PIN).await);
        bench.end().await;
    }

    pub(super) async fn what_is_warm_is_not_pulled_again(version: Version) {
        let bench = Bench::start(version).await;
        let image = bench.publish("team/app", "v1", &["a", "b"]).await;
        bench.ensure(&image.tag).await.unwrap();
        let before = bench.registry.pulls().len();
        for reference in [&image.tag, &image.digest] {
            assert!(!bench.ensure(reference).await.unwrap().pulled);
        }
        assert_eq!(bench.registry.pulls().len(), before, "{:?}", bench.registry.pulls());

        // A digest can't move; a tag is asked for again, without its blobs, and keeps its pin.
        let (blobs, pins) = (bench.blob_requests(), bench.labelled(MARK).await);
        assert!(!bench.ensure_with(&image.digest, None, true).await.unwrap().pulled);
        assert_eq!(bench.registry.pulls().len(), before);
        assert!(!bench.ensure_with(&image.tag, None, true).await.unwrap().pulled);
        assert!(bench.registry.pulls().len() > before);
        assert_eq!(bench.blob_requests(), blobs, "{:?}", bench.registry.pulls());
        assert_eq!(bench.labelled(MARK).await, pins);
        bench.end().await;
    }

    pub(super) async fn a_moved_tag_is_found_on_recheck(version: Version) {
        let mut bench = Bench::start(version).await;
        let old = bench.publish("team/app", "latest", &["a", "b"]).await;
        bench.want(&[&old.tag]);
        bench.ensure(&old.tag).await.unwrap();
        let new = bench.publish("team/app", "latest", &["a", "c"]).await;
        assert_eq!(old.tag, new.tag);
        assert_eq!(bench.ensure(&old.tag).await.unwrap().revision, Revision::of_image(old.target));
        let warm = bench.ensure_with(&old.tag, None, true).await.unwrap();
        assert_eq!(warm, WarmImage { revision: Revision::of_image(new.target), pulled: true, unable: None });
        bench.comes("the new target", |images| images.by_ref[&old.tag].target == new.target).await;

        // The old one's pins are left to take off, and only those.
        let names = stoker::image::to_unpin(&bench.images().our_pins, &BTreeSet::from([new.target]));
        assert_eq!(
            names.iter().cloned().collect::<BTreeSet<_>>(),
            BTreeSet::from([old.digest.to_string(), old.config.to_string()])
        );
        bench.puller.unpin(&names).await.unwrap();
        assert_eq!(bench.images().our_pins.len(), 3);
        bench.end().await;
    }

    pub(super) async fn an_image_that_is_removed_is_noticed(version: Version) {
        let mut bench = Bench::start(version).await;
        let image = bench.publish("team/app", "v1", &["a", "b"]).await;
        bench.want(&[&image.tag, &image.digest]);
        bench.ensure(&image.tag).await.unwrap();
        assert_eq!(bench.images().by_ref.len(), 2, "the tag's pull made both names");
        // Well before the next sweep is due.
        bench.client.remove_image(&image.tag).await.unwrap();
        bench.comes("its absence", |images| images.by_ref.is_empty()).await;
        assert!(bench.ensure(&image.tag).await.unwrap().pulled);

        bench.containerd.ctr_ok(&["images", "rm", &image.tag.to_string()]).await;
        bench.comes("the tag's absence", |images| !images.by_ref.contains_key(&image.tag)).await;
        assert!(bench.images().by_ref[&image.digest].unpacked);
        bench.end().await;
    }

    pub(super) async fn a_name_without_a_snapshot_is_not_warm(version: Version) {
        let mut bench = Bench::start(version).await;
        let image = bench.publish("team/app", "v1", &["a", "b"]).await;
        bench.want(&[&image.tag]);
        bench.ensure(&image.tag).await.unwrap();
        bench.containerd.ctr_ok(&["snapshots", "rm", &image.top.to_string()]).await;
        bench.comes("the snapshot's absence", |images| !images.by_ref[&image.tag].unpacked).await;
        assert!(bench.client.image_status(&image.tag).await.unwrap().is_some(), "CRI still shows it");

        let warm = bench.ensure(&image.tag).await.unwrap();
        assert!(warm.pulled);
        assert!(bench.images().by_ref[&image.tag].unpacked);
        assert!(bench.client.snapshot("overlayfs", image.top).await.unwrap().is_some());
        bench.end().await;
    }

    pub(super) async fn a_name_without_snapshot_and_layers_is_fetched_again(version: Version) {
        let mut bench =
            Bench::start_with(version, Options { discard_unpacked_layers: true, ..Options::default() }).await;
        let image = bench.publish("team/app", "v1", &["a", "b", "c"]).await;
        bench.want(&[&image.digest]);
        bench.ensure(&image.digest).await.unwrap();
        bench.containerd.ctr_ok(&["snapshots", "rm", &image.top.to_string()]).await;
        bench.comes("the snapshot's absence", |images| !images.by_ref[&image.digest].unpacked).await;
        assert!(bench.ensure(&image.digest).await.unwrap().pulled);
        assert!(bench.images().by_ref[&image.digest].unpacked);
        bench.end().await;
    }

    pub(super) async fn only_our_pins_are_taken_off(version: Version) {
        let mut bench = Bench::start(version).await;
        let image = bench.publish("team/app", "v1", &["a"]).await;
        bench.want(&[&image.tag]);
        bench.ensure(&image.tag).await.unwrap();
        let other = bench.publish("team/other", "v1", &["b"]).await;
        bench.client.pull_image(&other.tag, None).await.unwrap();
        let foreign = other.digest.to_string();
        bench.containerd.ctr_ok(&["images", "label", &foreign, &format!("{PIN}=pinned")]).await;
        bench.want(&[&image.tag, &other.tag]);
        bench
            .comes("the foreign pin", |images| {
                images.by_ref.get(&other.tag).is_some_and(|other| other.pinned && !other.pinned_by_us)
            })
            .await;

        bench.ensure(&other.tag).await.unwrap();
        assert!(!bench.labelled(MARK).await.contains(&foreign), "somebody else's pin stays theirs");
        let all = bench.images().our_pins.iter().map(|pin| pin.name.clone()).collect::<Vec<_>>();
        assert_eq!(all.len(), 5);
        // Named or not, a pin without our mark isn't taken off.
        bench.puller.unpin(&[all, vec![foreign.clone(), "gone:1".to_owned()]].concat()).await.unwrap();
        assert_eq!(bench.images().our_pins, []);
        assert_eq!(bench.labelled(MARK).await, BTreeSet::new());
        assert_eq!(bench.labelled(PIN).await, BTreeSet::from([foreign]));
        let pinned = async |reference| bench.client.image_status(reference).await.unwrap().unwrap().pinned;
        until("CRI to show it unpinned", SOON, async || (!pinned(&image.tag).await).then_some(())).await;
        assert_eq!(pinned(&other.tag).await, version.shows_pins());
        bench.end().await;
    }

    pub(super) async fn a_private_registry_wants_credentials(version: Version) {
        let bench = Bench::start(version).await;
        let private = Registry::start_with_password().await;
        bench.containerd.trust(&private.host(), &private.url());
        let image = publish(&private, &image(&["a"]), "team/app", "v1").await;
        let host = private.host();
        let wrong = format!(r#"{{"auths":{{"{host}":{{"username":"stoker","password":"hunter2"}}}}}}"#);
        let (user, password) = private.credentials().unwrap();
        let second = format!(
            r#"{{"auths":{{"{host}/team/app":{{"username":"stoker","password":"hunter2"}},
               "{host}":{{"username":"{user}","password":"{password}"}}}}}}"#
        );
        bench.secrets.file("wrong/.dockerconfigjson", &wrong);
        bench.secrets.file("elsewhere/.dockerconfigjson", wrong.replace(&host, "quay.io"));
        bench.secrets.file("second/.dockerconfigjson", second);
        bench.secrets.file("right/.dockerconfigjson", Registry::docker_config(&host));

        for (credentials, advice) in [
            (None, "without credentials; name a mounted Secret"),
            (Some("elsewhere"), "\"elsewhere\" holds none that fit"),
            (Some("wrong"), "with the credentials \"wrong\""),
        ] {
            let error = bench.ensure_with(&image.tag, credentials, false).await.unwrap_err();
            let told = stoker::rt::chain(&error);
            assert_eq!((error.kind(), error.code()), (ErrorKind::Denied, "Denied"), "{told}");
            assert!(told.contains(advice) && told.contains(&host), "{told}");
            assert!(!told.contains("hunter2"), "{told}");
        }
        let error = bench.ensure_with(&image.tag, Some("absent"), false).await.unwrap_err();
        assert_eq!(error.code(), "CredentialsMissing");
        // The more specific one is wrong; the other one is tried after it.
        assert!(bench.ensure_with(&image.tag, Some("second"), false).await.unwrap().pulled);
        bench.client.remove_image(&image.tag).await.unwrap();
        assert!(bench.ensure_with(&image.tag, Some("right"), false).await.unwrap().pulled);
        bench.end().await;
    }

    pub(super) async fn a_restart_of_containerd_is_survived(version: Version) {
        let mut bench = Bench::start(version).await;
        let image = bench.publish("team/app", "v1", &["a"]).await;
        bench.want(&[&image.tag]);
        bench.ensure(&image.tag).await.unwrap();
        bench.containerd.kill9();
        bench.comes("the daemon's absence", |images| !images.connected).await;
        let images = bench.images();
        assert!(images.by_ref[&image.tag].unpacked, "what was seen last is kept");
        let problem = images.problem.as_deref().unwrap();
        let address = bench.containerd.address();
        assert!(problem.contains(address.to_str().unwrap()), "{problem}");
        assert!(problem.contains("--containerd-address"), "{problem}");
        // A refresh doesn't hang on it, and a pull says what is wrong.
        bench.handle.refresh().await;
        let error = bench.ensure(&image.tag).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Local, "ContainerdUnavailable"));

        bench.containerd.restart().await;
        bench.comes("the daemon", |images| images.connected && images.problem.is_none()).await;
        assert!(bench.images().by_ref[&image.tag].unpacked);
        // Events come again, well before the next sweep is due.
        bench.client.remove_image(&image.tag).await.unwrap();
        bench.comes("the image's absence", |images| images.by_ref.is_empty()).await;
        bench.end().await;
    }

    pub(super) async fn what_is_not_there_is_told_apart(version: Version) {
        let mut bench = Bench::start(version).await;
        let host = bench.registry.host();
        let app = bench.publish("team/app", "v1", &["a"]).await;
        let absent = Digest::of(b"absent");
        for missing in ["team/app:v2".to_owned(), "team/none:v1".to_owned(), format!("team/app@{absent}")] {
            let reference: ImageRef = format!("{host}/{missing}").parse().unwrap();
            let error = bench.ensure(&reference).await.unwrap_err();
            let told = stoker::rt::chain(&error);
            assert_eq!((error.kind(), error.code()), (ErrorKind::NotFound, "NotFound"), "{told}");
            assert!(told.contains(&missing), "{told}");
        }
        // A registry that isn't there may come back.
        bench.registry.stop();
        let error = bench.ensure(&app.tag).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Transient, "PullFailed"), "{error}");
        bench.registry.start_again().await;
        assert!(bench.ensure(&app.tag).await.unwrap().pulled);
        // Told to stop, it stops.
        bench.stop.cancel();
        let error = bench.ensure(&app.tag).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        bench.end().await;
    }

    pub(super) async fn a_pull_that_is_stopped_leaves_nothing(version: Version) {
        let mut bench = Bench::start(version).await;
        let proxy = bench.proxy();
        let image = bench.publish("team/app", "v1", &["a", "b"]).await;
        bench.want(&[&image.tag]);
        proxy.add(Rule::get("/blobs/", Fault::Stall(10)).always());
        let goods = ImageGoods { reference: image.tag.clone(), pin: true };
        let stop = CancellationToken::new();
        let progress = Progress::default();
        let (outcome, ()) = tokio::join!(bench.puller.ensure(&goods, None, false, &progress, &stop), async {
            until("a blob under way", SOON, async || (proxy.stalled() > 0).then_some(())).await;
            stop.cancel();
        });
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Cancelled);
        // It hangs up, too.
        until("containerd to hang up", SOON, async || (proxy.stalled() == 0).then_some(())).await;
        bench.handle.refresh().await;
        assert!(bench.images().by_ref.is_empty());
        proxy.clear();
        assert!(bench.ensure(&image.tag).await.unwrap().pulled);
        bench
            .comes("the image", |images| images.by_ref.get(&image.tag).is_some_and(|image| image.unpacked))
            .await;
        bench.end().await;
    }

    pub(super) async fn what_a_registry_does_wrong_is_told_apart(version: Version) {
        let bench = Bench::start(version).await;
        let proxy = bench.proxy();
        let status = |code| Fault::Status { code, retry_after: None };
        let throttled = ErrorKind::Throttled { retry_after: None };
        let image = bench.publish("team/app", "v1", &["a", "b"]).await;
        for (what, fault, kind) in [
            ("/manifests/", status(429), throttled),
            ("/manifests/", status(503), throttled),
            ("/manifests/", status(403), ErrorKind::Denied),
            ("/blobs/", status(403), ErrorKind::Denied),
            // Every time it is fetched.
            ("/blobs/", Fault::FlipByte(12), ErrorKind::Corrupt),
        ] {
            proxy.add(Rule::on("HEAD", what, fault.clone()).always());
            proxy.add(Rule::get(what, fault.clone()).always());
            let error = bench.ensure(&image.tag).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{what} {fault:?}: {}", stoker::rt::chain(&error));
            proxy.clear();
        }
        // One flipped byte on the way is found and the blob fetched again; what was left before isn't in the way.
        let layer = format!("/blobs/{}", image.layer);
        proxy.add(Rule::get(&layer, Fault::FlipByte(12)));
        assert!(bench.ensure(&image.tag).await.unwrap().pulled);
        let flipped = |seen: &Seen| seen.path.contains(&layer) && seen.fault == Some(Fault::FlipByte(12));
        assert!(proxy.seen().iter().any(flipped), "{:?}", proxy.seen());
        bench.end().await;
    }
}
