use std::fs::{File, Metadata};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::super::{Limits, TarSink as _, UnpackError, Unpacked, Unpacker};
use super::tape::{Item, Tape};

/// A directory to unpack into, beside one that nobody may touch.
pub(in super::super) struct Bed {
    home: tempfile::TempDir,
    before: Vec<String>,
}

impl Bed {
    pub(in super::super) fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join("root")).unwrap();
        std::fs::create_dir_all(home.path().join("canary/dir")).unwrap();
        std::fs::write(home.path().join("canary/file"), "sings").unwrap();
        let mut bed = Self { home, before: Vec::new() };
        bed.before = bed.outside();
        bed
    }

    /// All that can be seen of what lies beside the root.
    fn outside(&self) -> Vec<String> {
        let look = |path: PathBuf| {
            let meta = path.symlink_metadata().unwrap();
            let content = if meta.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
            let (mode, nlink, mtime) = (meta.mode(), meta.nlink(), meta.mtime_nsec());
            format!("{path:?} {mode:o} {nlink} {} {mtime} {content:?}", meta.uid())
        };
        let list = |path: PathBuf| {
            let mut names: Vec<PathBuf> =
                std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path()).collect();
            names.sort();
            names
        };
        let home = list(self.home.path().to_owned());
        let canary = list(self.home.path().join("canary"));
        assert!(list(self.home.path().join("canary/dir")).is_empty());
        home.into_iter().filter(|path| !path.ends_with("root")).chain(canary).map(look).collect()
    }

    pub(in super::super) fn root(&self) -> PathBuf {
        self.home.path().join("root")
    }

    pub(in super::super) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root().join(path)
    }

    pub(in super::super) fn canary(&self) -> PathBuf {
        self.home.path().join("canary")
    }

    pub(in super::super) fn open(&self) -> OwnedFd {
        File::open(self.root()).unwrap().into()
    }

    /// Unpacks a stream in pieces of `size` bytes. Nothing beside the root may change, whatever comes of it.
    pub(in super::super) fn feed_with(
        &self,
        sink: &mut Unpacker,
        stream: &[u8],
        size: usize,
    ) -> Result<Unpacked, UnpackError> {
        let done = stream.chunks(size).try_for_each(|piece| sink.feed(piece)).and_then(|()| sink.finish());
        assert_eq!(self.outside(), self.before);
        done
    }

    pub(in super::super) fn feed(&self, stream: &[u8]) -> Result<Unpacked, UnpackError> {
        let mut sink = Unpacker::new(self.open(), Limits::default()).unwrap();
        self.feed_with(&mut sink, stream, 1 << 20)
    }

    pub(in super::super) fn unpack(
        &self,
        items: impl IntoIterator<Item = Item>,
    ) -> Result<Unpacked, UnpackError> {
        self.feed(&Tape::of(items))
    }

    /// Of the thing itself.
    pub(in super::super) fn stat(&self, path: &str) -> Metadata {
        self.path(path).symlink_metadata().unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    pub(in super::super) fn exists(&self, path: &str) -> bool {
        self.path(path).symlink_metadata().is_ok()
    }

    pub(in super::super) fn read(&self, path: &str) -> Vec<u8> {
        std::fs::read(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }
}

pub(in super::super) fn mode(meta: &Metadata) -> u32 {
    meta.mode() & 0o7777
}

pub(in super::super) fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 1024];
    let len = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(len);
    Some(value)
}
