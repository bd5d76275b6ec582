//! Builds OCI images out of files.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};
use stoker::types::{Digest, Hasher};
use tar::{EntryType, Header};

use super::scratch::Scratch;

/// Which media types an image has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// OCI's.
    Oci,
    /// Docker's schema 2.
    Docker,
}

impl Kind {
    /// The manifest's media type.
    pub(crate) fn manifest(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.manifest.v1+json",
            Self::Docker => "application/vnd.docker.distribution.manifest.v2+json",
        }
    }

    /// The index's media type.
    pub(crate) fn index(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.index.v1+json",
            Self::Docker => "application/vnd.docker.distribution.manifest.list.v2+json",
        }
    }

    fn config(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.config.v1+json",
            Self::Docker => "application/vnd.docker.container.image.v1+json",
        }
    }

    fn layer(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Docker => "application/vnd.docker.image.rootfs.diff.tar.gzip",
        }
    }
}

#[derive(Debug, Clone)]
enum Item {
    Dir { path: String, mode: u32 },
    File { path: String, bytes: Vec<u8>, mode: u32 },
    Symlink { path: String, target: String },
    HardLink { path: String, target: String },
    Host { dir: PathBuf, limit: u64 },
}

/// What one layer holds, in the order in which it was said.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layer {
    items: Vec<Item>,
}

impl Layer {
    /// An empty layer.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A directory.
    pub(crate) fn dir(self, path: &str, mode: u32) -> Self {
        self.with(Item::Dir { path: format!("{path}/"), mode })
    }

    /// A file.
    pub(crate) fn file(self, path: &str, bytes: impl Into<Vec<u8>>, mode: u32) -> Self {
        self.with(Item::File { path: path.to_owned(), bytes: bytes.into(), mode })
    }

    /// A symbolic link.
    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.with(Item::Symlink { path: path.to_owned(), target: target.to_owned() })
    }

    /// A hard link to a path of this layer or of a lower one.
    pub(crate) fn hard_link(self, path: &str, target: &str) -> Self {
        self.with(Item::HardLink { path: path.to_owned(), target: target.to_owned() })
    }

    /// Takes away a path of a lower layer (OCI image spec, layer.md, "Whiteouts").
    pub(crate) fn whiteout(self, path: &str) -> Self {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let slash = if dir.is_empty() { "" } else { "/" };
        self.file(&format!("{dir}{slash}.wh.{name}"), Vec::new(), 0o644)
    }

    /// Hides all that lower layers have in a directory.
    pub(crate) fn opaque(self, dir: &str) -> Self {
        self.file(&format!("{dir}/.wh..wh..opq"), Vec::new(), 0o644)
    }

    /// Files, links and directories of this host below `dir`, in the order of their names, until the next file would
    /// bring their sizes above `limit` bytes. A file of more than half of that is left out.
    pub(crate) fn host(self, dir: impl Into<PathBuf>, limit: u64) -> Self {
        self.with(Item::Host { dir: dir.into(), limit })
    }

    /// A program of this host, with the libraries that it is linked with.
    pub(crate) fn program(self, path: &str) -> Self {
        let linked = std::process::Command::new("ldd").arg(path).output().expect("ldd can be run");
        let text = String::from_utf8_lossy(&linked.stdout).into_owned();
        let libraries = text.split_whitespace().filter(|word| word.starts_with('/'));
        let host = |path: &str| std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        std::iter::once(path)
            .chain(libraries)
            .fold(self, |layer, path| layer.file(path.trim_start_matches('/'), host(path), 0o755))
    }

    fn with(mut self, item: Item) -> Self {
        self.items.push(item);
        self
    }

    fn write(&self, tar: &mut tar::Builder<impl Write>) -> std::io::Result<()> {
        for item in &self.items {
            match item {
                Item::Dir { path, mode } => add(tar, EntryType::Directory, path, *mode, &[])?,
                Item::File { path, bytes, mode } => add(tar, EntryType::Regular, path, *mode, bytes)?,
                Item::Symlink { path, target } => link(tar, EntryType::Symlink, path, target)?,
                Item::HardLink { path, target } => link(tar, EntryType::Link, path, target)?,
                Item::Host { dir, limit } => add_host(tar, dir, &mut Room::of(*limit))?,
            }
        }
        Ok(())
    }
}

// 2026-01-01: images made of the same files are the same, byte for byte.
const MTIME: u64 = 1_767_225_600;

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(MTIME);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn add(
    tar: &mut tar::Builder<impl Write>,
    kind: EntryType,
    path: &str,
    mode: u32,
    bytes: &[u8],
) -> std::io::Result<()> {
    tar.append_data(&mut header(kind, mode, bytes.len() as u64), path, bytes)
}

fn link(
    tar: &mut tar::Builder<impl Write>,
    kind: EntryType,
    path: &str,
    target: &str,
) -> std::io::Result<()> {
    tar.append_link(&mut header(kind, 0o777, 0), path, target)
}

/// Adds a directory of the host.
fn add_host(tar: &mut tar::Builder<impl Write>, dir: &Path, room: &mut Room) -> std::io::Result<()> {
    let inside = |path: &Path| path.strip_prefix("/").unwrap_or(path).to_owned();
    let mode = std::fs::metadata(dir)?.mode() & 0o7777;
    tar.append_data(&mut header(EntryType::Directory, mode, 0), inside(dir), std::io::empty())?;
    let mut entries: Vec<PathBuf> = std::fs::read_dir(dir)?.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        let meta = path.symlink_metadata()?;
        if room.full {
            return Ok(());
        } else if meta.is_dir() {
            add_host(tar, &path, room)?;
        } else if meta.is_symlink() {
            tar.append_link(
                &mut header(EntryType::Symlink, 0o777, 0),
                inside(&path),
                std::fs::read_link(&path)?,
            )?;
        } else if meta.is_file() && room.takes(meta.len()) {
            let mut header = header(EntryType::Regular, meta.mode() & 0o7777, meta.len());
            tar.append_data(&mut header, inside(&path), File::open(&path)?)?;
        }
    }
    Ok(())
}

/// How many bytes may still be added.
struct Room {
    limit: u64,
    left: u64,
    full: bool,
}

impl Room {
    fn of(limit: u64) -> Self {
        Self { limit, left: limit, full: false }
    }

    fn takes(&mut self, size: u64) -> bool {
        if size > self.limit / 2 {
            return false;
        }
        self.full = size > self.left;
        self.left = self.left.saturating_sub(size);
        !self.full
    }
}

/// What an image is to be.
#[derive(Debug, Clone)]
pub(crate) struct ImageBuilder {
    layers: Vec<Layer>,
    kind: Kind,
    index: bool,
    config: Map<String, Value>,
    level: u32,
}

impl ImageBuilder {
    /// An OCI image without layers, without an index.
    pub(crate) fn new() -> Self {
        let mut config = Map::new();
        config.insert("Env".to_owned(), json!(["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]));
        Self { layers: Vec::new(), kind: Kind::Oci, index: false, config, level: 1 }
    }

    /// Adds a layer on top.
    pub(crate) fn layer(mut self, layer: Layer) -> Self {
        self.layers.push(layer);
        self
    }

    /// Its media types.
    pub(crate) fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// Puts an index above the manifest: the tag then points at the index.
    pub(crate) fn with_index(mut self) -> Self {
        self.index = true;
        self
    }

    /// What a container of it runs.
    pub(crate) fn entrypoint(self, words: &[&str]) -> Self {
        self.with("Entrypoint", json!(words))
    }

    /// Sets a field of its container's configuration (OCI image spec, config.md, "config").
    pub(crate) fn with(mut self, field: &str, value: Value) -> Self {
        self.config.insert(field.to_owned(), value);
        self
    }

    /// Builds it: the layers side by side, one thread each.
    pub(crate) fn build(&self) -> BuiltImage {
        let scratch = Scratch::new("image");
        let layers: Vec<BuiltLayer> = std::thread::scope(|scope| {
            let build = |(number, layer): (usize, _)| {
                let path = scratch.join(format!("layer-{number}"));
                scope.spawn(move || build_layer(layer, path, self.level))
            };
            let threads: Vec<_> = self.layers.iter().enumerate().map(build).collect();
            threads.into_iter().map(|thread| thread.join().expect("a layer is built")).collect()
        });
        let config = serde_json::to_vec(&self.config(&layers)).expect("JSON");
        let manifest = serde_json::to_vec(&self.manifest(&config, &layers)).expect("JSON");
        let index = self.index.then(|| serde_json::to_vec(&self.index_of(&manifest)).expect("JSON"));
        BuiltImage { kind: self.kind, layers, config, manifest, index, _scratch: scratch }
    }

    fn config(&self, layers: &[BuiltLayer]) -> Value {
        let diff_ids: Vec<String> = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
        json!({
            "architecture": architecture(),
            "os": "linux",
            "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        })
    }

    fn manifest(&self, config: &[u8], layers: &[BuiltLayer]) -> Value {
        let layer = |layer: &BuiltLayer| json!({"mediaType": self.kind.layer(), "digest": layer.digest.to_string(), "size": layer.size});
        json!({
            "schemaVersion": 2,
            "mediaType": self.kind.manifest(),
            "config": {
                "mediaType": self.kind.config(),
                "digest": Digest::of(config).to_string(),
                "size": config.len(),
            },
            "layers": layers.iter().map(layer).collect::<Vec<_>>(),
        })
    }

    fn index_of(&self, manifest: &[u8]) -> Value {
        json!({
            "schemaVersion": 2,
            "mediaType": self.kind.index(),
            "manifests": [{
                "mediaType": self.kind.manifest(),
                "digest": Digest::of(manifest).to_string(),
                "size": manifest.len(),
                "platform": {"architecture": architecture(), "os": "linux"},
            }],
        })
    }
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    }
}

/// An image that was built; its layers are files in a directory of its own.
#[derive(Debug)]
pub(crate) struct BuiltImage {
    /// Its media types.
    pub(crate) kind: Kind,
    /// Its layers, the lowest first.
    pub(crate) layers: Vec<BuiltLayer>,
    /// Its config.
    pub(crate) config: Vec<u8>,
    /// Its manifest.
    pub(crate) manifest: Vec<u8>,
    /// The index above it, if one was asked for.
    pub(crate) index: Option<Vec<u8>>,
    _scratch: Scratch,
}

/// A layer that was built.
#[derive(Debug, Clone)]
pub(crate) struct BuiltLayer {
    /// Of the compressed blob.
    pub(crate) digest: Digest,
    /// Of the tar inside.
    pub(crate) diff_id: Digest,
    /// Of the compressed blob, in bytes.
    pub(crate) size: u64,
    /// Of the tar, in bytes.
    pub(crate) tar_size: u64,
    /// Where the blob is.
    pub(crate) path: PathBuf,
}

impl BuiltImage {
    /// The config's digest: the image's ID in CRI.
    pub(crate) fn config_digest(&self) -> Digest {
        Digest::of(&self.config)
    }

    /// The manifest's digest.
    pub(crate) fn manifest_digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    /// What a reference to it points at: the index's digest, or the manifest's where there is no index.
    pub(crate) fn digest(&self) -> Digest {
        self.index.as_deref().map_or_else(|| self.manifest_digest(), Digest::of)
    }

    /// The key of its top snapshot (OCI image spec, config.md, "Layer ChainID").
    pub(crate) fn chain_id(&self) -> Digest {
        let mut diffs = self.layers.iter().map(|layer| layer.diff_id);
        let first = diffs.next().expect("an image has a layer");
        diffs.fold(first, |chain, diff| Digest::of(format!("{chain} {diff}").as_bytes()))
    }

    /// The bytes that a pull transfers for its layers.
    pub(crate) fn compressed_size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).sum()
    }
}

fn build_layer(layer: &Layer, path: PathBuf, level: u32) -> BuiltLayer {
    let failed = |error| -> ! { panic!("{}: {error}", path.display()) };
    let file = File::create(&path).unwrap_or_else(|error| failed(error));
    let blob = Counted::new(BufWriter::new(file));
    let diff = Counted::new(GzEncoder::new(blob, Compression::new(level)));
    let mut tar = tar::Builder::new(diff);
    let written = layer.write(&mut tar).and_then(|()| tar.into_inner());
    let (gzip, diff_id, tar_size) = written.unwrap_or_else(|error| failed(error)).finish();
    let (mut file, digest, size) = gzip.finish().unwrap_or_else(|error| failed(error)).finish();
    file.flush().unwrap_or_else(|error| failed(error));
    BuiltLayer { digest, diff_id, size, tar_size, path }
}

/// Passes bytes on, hashes and counts them.
struct Counted<W> {
    inner: W,
    hasher: Hasher,
    size: u64,
}

impl<W> Counted<W> {
    fn new(inner: W) -> Self {
        Self { inner, hasher: Hasher::new(), size: 0 }
    }

    fn finish(self) -> (W, Digest, u64) {
        (self.inner, self.hasher.finish(), self.size)
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}
