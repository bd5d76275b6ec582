use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use super::super::{
    Cache, CacheError, Capacity, Current, Named, Reserve, RootFsPolicy, WarmWeights, Warmer, WeightsError,
};
use crate::fetch::{Engine, Limits};
use crate::list::WeightsGoods;
use crate::source::{Listing, RangeBody, RangeSource, RemoteFile, SourceConfig, SourceError, Sources};
use crate::types::{ByteRange, Digest, EntryId, Globs, Progress};

/// A cache in a directory of its own, and what fills it.
pub(super) struct Bed {
    pub(super) home: PathBuf,
    /// Of the cache, from the next time it's opened.
    pub(super) capacity: Capacity,
    cache: Option<Arc<Cache>>,
    _own: Option<tempfile::TempDir>,
}

impl Bed {
    pub(super) fn new() -> Self {
        Self::under(&std::env::temp_dir())
    }

    pub(super) fn under(dir: &Path) -> Self {
        let own = tempfile::tempdir_in(dir).unwrap();
        let bed = Self::at(own.path().to_owned());
        Self { _own: Some(own), ..bed }
    }

    /// A cache in a directory that is there already.
    pub(super) fn at(home: PathBuf) -> Self {
        let reserve = Reserve { percent: 0, bytes: 0 };
        let capacity = Capacity { reserve, max: None, grace: std::time::Duration::ZERO };
        let mut bed = Self { home, capacity, cache: None, _own: None };
        bed.reopen();
        bed
    }

    /// What a new start of the agent does. No other handle may be left.
    pub(super) fn reopen(&mut self) {
        self.close();
        // A process that another test is just starting shares our open files until its exec, the lock's too.
        let open = || Cache::open_with(&self.home, &RootFsPolicy::Allow, self.capacity);
        let mut opened = open();
        let mut patience = 100_000;
        while patience > 0 && matches!(opened, Err(CacheError::Locked { .. })) {
            std::thread::yield_now();
            patience -= 1;
            opened = open();
        }
        self.cache = Some(opened.unwrap());
    }

    /// What the end of an agent does.
    pub(super) fn close(&mut self) {
        if let Some(old) = self.cache.take() {
            assert_eq!(Arc::strong_count(&old), 1, "somebody still holds the cache");
        }
    }

    pub(super) fn cache(&self) -> &Arc<Cache> {
        self.cache.as_ref().unwrap()
    }

    pub(super) fn warmer(&self) -> Warmer {
        let reserve = Reserve { percent: 0, bytes: 0 };
        Warmer::new(self.cache().clone(), engine(), sources(), false).with_reserve(reserve)
    }

    pub(super) async fn ensure(&self, name: &str, files: &[RemoteFile]) -> Result<WarmWeights, WeightsError> {
        self.ensure_listing(name, files.to_vec().into()).await
    }

    pub(super) async fn ensure_listing(
        &self,
        name: &str,
        listing: Listing,
    ) -> Result<WarmWeights, WeightsError> {
        let (progress, stop) = (Progress::default(), CancellationToken::new());
        let warm = self.warmer().ensure_files(&id(name), &goods(name), listing, &progress, &stop).await?;
        assert_eq!(progress.done(), progress.total());
        assert!(warm.fetched_bytes <= progress.total(), "bytes that another job brought count as done too");
        Ok(warm)
    }

    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.home.join(below)
    }

    pub(super) fn read(&self, below: &str) -> Vec<u8> {
        std::fs::read(self.path(below)).unwrap()
    }

    pub(super) fn inode(&self, below: &str) -> u64 {
        std::fs::metadata(self.path(below)).unwrap().ino()
    }

    pub(super) fn blob(&self, digest: Digest) -> PathBuf {
        self.path(&format!("v1/blobs/sha256/{}/{}", &digest.hex()[..2], digest.hex()))
    }

    pub(super) fn named(&self, name: &str) -> Option<Named> {
        self.cache().names().unwrap().remove(&id(name))
    }

    pub(super) fn current(&self, name: &str) -> Option<Current> {
        self.named(name)?.current
    }

    /// What is under `weights/`, directories with a slash at the end, links with what they say.
    pub(super) fn shown(&self) -> BTreeSet<String> {
        self.below("weights")
    }

    /// The same of any directory.
    pub(super) fn below(&self, dir: &str) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        below(&self.path(dir), "", &mut all);
        all
    }

    /// Nothing is on its way any more.
    pub(super) fn assert_tidy(&self) {
        for dir in ["v1/partial", "v1/staging"] {
            let left: Vec<_> = std::fs::read_dir(self.path(dir)).unwrap().collect();
            assert!(left.is_empty(), "{dir} holds {left:?}");
        }
    }
}

fn below(dir: &Path, prefix: &str, all: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        let kind = entry.file_type().unwrap();
        if kind.is_symlink() {
            all.insert(format!("{name} -> {}", std::fs::read_link(entry.path()).unwrap().display()));
        } else if kind.is_dir() {
            all.insert(format!("{name}/"));
            below(&entry.path(), &format!("{name}/"), all);
        } else {
            all.insert(name);
        }
    }
}

pub(super) fn mode(path: impl AsRef<Path>) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

pub(super) fn set_mode(path: impl AsRef<Path>, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

pub(super) fn engine() -> Engine {
    Engine::new(Limits::default())
}

/// Made once: the CA certificates of the machine are read for it. Nothing here asks any server.
pub(super) fn sources() -> Sources {
    static SOURCES: OnceLock<Sources> = OnceLock::new();
    SOURCES.get_or_init(|| Sources::new(SourceConfig::default()).unwrap()).clone()
}

pub(super) fn id(name: &str) -> EntryId {
    name.parse().unwrap()
}

pub(super) fn goods(name: &str) -> WeightsGoods {
    WeightsGoods {
        uri: format!("s3://bucket/{name}/").parse().unwrap(),
        index: false,
        globs: Globs::all(),
        sha256: Default::default(),
    }
}

/// A server's blob that counts what is asked of it and can go wrong.
#[derive(Debug, Default)]
pub(super) struct Served {
    pub(super) bytes: Bytes,
    pub(super) gets: AtomicUsize,
    /// Bytes that were answered.
    pub(super) sent: AtomicU64,
    /// So many answers have one wrong byte.
    pub(super) flips: AtomicUsize,
    /// Answers wait until this is cancelled, where there is one.
    pub(super) hold: Option<CancellationToken>,
}

impl Served {
    pub(super) fn new(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), ..Self::default() }
    }

    pub(super) fn gets(&self) -> usize {
        self.gets.load(SeqCst)
    }

    /// As the source would list it, with its digest.
    pub(super) fn listed(self: &Arc<Self>, path: &str) -> RemoteFile {
        RemoteFile { digest: Some(Digest::of(&self.bytes).into()), ..self.recorded(path, Some("\"v1\"")) }
    }

    /// As a source would list it that publishes no digest.
    pub(super) fn recorded(self: &Arc<Self>, path: &str, version: Option<&str>) -> RemoteFile {
        RemoteFile {
            path: path.parse().unwrap(),
            size: self.bytes.len() as u64,
            version: version.map(str::to_owned),
            digest: None,
            bytes: self.clone(),
        }
    }
}

impl RangeSource for Served {
    fn get(&self, range: ByteRange) -> BoxFuture<'_, Result<RangeBody, SourceError>> {
        self.gets.fetch_add(1, SeqCst);
        self.sent.fetch_add(range.len(), SeqCst);
        let slice = range.start() as usize..range.end() as usize;
        let mut bytes = self.bytes.slice(slice).to_vec();
        let flip = self.flips.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
        if flip {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        async move {
            if let Some(hold) = &self.hold {
                hold.cancelled().await;
            }
            Ok(RangeBody { bytes: stream::iter([Ok(Bytes::from(bytes))]).boxed() })
        }
        .boxed()
    }

    fn origin(&self) -> &str {
        "served"
    }
}

pub(super) fn served(bytes: impl Into<Bytes>) -> Arc<Served> {
    Arc::new(Served::new(bytes))
}

/// A file with a digest that nobody asks twice about.
pub(super) fn file(path: &str, text: &str) -> RemoteFile {
    served(text.as_bytes().to_vec()).listed(path)
}

/// Bytes that take more than one write, and end unaligned.
pub(super) fn large(seed: u8) -> Vec<u8> {
    (0..(3 << 20) + 4321u32).map(|i| (i % 249) as u8 ^ (i >> 13) as u8 ^ seed).collect()
}
