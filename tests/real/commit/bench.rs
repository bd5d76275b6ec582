//! A containerd, and images that are made in it layer by layer.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::read::GzDecoder;
use rustix::fs::{FileType, Mode, XattrFlags};
use stoker::containerd::{Containerd as Client, Snapshotter};
use stoker::image::{CommitError, CommitLayer, Scratch as LayerScratch, Workplace, Workplaces, labels};
use stoker::types::{Descriptor, Digest, ImageRef};

use crate::parts::{BuiltImage, Containerd, Kind, Layer, Options, Version, until};

pub(crate) struct Bench {
    pub(crate) containerd: Containerd,
    pub(crate) maker: Maker,
}

/// Makes images, whatever becomes of containerd meanwhile.
#[derive(Clone)]
pub(crate) struct Maker {
    pub(crate) client: Client,
    pub(crate) snapshotter: Snapshotter,
    pub(crate) workplaces: Workplaces,
    /// Whether layer blobs are kept.
    pub(crate) keeps: bool,
}

impl Bench {
    pub(crate) async fn start(version: Version) -> Self {
        Self::start_with(version, Options::default()).await
    }

    pub(crate) async fn start_with(version: Version, options: Options) -> Self {
        let containerd = Containerd::start_with(version, options).await;
        let client = Client::new(&containerd.address());
        let daemon = client.daemon(&containerd.host_root()).await.expect("the daemon tells");
        let (snapshotter, keeps) = (daemon.snapshotter, !daemon.discards_layers);
        let maker = Maker { client, snapshotter, workplaces: Workplaces::default(), keeps };
        Self { containerd, maker }
    }
}

impl Deref for Bench {
    type Target = Maker;

    fn deref(&self) -> &Maker {
        &self.maker
    }
}

impl Maker {
    pub(crate) async fn open(&self, image: &BuiltImage) -> Workplace {
        self.try_open(image).await.expect("a workplace")
    }

    pub(crate) async fn try_open(&self, image: &BuiltImage) -> Result<Workplace, CommitError> {
        self.workplaces.open(&self.client, &self.snapshotter, image.manifest_digest()).await
    }

    /// Makes the image from nothing but what was built.
    pub(crate) async fn make(
        &self,
        image: &BuiltImage,
        reference: &ImageRef,
        pin: bool,
    ) -> Result<(), CommitError> {
        let workplace = self.try_open(image).await?;
        for number in 0..image.layers.len() {
            self.make_layer(&workplace, image, number, reference).await?;
        }
        self.finish(workplace, image, reference, pin).await
    }

    /// Unpacks and commits a layer, unless it's there, and keeps its blob, if blobs are kept.
    pub(crate) async fn make_layer(
        &self,
        workplace: &Workplace,
        image: &BuiltImage,
        number: usize,
        reference: &ImageRef,
    ) -> Result<(), CommitError> {
        if !workplace.holds(chains(image)[number]).await? {
            let (scratch, layer) = self.unpack(workplace, image, number).await?;
            workplace.commit(scratch, &layer).await?;
        }
        if self.keeps {
            self.keep_blob(workplace, image, number, reference).await?;
        }
        Ok(())
    }

    pub(crate) async fn unpack(
        &self,
        workplace: &Workplace,
        image: &BuiltImage,
        number: usize,
    ) -> Result<(LayerScratch, CommitLayer), CommitError> {
        let scratch = workplace.scratch().await?;
        let implied = unpack(&image.layers[number].path, &scratch.dir);
        let chains = chains(image);
        let parent = number.checked_sub(1).map(|below| chains[below]);
        Ok((scratch, CommitLayer::new(chains[number], image.layers[number].diff_id, parent, implied)))
    }

    async fn keep_blob(
        &self,
        workplace: &Workplace,
        image: &BuiltImage,
        number: usize,
        reference: &ImageRef,
    ) -> Result<(), CommitError> {
        let layer = &image.layers[number];
        let blob = descriptors(image).layers[number].clone();
        let mut set = labels::of_layer(layer.diff_id);
        set.extend(labels::of_source(reference));
        let mut writer = loop {
            match workplace.write_blob(&blob).await {
                Ok(None) => return workplace.label(blob.digest, set).await,
                Ok(Some(writer)) => break writer,
                Err(CommitError::Containerd(error)) if is_locked(&error) => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(error) => return Err(error),
            }
        };
        writer.rewind();
        writer.write(&std::fs::read(&layer.path).expect("a layer")).await?;
        Ok(writer.commit(&set).await?)
    }

    /// The documents and the names, once all layers are there.
    pub(crate) async fn finish(
        &self,
        workplace: Workplace,
        image: &BuiltImage,
        reference: &ImageRef,
        pin: bool,
    ) -> Result<(), CommitError> {
        let of = descriptors(image);
        let with_source = |mut set: BTreeMap<String, String>| {
            set.extend(labels::of_source(reference));
            set
        };
        let config = labels::of_config(&self.snapshotter.name, Some(image.chain_id()));
        workplace.put_document(&of.config, image.config.clone(), with_source(config)).await?;
        let children: Vec<_> = std::iter::once(of.config).chain(of.layers).collect();
        let manifest = labels::of_children(&children, self.keeps);
        workplace.put_document(&of.manifest, image.manifest.clone(), with_source(manifest)).await?;
        if let (Some(index), Some(bytes)) = (&of.index, &image.index) {
            let set = labels::of_children(std::slice::from_ref(&of.manifest), true);
            workplace.put_document(index, bytes.clone(), with_source(set)).await?;
        }
        let target = of.index.unwrap_or(of.manifest);
        workplace.publish(reference, &target, image.config_digest(), pin).await?;
        workplace.close().await
    }
}

impl Bench {
    /// Has containerd collect its garbage, now.
    pub(crate) async fn collect(&self) {
        collect(&self.client).await;
    }

    /// The snapshots that containerd knows, and the directories that there are: the same number, or something is lost.
    pub(crate) async fn snapshots(&self) -> BTreeSet<String> {
        let known = self.known_snapshots().await;
        let dirs = std::fs::read_dir(self.containerd.snapshots()).expect("the directory").count();
        assert_eq!(dirs, known.len(), "{known:?}");
        known
    }

    /// The snapshots that containerd knows. Killed while it makes or removes one, it leaves a directory more until it
    /// next collects a snapshot.
    pub(crate) async fn known_snapshots(&self) -> BTreeSet<String> {
        let known = self.client.list_snapshots(&self.snapshotter.name, Vec::new()).await.expect("snapshots");
        known.into_iter().map(|info| info.key).collect()
    }

    /// The blobs in the content store, as files and as containerd lists them.
    pub(crate) async fn blobs(&self) -> BTreeSet<String> {
        let listed = self.containerd.ctr_ok(&["content", "ls", "-q"]).await;
        let listed: BTreeSet<String> = listed.lines().map(str::to_owned).collect();
        let dir = self.content().join("blobs/sha256");
        let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let files: BTreeSet<String> =
            files.map(|file| format!("sha256:{}", file.file_name().to_string_lossy())).collect();
        assert_eq!(listed, files);
        assert_eq!(self.half_written(), 0, "half-written blobs");
        listed
    }

    pub(crate) fn half_written(&self) -> usize {
        std::fs::read_dir(self.content().join("ingest")).into_iter().flatten().count()
    }

    fn content(&self) -> PathBuf {
        self.containerd.root().join("io.containerd.content.v1.content")
    }

    /// Collects until no blob is half-written: a writer that was dropped just now may hold on to one a little longer.
    pub(crate) async fn collect_all(&self) {
        let none = async || {
            self.collect().await;
            (self.half_written() == 0).then_some(())
        };
        until("no half-written blob", Duration::from_secs(30), none).await;
    }

    /// What is left once the image has gone and garbage was collected.
    pub(crate) async fn is_empty_without(&self, reference: &ImageRef) {
        self.client.remove_image(reference).await.expect("it is removed");
        self.collect_all().await;
        assert_eq!((self.snapshots().await, self.blobs().await), Default::default());
        assert_eq!(self.containerd.ctr_ok(&["leases", "ls", "-q"]).await, "");
    }
}

/// Has a containerd collect its garbage, now.
pub(crate) async fn collect(client: &Client) {
    let lease = client.create_lease("collect", Duration::from_secs(60)).await.expect("a lease");
    client.delete_lease(&lease.expect("a new one"), true).await.expect("a collection");
}

pub(crate) fn is_locked(error: &stoker::containerd::ContainerdError) -> bool {
    matches!(error, stoker::containerd::ContainerdError::Locked { .. })
}

/// What points at the parts of an image.
pub(crate) struct Descriptors {
    pub(crate) layers: Vec<Descriptor>,
    pub(crate) config: Descriptor,
    pub(crate) manifest: Descriptor,
    pub(crate) index: Option<Descriptor>,
}

pub(crate) fn descriptors(image: &BuiltImage) -> Descriptors {
    let (config, layer) = match image.kind {
        Kind::Oci => {
            ("application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar+gzip")
        }
        Kind::Docker => (
            "application/vnd.docker.container.image.v1+json",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
        ),
    };
    let of = |media_type: &str, digest, size| Descriptor { media_type: media_type.to_owned(), digest, size };
    let document = |media_type, bytes: &[u8]| of(media_type, Digest::of(bytes), bytes.len() as u64);
    Descriptors {
        layers: image.layers.iter().map(|built| of(layer, built.digest, built.size)).collect(),
        config: document(config, &image.config),
        manifest: document(image.kind.manifest(), &image.manifest),
        index: image.index.as_deref().map(|index| document(image.kind.index(), index)),
    }
}

/// The names of an image's snapshots, the lowest first.
pub(crate) fn chains(image: &BuiltImage) -> Vec<Digest> {
    let diffs: Vec<Digest> = image.layers.iter().map(|layer| layer.diff_id).collect();
    (1..=diffs.len()).map(|end| stoker::image::chain_id(&diffs[..end]).expect("some layers")).collect()
}

/// Unpacks a layer with plain means, and gives the directories that it doesn't describe.
fn unpack(blob: &Path, dir: &Path) -> BTreeSet<PathBuf> {
    let mut archive = tar::Archive::new(GzDecoder::new(File::open(blob).expect("a blob")));
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(true);
    let (mut described, mut implied) = (BTreeSet::new(), BTreeSet::new());
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").into_owned();
        let parent = path.parent().expect("a parent");
        for above in parent.ancestors().filter(|above| !above.as_os_str().is_empty()) {
            if !described.contains(above) {
                implied.insert(above.to_owned());
            }
        }
        std::fs::create_dir_all(dir.join(parent)).expect("its directory");
        let name = path.file_name().expect("a name").as_bytes();
        if name == b".wh..wh..opq" {
            let opaque = File::open(dir.join(parent)).expect("a directory");
            rustix::fs::fsetxattr(opaque, "trusted.overlay.opaque", b"y", XattrFlags::empty())
                .expect("opaque");
        } else if let Some(hidden) = name.strip_prefix(b".wh.") {
            let parent = File::open(dir.join(parent)).expect("a directory");
            let (hidden, kind) = (OsStr::from_bytes(hidden), FileType::CharacterDevice);
            rustix::fs::mknodat(parent, hidden, kind, Mode::empty(), 0).expect("a whiteout");
        } else {
            assert!(entry.unpack_in(dir).expect("it is unpacked"), "{}", path.display());
            described.insert(path);
        }
    }
    archive.into_inner().read_to_end(&mut Vec::new()).expect("a whole blob");
    implied
}

/// An image of small files, one a layer.
pub(crate) fn small(names: &[&str]) -> crate::parts::ImageBuilder {
    let layer = |name: &&str| Layer::new().file(&format!("file-{name}"), *name, 0o644);
    names.iter().map(layer).fold(crate::parts::ImageBuilder::new(), crate::parts::ImageBuilder::layer)
}
