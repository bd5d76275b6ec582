use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::Stat;
use tokio_util::sync::CancellationToken;

use super::batch::{self, Brought, Desk, Means, Written};
use super::data_file::Keeper;
use super::error::{OpError, WeightsError};
use super::evict::Freed;
use super::found::Found;
use super::incoming::{Arrival, Incoming};
use super::layout::{self, PartialKey};
use super::marks::Pace;
use super::ops::{self, Dir};
use super::plan::{self, Wanted};
use super::spot::Spot;
use super::transfer::{self, Fetched, Transfer, blocking};
use super::{asked, blob};
use crate::fetch::Engine;
use crate::list::WeightsGoods;
use crate::source::{RemoteFile, Sources};
use crate::types::{Digest, Progress, RelPath, Revision};

const FILES_AT_ONCE: usize = 4;
/// Begins the name of a file that isn't finished, and its journal's; what a killed run left is gone on with by the
/// next, or taken away.
const UNFINISHED: &str = ".stoker-part-";
/// The digests that no source publishes, of the files that are there before all are.
const FOUND: &str = ".stoker-found";
const FILE: u32 = 0o644;

/// Puts weights into a plain directory, without a cache: what `stoker pull URI --to DIR` does.
#[derive(Clone)]
pub struct Puller {
    engine: Engine,
    sources: Sources,
    verified_only: bool,
    pace: Pace,
}

/// Files that are in the directory, complete and durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pulled {
    /// Which revision they are.
    pub revision: Revision,
    /// Whether every file was compared with a published digest.
    pub verified: bool,
    /// Bytes that this call fetched.
    pub fetched_bytes: u64,
    /// Files that were there already, with the right digest.
    pub kept: usize,
    /// How many files there are.
    pub files: usize,
}

impl Puller {
    /// `verified_only`: files whose source publishes no digest are refused.
    #[must_use]
    pub fn new(engine: Engine, sources: Sources, verified_only: bool) -> Self {
        Self { engine, sources, verified_only, pace: Pace::default() }
    }

    /// The same with another pace of its journals.
    #[cfg(test)]
    pub(super) fn with_pace(self, pace: Pace) -> Self {
        Self { pace, ..self }
    }

    /// Fetches into `dir`, which is made where it's missing. Each file arrives under another name and is renamed when
    /// it's complete, compared and durable, so a file with its own name is always whole. One that is there already is
    /// kept if its digest is the published one, which is read and not believed; where the source publishes none,
    /// every file is fetched again. A file that an earlier call, or process, left half-way is gone on with, if the
    /// source has it still at the same version. Other files in `dir` stay as they are. No link below `dir` is followed.
    ///
    /// # Errors
    /// See [`WeightsError`]. Files that were finished stay.
    pub async fn pull_to(
        &self,
        dir: &Path,
        goods: &WeightsGoods,
        credentials: Option<&str>,
        progress: &Progress,
        stop: &CancellationToken,
    ) -> Result<Pulled, WeightsError> {
        let path = dir.to_owned();
        let dir = blocking(move || open(&path)).await??;
        let mut listings = 0;
        loop {
            listings += 1;
            let listing = transfer::list(&self.sources, goods, credentials, stop).await?;
            let outcome = self.pull_files(&dir, goods, listing.files, progress, stop).await;
            if !transfer::list_again(&outcome, listings) {
                return outcome;
            }
        }
    }

    /// The same for files that have been listed, into a directory that has been opened and locked.
    pub(super) async fn pull_files(
        &self,
        dir: &Arc<Dir>,
        goods: &WeightsGoods,
        mut files: Vec<RemoteFile>,
        progress: &Progress,
        stop: &CancellationToken,
    ) -> Result<Pulled, WeightsError> {
        let fingerprint = goods.fingerprint();
        let found = Arc::new(Found::new(dir.open("")?, FOUND.to_owned()));
        let before = found.read();
        let untold = files.iter().filter(|file| file.digest.is_none() && file.bytes.may_tell());
        let (at, untold) = (dir.clone(), untold.map(|file| (file.path.clone(), file.size)).collect());
        let there = blocking(move || there(&at, untold)).await??;
        // A small file's source says with its bytes what they are: one that is there isn't fetched to hear that.
        let must_be_known = |file: &RemoteFile| {
            let is_small = batch::fits(file.size, self.pace, &self.engine);
            let was_fetched =
                before.contains_key(&plan::key(file, fingerprint)) || there.contains(&file.path);
            !is_small || was_fetched || self.verified_only
        };
        asked::ask(&mut files, must_be_known, stop).await?;
        let mut wanted = plan::plan(files, fingerprint, None, self.verified_only)?;
        plan::recall(&mut wanted, &before);
        let (at, all) = (dir.clone(), wanted.clone());
        let (missing, kept, allocated) = blocking(move || missing(&at, all)).await??;
        let bytes = missing.iter().map(|file| file.size).fold(0, u64::saturating_add);
        let ((available, _), needed) = (dir.space()?, bytes.saturating_sub(allocated));
        if needed > available {
            let root = dir.path().to_owned();
            let freed = Freed::default();
            return Err(WeightsError::NoSpace { root, needed, available, reserve: 0, max: None, freed });
        }
        progress.set_total(progress.done().saturating_add(bytes));
        let mut digests = kept;
        let stop = stop.child_token();
        let transfer = Transfer { engine: &self.engine, progress, stop: &stop };
        let (mut large, mut small) = (Vec::new(), Vec::new());
        for file in &missing {
            if batch::is_small(file, self.pace, &self.engine) {
                small.push(pull_small(dir, file, transfer));
            } else {
                large.push(self.pull_large(dir, file, &found, transfer));
            }
        }
        let large = transfer::all(large, FILES_AT_ONCE, &stop);
        let (large, small) = tokio::join!(large, batch::all(small, naming(dir, &found), &stop));
        let mut fetched_bytes = 0;
        for (path, digest, bytes) in transfer::both(large, small)? {
            digests.insert(path, digest);
            fetched_bytes += bytes;
        }
        let (at, paths) = (dir.clone(), wanted.iter().map(|file| file.path.clone()).collect::<Vec<_>>());
        let end = move || {
            sync_parents(&at, &paths)?;
            found.forget()
        };
        blocking(end).await??;
        let contents = plan::contents(&wanted, &digests);
        Ok(Pulled {
            revision: Revision::of_weights(
                contents.iter().map(|(path, file)| (path, file.size, file.sha256)),
            ),
            verified: wanted.iter().all(Wanted::is_verified),
            fetched_bytes,
            kept: wanted.len() - missing.len(),
            files: wanted.len(),
        })
    }

    async fn pull_large(
        &self,
        dir: &Arc<Dir>,
        file: &Wanted,
        found: &Arc<Found>,
        transfer: Transfer<'_>,
    ) -> Result<(RelPath, Digest, u64), WeightsError> {
        let (parent, leaf) = split(&file.path);
        let (at, size, name, origin) = (dir.clone(), file.size, unfinished(file), file.origin(None));
        let (pace, stop) = (self.pace, transfer.stop.clone());
        let place = Arc::new(move || {
            let spot = Spot::beside(at.make(&parent, layout::PUBLIC_DIR)?, &name);
            let keeper = Some(Keeper::Directory(Arc::clone(&at)));
            Incoming::open(spot, Arrival { origin: origin.clone(), size, pace, keeper }, &stop)
        });
        let Fetched { mut incoming, digest, bytes } = transfer.fetch(file, place).await?;
        let (key, note) = (file.key.clone(), file.is_to_be_found().then(|| Arc::clone(found)));
        let finish = move || {
            note.map_or(Ok(()), |note| note.note(&key, digest, size > pace.least))?;
            incoming.seal(FILE)?;
            incoming.dir().rename_from(incoming.dir(), incoming.name(), &leaf)?;
            incoming.dir().sync()?;
            // What is left is its journal.
            incoming.discard();
            Ok::<_, OpError>(())
        };
        blocking(finish).await??;
        Ok((file.path.clone(), digest, bytes))
    }
}

/// A small file that hasn't its own name yet.
struct Small {
    file: Written,
    parent: PathBuf,
    leaf: String,
    key: PartialKey,
    is_to_be_noted: bool,
}

/// Fetches one small file; it gets its name with others.
async fn pull_small(
    dir: &Arc<Dir>,
    file: &Wanted,
    transfer: Transfer<'_>,
) -> Result<Brought<Small>, WeightsError> {
    let (parent, leaf) = split(&file.path);
    let desk = Desk { top: dir.clone(), parent: parent.clone(), name: unfinished(file), mode: FILE };
    let size = file.size;
    let keep = move |whole: &_, digest| Ok(desk.clone().write(whole, digest, size)?);
    let written = transfer.fetch_small(file, keep).await?;
    let done = (file.path.clone(), written.digest, size);
    let (key, is_to_be_noted) = (file.key.clone(), file.is_to_be_found());
    Ok((done, Some(Small { file: written, parent, leaf, key, is_to_be_noted })))
}

/// Gives small files their names.
fn naming(
    dir: &Arc<Dir>,
    found: &Arc<Found>,
) -> impl Fn(Vec<Small>) -> Result<(), WeightsError> + Clone + Send + 'static {
    let (dir, found) = (dir.clone(), found.clone());
    move |small| {
        let means = Means::of(small.iter().map(|small| &small.file))?;
        means.sync(small.iter().map(|small| &small.file))?;
        for Small { file, leaf, key, is_to_be_noted, .. } in &small {
            if *is_to_be_noted {
                found.note(key, file.digest, false)?;
            }
            file.rename(leaf)?;
        }
        let parents = small.into_iter().map(|small| small.parent).collect();
        Ok(means.sync_names(&dir, &parents)?)
    }
}

pub(super) fn open(path: &Path) -> Result<Arc<Dir>, WeightsError> {
    std::fs::create_dir_all(path).map_err(|cause| OpError::new("make the directory", path, cause))?;
    let dir = Dir::open_root(path)?;
    if dir.try_lock()? { Ok(Arc::new(dir)) } else { Err(WeightsError::Busy { dir: path.to_owned() }) }
}

/// The name of a file until it's finished. Two files of a directory that have the same bytes have two.
fn unfinished(file: &Wanted) -> String {
    let hex = Digest::of(format!("{}\n{}", file.key.as_str(), file.path).as_bytes()).hex();
    format!("{UNFINISHED}{}", hex.get(..16).unwrap_or(&hex))
}

/// What there is to do in a directory: the files that aren't there yet with the right bytes, the digests of the others,
/// and how many bytes of the former have their room on the disk already.
type Missing = (Vec<Wanted>, BTreeMap<RelPath, Digest>, u64);

/// Looks what is missing. Takes away what a killed run left beside the files and nobody can go on with.
fn missing(dir: &Dir, wanted: Vec<Wanted>) -> Result<Missing, OpError> {
    let parents: BTreeSet<PathBuf> = wanted.iter().map(|file| split(&file.path).0).collect();
    let (mut missing, mut kept) = (Vec::new(), BTreeMap::new());
    for file in wanted {
        match found(dir, &file)? {
            Some(digest) => drop(kept.insert(file.path, digest)),
            None => missing.push(file),
        }
    }
    let resumable = missing.iter().filter(|file| file.origin(None).is_some());
    let resumable: BTreeSet<(PathBuf, String)> =
        resumable.map(|file| (split(&file.path).0, unfinished(file))).collect();
    let mut allocated = 0;
    for parent in parents {
        let Some(at) = dir.find(&parent)? else { continue };
        for name in at.list()? {
            let Some(file) = name.to_str().filter(|name| name.starts_with(UNFINISHED)) else { continue };
            // The journal's name begins as the file's.
            let file = file.get(..UNFINISHED.len() + 16).unwrap_or(file);
            if !resumable.contains(&(parent.clone(), file.to_owned())) {
                at.unlink(&name)?;
            } else if let Some(stat) = at.stat(&name)? {
                allocated += ops::allocated(&stat);
            }
        }
    }
    Ok((missing, kept, allocated))
}

/// Those of the files that are there with their size, whatever their bytes are.
fn there(dir: &Dir, files: Vec<(RelPath, u64)>) -> Result<BTreeSet<RelPath>, OpError> {
    let mut there = BTreeSet::new();
    for (path, size) in files {
        let (parent, leaf) = split(&path);
        let Some(parent) = dir.find(parent)? else { continue };
        if parent.stat(&leaf)?.is_some_and(|stat| has_size(&stat, size)) {
            there.insert(path);
        }
    }
    Ok(there)
}

fn has_size(stat: &Stat, size: u64) -> bool {
    ops::is_file(stat) && u64::try_from(stat.st_size) == Ok(size)
}

/// The digest of the file that is there, if its bytes are what they should be.
fn found(dir: &Dir, wanted: &Wanted) -> Result<Option<Digest>, OpError> {
    let expected = wanted.expected();
    if expected.is_none() && !wanted.is_verified() {
        return Ok(None);
    }
    let (parent, leaf) = split(&wanted.path);
    let Some(parent) = dir.find(parent)? else { return Ok(None) };
    if !parent.stat(&leaf)?.is_some_and(|stat| has_size(&stat, wanted.size)) {
        return Ok(None);
    }
    let Some(file) = parent.open_file(&leaf)? else { return Ok(None) };
    let path = &parent.path().join(&leaf);
    let failed = |doing| move |cause| OpError::new(doing, path, cause);
    let digest = blob::hash(&file).map_err(failed("read"))?;
    let other = wanted.other().map(|published| blob::mismatch(&file, published, wanted.size)).transpose();
    let is_wrong = other.map_err(failed("read"))?.flatten().is_some();
    if is_wrong || expected.is_some_and(|expected| digest != expected) {
        return Ok(None);
    }
    // It counts as durable from here on, whoever wrote it.
    ops::sync(&file).map_err(failed("fsync"))?;
    Ok(Some(digest))
}

fn sync_parents(dir: &Dir, paths: &[RelPath]) -> Result<(), OpError> {
    let parents: BTreeSet<_> = paths.iter().flat_map(|path| path.as_path().ancestors().skip(1)).collect();
    parents.into_iter().try_for_each(|parent| dir.open(parent)?.sync())
}

fn split(path: &RelPath) -> (PathBuf, String) {
    let (parent, leaf) = path.as_str().rsplit_once('/').unwrap_or(("", path.as_str()));
    (PathBuf::from(parent), leaf.to_owned())
}
