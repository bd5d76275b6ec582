use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio_util::sync::CancellationToken;

use super::batch::{Desk, Means, Written};
use super::capacity::Capacity;
use super::claims::{Admission, Claims, Reserve, Turn};
use super::data_file::Keeper;
use super::error::{CacheError, OpError, WeightsError};
use super::found::Found;
use super::holds::{Held, Holds};
use super::hub::{self, Hub, HubPlace};
use super::incoming::{Arrival, Incoming};
use super::journal::Origin;
use super::layout::{self, PartialKey};
use super::lock::Lock;
use super::manifest::{Manifest, Request};
use super::marks::Pace;
use super::names::{self, Named};
use super::ops::{self, Dir};
use super::root_fs::RootFsPolicy;
use super::spot::Spot;
use super::tree::{self, Retired};
use super::{blob, partials, stock};
use crate::source::HubCommit;
use crate::types::{Digest, EntryId, Revision};

/// The weights on this node's disk, held by the one process that may write them. All calls block on the file system;
/// from async code they belong on a blocking thread.
#[derive(Debug)]
pub struct Cache {
    pub(super) root: Dir,
    pub(super) staging: Arc<Dir>,
    pub(super) capacity: Capacity,
    pub(super) holds: Arc<Holds>,
    claims: Arc<Claims>,
    /// Held while names change, so that two changes never meet half-way. Never held over bytes.
    names: Mutex<()>,
    /// Held while room is made, so that two who need some don't give up twice as much.
    evicting: Mutex<()>,
    /// Held while the scrub has a blob open, and while it's asked whether anybody has.
    reading: Mutex<()>,
    staged: AtomicU64,
    _lock: Lock,
}

impl Cache {
    /// Opens the cache in the directory `root`, and makes it where it's missing. What a killed run left half-done
    /// is taken away, but for files that can be gone on with, and what it had finished is made durable.
    ///
    /// # Errors
    /// When another process has it, when it lies on the root file system and `policy` won't have that, when parts of
    /// it belong to somebody else, or when the file system fails.
    pub fn open(root: &Path, policy: &RootFsPolicy) -> Result<Arc<Self>, CacheError> {
        Self::open_with(root, policy, Capacity::default())
    }

    /// The same, for one that may get so large.
    ///
    /// # Errors
    /// As with [`open`](Self::open).
    pub fn open_with(
        root: &Path,
        policy: &RootFsPolicy,
        capacity: Capacity,
    ) -> Result<Arc<Self>, CacheError> {
        std::fs::create_dir_all(root).map_err(|cause| OpError::new("make the directory", root, cause))?;
        let root = Dir::open_root(root)?;
        policy.check(&root)?;
        let v1 = public(&root, layout::V1)?;
        let lock = Lock::take(&root, &v1)?;
        for path in [layout::ALL_BLOBS, layout::BLOBS, layout::REVISIONS, layout::WEIGHTS, layout::HUB] {
            public(&root, path)?;
        }
        partials::sweep(&root.make(layout::PARTIAL, layout::PRIVATE_DIR)?, SystemTime::now())?;
        let staging = Arc::new(root.make(layout::STAGING, layout::PRIVATE_DIR)?);
        staging.list()?.iter().try_for_each(|leftover| staging.remove_tree(leftover))?;
        let cache = Self {
            root,
            staging,
            capacity,
            holds: Arc::default(),
            claims: Arc::default(),
            names: Mutex::new(()),
            evicting: Mutex::new(()),
            reading: Mutex::new(()),
            staged: AtomicU64::new(0),
            _lock: lock,
        };
        cache.remove_unfinished()?;
        cache.settle_hub();
        // A name that a killed run made may be visible and not yet durable; after this, visible is durable.
        cache.root.sync_all()?;
        Ok(Arc::new(cache))
    }

    /// The directory that it is in.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// What every entry with a name in the cache shows; nothing, for one that has only files which are on their way.
    /// A look at names and lengths: bytes aren't read.
    ///
    /// # Errors
    /// When the file system fails; something wrong with one entry is that entry's [`Named::problem`].
    pub fn names(&self) -> Result<BTreeMap<EntryId, Named>, CacheError> {
        self.check_place()?;
        let mut names = names::scan(&self.root)?;
        for owner in partials::owners(&self.root.open(layout::PARTIAL)?)? {
            // Whoever takes leave of the entry must hear of them.
            names.entry(owner).or_default();
        }
        Ok(names)
    }

    /// Takes away what an entry shows to pods: its part of `hub/`, refs first; then `current` and every revision; and
    /// what was fetched for it of files that aren't finished. The bytes and the manifests of finished ones stay, so that
    /// listing it again costs no transfer of them. What a process has open or mapped stays as it is, and all of
    /// the entry with it. Whether a container still uses it is the caller's to know ([`Declared`](super::Declared)),
    /// and that the entry's job has ended or been dropped: one still at work would show it again.
    ///
    /// # Errors
    /// When the file system fails; calling it again goes on where it stopped.
    pub fn retire(&self, id: &EntryId) -> Result<Retired, CacheError> {
        self.forget_partials(id, &BTreeSet::new())?;
        self.found(id)?.forget()?;
        let _changing = self.change_names();
        let _unread = self.reading();
        // Before the first name goes.
        if let Some(path) = tree::first_in_use(&self.root, id)? {
            return Ok(Retired::InUse(path));
        }
        let staged = self.staged_name();
        let hub = Hub::new(&self.root, &self.staging, &staged);
        if !hub.is_empty()? {
            hub.settle(&hub::shown(&self.root, Some(id))?)?;
        }
        let retired = tree::hide(&self.root, &self.staging, &staged, id)?;
        Ok(match retired {
            Retired::Foreign(_) => Retired::Foreign(self.root.path().join(layout::entry(id))),
            retired => retired,
        })
    }

    /// Takes away every revision of an entry that `current` doesn't mean. Without this call the one before the
    /// current stays until the next switch or [`retire`](Self::retire): a pod may still be reading it by its name.
    /// Says which file somebody has open or mapped, if one is: then its revision stays.
    ///
    /// # Errors
    /// When the file system fails.
    pub fn drop_old(&self, id: &EntryId) -> Result<Option<PathBuf>, CacheError> {
        let _changing = self.change_names();
        let _unread = self.reading();
        let Some(entry) = self.root.find(layout::entry(id))? else { return Ok(None) };
        let current = entry.read_link(layout::CURRENT)?;
        let keep = |name: &str| current.as_deref().is_some_and(|current| current == name);
        let used = tree::remove_trees(&self.root, &entry, &self.staging, &self.staged_name(), id, keep)?;
        self.settle_hub();
        Ok(used)
    }

    /// Makes `hub/` what the entries show. Whatever comes of it, the entries themselves are right; what an entry
    /// lacks there is its [`Named::problem`].
    fn settle_hub(&self) {
        let staged = self.staged_name();
        let hub = Hub::new(&self.root, &self.staging, &staged);
        let settle = || match hub.is_empty()? {
            true => Ok(()),
            false => Ok::<_, CacheError>(hub.settle(&hub::shown(&self.root, None)?)?),
        };
        if let Err(error) = settle() {
            tracing::warn!(error = crate::rt::chain(&error), "hub/ is not as it should be");
        }
    }

    /// Whether an entry that shows `revision` came by it from this commit, and `hub/` says so.
    pub(super) fn is_from(
        &self,
        id: &EntryId,
        revision: Revision,
        commit: Option<&HubCommit>,
    ) -> Result<bool, CacheError> {
        let manifest = Manifest::read(&self.root, revision)?;
        let place = manifest.and_then(|mut manifest| manifest.entries.remove(id)?.hub);
        Ok(match (place, commit) {
            (None, None) => true,
            (Some(place), Some(commit)) => place.is(commit) && hub::points(&self.root, &place)?,
            (Some(_), None) | (None, Some(_)) => false,
        })
    }

    /// Trees without a `current` are of a first revision that was about to be shown, or of an entry that was about
    /// to be retired: nobody has been told of them. Their blobs stay.
    fn remove_unfinished(&self) -> Result<(), CacheError> {
        for id in names::ids(&self.root)? {
            let removed =
                self.root.open(layout::entry(&id)).and_then(|entry| match entry.stat(layout::CURRENT)? {
                    None => tree::hide(&self.root, &self.staging, &self.staged_name(), &id),
                    Some(_) => Ok(Retired::Gone),
                });
            match removed {
                Ok(Retired::Gone) => {}
                Ok(Retired::Foreign(_)) => {
                    tracing::warn!(%id, "its directory holds something foreign, and stays");
                }
                Ok(Retired::InUse(path)) => {
                    tracing::warn!(%id, path = %path.display(), "an unfinished revision is in use, and stays");
                }
                Err(error) => {
                    tracing::warn!(%id, error = crate::rt::chain(&error), "an unfinished revision stays");
                }
            }
        }
        Ok(())
    }

    // The three guard no data; what a panic left half-done is the disk's, and the disk is always looked at.

    pub(super) fn change_names(&self) -> MutexGuard<'_, ()> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn evicting(&self) -> MutexGuard<'_, ()> {
        self.evicting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn reading(&self) -> MutexGuard<'_, ()> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A name in staging that is nobody else's.
    pub(super) fn staged_name(&self) -> String {
        self.staged.fetch_add(1, Relaxed).to_string()
    }

    /// What an entry shows, if it shows anything.
    ///
    /// # Errors
    /// When the file system fails.
    pub fn named(&self, id: &EntryId) -> Result<Option<Named>, CacheError> {
        names::of_entry(&self.root, id)
    }

    /// How the files of an earlier, equal request of this entry looked: of its newest manifest. An entry that was
    /// retired finds its recorded digests again by it.
    pub(super) fn earlier(&self, id: &EntryId, fingerprint: Digest) -> Result<Option<Earlier>, CacheError> {
        let mut newest: Option<Earlier> = None;
        for revision in Manifest::revisions(&self.root)? {
            let Some(mut manifest) = Manifest::read(&self.root, revision)? else { continue };
            let Some(request) = manifest.entries.remove(id).filter(|it| it.fingerprint == fingerprint) else {
                continue;
            };
            if newest.as_ref().is_none_or(|newest| newest.request.created < request.created) {
                newest = Some(Earlier { files: manifest.files, request });
            }
        }
        Ok(newest)
    }

    /// Whether the blob is there and as it should be; see [`blob::settle`].
    pub(super) fn has_blob(&self, digest: Digest, size: u64) -> Result<bool, CacheError> {
        Ok(blob::settle(&self.root, digest, size)?)
    }

    /// Takes away what was left of the files that were begun for this entry, but for those that it `wants` still, and
    /// those that any job wants now.
    pub(super) fn forget_partials(
        &self,
        id: &EntryId,
        wants: &BTreeSet<PartialKey>,
    ) -> Result<(), CacheError> {
        let partials = self.root.open(layout::PARTIAL)?;
        for origin in partials::origins(&partials)? {
            if origin.owner.as_ref() != Some(id) || wants.contains(&origin.key) {
                continue;
            }
            // Held while it's removed: who comes to want it waits, and begins again.
            if let Some(_turn) = self.claims.idle_turn(&origin.key) {
                tracing::info!(%id, key = origin.key.as_str(), "a file that is no longer wanted isn't gone on with");
                partials.remove_tree(origin.key.as_str())?;
            }
        }
        Ok(())
    }

    /// Where the digests are kept that are found for this entry.
    pub(super) fn found(&self, id: &EntryId) -> Result<Found, CacheError> {
        Ok(Found::new(self.root.open(layout::PARTIAL)?, layout::found(id)))
    }

    /// Bytes that jobs are still to write.
    pub(super) fn claimed(&self) -> u64 {
        self.claims.outstanding()
    }

    /// Whether the cache's directory is still the one that was opened: a disk that is unmounted, or mounted over it,
    /// leaves us with a directory that no pod sees.
    ///
    /// # Errors
    /// [`CacheError::Moved`] if it isn't.
    fn check_place(&self) -> Result<(), CacheError> {
        let is_same = |there: Dir| -> Result<bool, OpError> {
            let (there_is, was) = (there.own_stat()?, self.root.own_stat()?);
            Ok((there_is.st_dev, there_is.st_ino) == (was.st_dev, was.st_ino))
        };
        match Dir::open_root(self.root.path()).and_then(is_same) {
            Ok(true) => Ok(()),
            Ok(false) => Err(CacheError::Moved { root: self.root.path().to_owned() }),
            Err(error) if error.is_not_found() => {
                Err(CacheError::Moved { root: self.root.path().to_owned() })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Counts on these blobs, there or not, until the result is dropped: none of them is given up.
    pub(super) fn hold(&self, digests: impl IntoIterator<Item = Digest>) -> Arc<Held> {
        let held = self.holds.begin();
        digests.into_iter().for_each(|digest| held.add(digest));
        held
    }

    /// What of these files has no room on the disk yet.
    pub(super) fn lacking(&self, wanted: &[(PartialKey, u64)]) -> Result<Vec<(PartialKey, u64)>, OpError> {
        let partials = self.root.open(layout::PARTIAL)?;
        let lacks = |(key, size): &(PartialKey, u64)| {
            Ok((key.clone(), size.saturating_sub(partials::allocated(&partials, key)?)))
        };
        wanted.iter().map(lacks).collect()
    }

    /// Room for the files that are still to be fetched. What is left of them from earlier has its room already; what
    /// is left of files that no job wants now gives way, the oldest first, if that is enough. Then
    /// what no entry needs is given up.
    pub(super) fn admit(
        &self,
        wanted: &[(PartialKey, u64)],
        reserve: Reserve,
    ) -> Result<Arc<Admission>, WeightsError> {
        let wanted_keys: BTreeSet<&PartialKey> = wanted.iter().map(|(key, _)| key).collect();
        let partials = self.root.open(layout::PARTIAL)?;
        let wanted = self.lacking(wanted)?;
        loop {
            let stock = stock::take_stock(&self.root)?;
            let space = self.space(reserve, &stock)?;
            let refused = match self.claims.admit(&wanted, space.available, space.reserve) {
                Ok(admission) => return Ok(admission),
                Err(refused) => refused,
            };
            let short = refused.needed.saturating_sub(refused.available.saturating_sub(space.reserve));
            if self.give_way(&partials, &wanted_keys, short)? {
                continue;
            }
            let freed = self.make_room(short)?;
            if freed.bytes == 0 {
                return Err(WeightsError::NoSpace {
                    root: self.root.path().to_owned(),
                    needed: refused.needed,
                    available: refused.available,
                    reserve: space.reserve,
                    max: self.capacity.max,
                    freed,
                });
            }
            self.await_space(space.available, freed.bytes)?;
        }
    }

    /// Takes away what was left longest of a file that no job wants, if all that is left of such files has `lacking`
    /// bytes; says whether it did.
    fn give_way(
        &self,
        partials: &Dir,
        wanted: &BTreeSet<&PartialKey>,
        lacking: u64,
    ) -> Result<bool, OpError> {
        let (mut idle, mut bytes) = (Vec::new(), 0_u64);
        for origin in partials::origins(partials)? {
            if !wanted.contains(&origin.key)
                && let Some(turn) = self.claims.idle_turn(&origin.key)
            {
                bytes = bytes.saturating_add(partials::allocated(partials, &origin.key)?);
                idle.push(turn);
            }
        }
        let Some(oldest) = idle.first().filter(|_| bytes >= lacking) else { return Ok(false) };
        let key = oldest.key().as_str();
        tracing::info!(
            key,
            "a file that isn't finished, and that nobody fetches now, gives way to one that is wanted"
        );
        partials.remove_tree(key)?;
        Ok(true)
    }

    /// A place for the bytes of the file whose turn this is, with what an earlier run left of `origin`.
    pub(super) fn open_partial(
        &self,
        turn: Arc<Turn>,
        origin: Option<Origin>,
        size: u64,
        pace: Pace,
        stop: &CancellationToken,
    ) -> Result<Incoming, WeightsError> {
        let key = turn.key().clone();
        let spot = Spot::in_own(self.root.open(layout::PARTIAL)?, key.as_str())?;
        let incoming =
            Incoming::open(spot, Arrival { origin, size, pace, keeper: Some(Keeper::Turn(turn)) }, stop)?;
        self.claims.allocated(&key);
        Ok(incoming)
    }

    /// Makes a blob of a file whose digest has been compared. One that can't become a blob stays as it was.
    pub(super) fn adopt(&self, mut incoming: Incoming, digest: Digest, size: u64) -> Result<(), CacheError> {
        blob::adopt(&self.root, &mut incoming, digest, size)?;
        incoming.discard();
        Ok(())
    }

    /// Where a small file is written before it's a blob.
    pub(super) fn desk(&self) -> Result<Desk, OpError> {
        let (top, name) = (Arc::clone(&self.staging), self.staged_name());
        Ok(Desk { top, parent: PathBuf::new(), name, mode: layout::BLOB })
    }

    /// The file system counts a small file's bytes from now on.
    pub(super) fn is_written(&self, key: &PartialKey) {
        self.claims.allocated(key);
    }

    /// Makes blobs of files whose digests have been compared.
    pub(super) fn adopt_all(&self, files: &[&Written]) -> Result<(), CacheError> {
        let means = Means::of(files.iter().copied())?;
        means.sync(files.iter().copied())?;
        let mut fans = BTreeSet::from([PathBuf::from(layout::BLOBS)]);
        for file in files {
            blob::name(&self.root, &file.dir()?, file.name(), file.digest, file.size)?;
            fans.insert(layout::blob(file.digest).0);
        }
        Ok(means.sync_names(&self.root, &fans)?)
    }

    /// Makes these files what the entry shows. All blobs must be there. The manifest comes before the tree, so
    /// that there's never a tree that nobody can tell anything about; a snapshot in `hub/` comes before `current`, and
    /// its ref after it. Does nothing once `gone` is cancelled: who
    /// retires an entry after its job is gone must not find it shown again.
    pub(super) fn show(
        &self,
        id: &EntryId,
        files: tree::Files,
        mut request: Request,
        commit: Option<&HubCommit>,
        gone: &CancellationToken,
    ) -> Result<(), WeightsError> {
        let _changing = self.change_names();
        if gone.is_cancelled() {
            return Err(WeightsError::Stopped);
        }
        let fresh = Manifest::new(files);
        let revision = fresh.revision();
        let mut manifest = Manifest::read(&self.root, revision)?.unwrap_or(fresh);
        let earlier = manifest.entries.get(id).and_then(|earlier| earlier.hub.as_ref());
        request.hub = request.hub.map(|place| earlier.into_iter().fold(place, HubPlace::after));
        manifest.entries.insert(id.clone(), request);
        manifest.write(&self.root, &self.staging, &self.staged_name())?;
        let staged = self.staged_name();
        if let Some(commit) = commit {
            let hub = Hub::new(&self.root, &self.staging, &staged);
            hub.add(commit, &manifest.files, &hub::shown(&self.root, None)?)?;
        }
        tree::show(&self.root, &self.staging, &staged, id, revision, &manifest.files)?;
        self.settle_hub();
        Ok(())
    }
}

/// What the cache remembers of an equal request.
#[derive(Debug)]
pub(super) struct Earlier {
    pub(super) files: tree::Files,
    pub(super) request: Request,
}

/// A directory that everybody may read and only we may write.
fn public(root: &Dir, path: &str) -> Result<Dir, CacheError> {
    let dir = root.make(path, layout::PUBLIC_DIR)?;
    let stat = dir.own_stat()?;
    if !ops::is_ours(&stat) {
        let problem = "it belongs to another user; remove it, or run as its owner";
        return Err(CacheError::Unsafe { path: dir.path().to_owned(), problem });
    }
    if ops::mode_of(&stat) != layout::PUBLIC_DIR {
        dir.set_mode(layout::PUBLIC_DIR)?;
    }
    Ok(dir)
}
