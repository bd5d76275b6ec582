//! Small files. Each comes into memory, is compared there, and is written in one go; many become durable together,
//! because an fsync takes longer than the bytes of a small file.
//!
//! It owns files that have their bytes, under names that nobody looks at. It never decides what they are called
//! afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::OptionFuture;
use futures::{StreamExt as _, stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::blob::Mismatch;
use super::error::{OpError, WeightsError};
use super::layout;
use super::marks::Pace;
use super::ops::{self, Dir};
use super::plan::Wanted;
use super::transfer::{Done, blocking};
use crate::fetch::{Engine, Whole};
use crate::types::{Crc, Digest, GitHasher, PartDigests, Published};

/// Longer files are written in ranges, past the page cache.
const LONGEST: u64 = 1 << 20;

/// Small files of one entry that are fetched at once. The engine decides how many travel.
const AT_ONCE: usize = 64;

/// Files that become durable together, at most.
const TOGETHER: usize = 512;

/// Files don't wait for others any longer than this: somebody may wait for them.
const LONGEST_WAIT: Duration = Duration::from_millis(250);

/// So few are made durable one by one: a syncfs writes what other programs have left unwritten, too.
const FEW: usize = 16;

/// Whether a file is small. One whose journal is kept isn't, nor is one that has a digest of each of its parts.
pub(super) fn is_small(file: &Wanted, pace: Pace, engine: &Engine) -> bool {
    let has_parts = matches!(file.published, Some(Published::Parts(_)));
    fits(file.size, pace, engine) && !has_parts
}

/// Whether a file of `size` bytes is small, as far as its size goes.
pub(super) fn fits(size: u64, pace: Pace, engine: &Engine) -> bool {
    size <= LONGEST.min(pace.least).min(engine.longest_whole())
}

/// Where a small file's `size` bytes aren't what is published of them, beside a SHA-256.
pub(super) fn mismatch(whole: &Whole, published: &Published, size: u64) -> Option<Mismatch> {
    match published {
        Published::Git(expected) => {
            let mut hasher = GitHasher::new(size);
            whole.parts().for_each(|part| hasher.update(part));
            Mismatch::of(&Published::Git(*expected), &Published::Git(hasher.finish()))
        }
        Published::Crc(expected) => {
            let of_none = Crc::of(expected.kind(), &[]);
            let found = whole
                .parts()
                .fold(of_none, |crc, part| crc.then(Crc::of(expected.kind(), part), part.len() as u64));
            Mismatch::of(expected, &found)
        }
        Published::Parts(parts) => of_part(&whole.parts().collect::<Vec<_>>().concat(), parts),
        Published::Sha256(_) => None,
    }
}

/// The first part that isn't what is published of it.
fn of_part(bytes: &[u8], parts: &PartDigests) -> Option<Mismatch> {
    if parts.size() != bytes.len() as u64 {
        return Mismatch::of(&format!("{} bytes", parts.size()), &format!("{} bytes", bytes.len()));
    }
    let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
    parts.parts().iter().find_map(|(range, expected)| {
        let part = bytes.get(at(range.start())..at(range.end())).unwrap_or_default();
        Mismatch::of(expected, &Digest::of(part))
    })
}

/// A file with all its bytes, which were compared. It isn't durable. Dropping it takes its name away.
#[derive(Debug)]
pub(super) struct Written {
    top: Arc<Dir>,
    parent: PathBuf,
    name: String,
    device: u64,
    pub(super) digest: Digest,
    pub(super) size: u64,
}

/// Where a file is written.
#[derive(Debug, Clone)]
pub(super) struct Desk {
    pub(super) top: Arc<Dir>,
    /// Below `top`; made where it's missing.
    pub(super) parent: PathBuf,
    pub(super) name: String,
    pub(super) mode: u32,
}

impl Desk {
    /// Writes a file. What is there by its name already goes.
    pub(super) fn write(self, whole: &Whole, digest: Digest, size: u64) -> Result<Written, OpError> {
        let Self { top, parent, name, mode } = self;
        let dir = top.make(&parent, layout::PUBLIC_DIR)?;
        dir.remove_tree(&name)?;
        let file = dir.create_file(&name, 0o600)?;
        let mut written = Written { top, parent, name, device: 0, digest, size };
        let failed = |cause| OpError::new("write", &dir.path().join(&written.name), cause);
        let mut offset = 0;
        for part in whole.parts() {
            ops::write_all_at(&file, part, offset).map_err(failed)?;
            offset += part.len() as u64;
        }
        ops::set_mode(&file, mode).map_err(failed)?;
        let device = ops::stat_of(&file).map_err(failed)?.st_dev;
        written.device = device;
        Ok(written)
    }
}

impl Written {
    /// The directory that it is in.
    pub(super) fn dir(&self) -> Result<Dir, OpError> {
        self.top.open(&self.parent)
    }

    /// Its name there.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Gives it the name that it's looked for by, beside the one it has.
    pub(super) fn rename(&self, leaf: &str) -> Result<(), OpError> {
        let dir = self.dir()?;
        dir.rename_from(&dir, &self.name, leaf)
    }

    fn sync(&self) -> Result<(), OpError> {
        let dir = self.dir()?;
        let failed = |cause| OpError::new("fsync", &dir.path().join(&self.name), cause);
        let file = dir.open_file(&self.name)?.ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
        ops::sync(&file).map_err(failed)
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        let gone =
            self.top.find(&self.parent).and_then(|dir| dir.map(|dir| dir.unlink(&self.name)).transpose());
        if let Err(error) = gone {
            tracing::warn!(error = crate::rt::chain(&error), "a file that isn't finished stays for now");
        }
    }
}

/// How files become durable.
#[derive(Debug)]
pub(super) enum Means {
    /// Each by itself.
    Each,
    /// With all that is on their file systems, through one directory on each of them.
    All(Vec<Dir>),
}

impl Means {
    /// By the number of the files, and by what their file systems and the kernel promise.
    pub(super) fn of<'a>(files: impl ExactSizeIterator<Item = &'a Written>) -> Result<Self, OpError> {
        if files.len() <= FEW || !ops::syncfs_tells_of_lost_writes() {
            return Ok(Self::Each);
        }
        let places: BTreeMap<u64, &Written> = files.map(|file| (file.device, file)).collect();
        let dirs = places.into_values().map(Written::dir).collect::<Result<Vec<_>, _>>()?;
        Ok(if dirs.iter().all(Dir::syncs_as_a_whole) { Self::All(dirs) } else { Self::Each })
    }

    /// Makes the files durable, by the names that they have.
    pub(super) fn sync<'a>(&self, mut files: impl Iterator<Item = &'a Written>) -> Result<(), OpError> {
        match self {
            Self::Each => files.try_for_each(Written::sync),
            Self::All(dirs) => dirs.iter().try_for_each(Dir::sync_all),
        }
    }

    /// Makes names durable that stand in these directories below `top`, now that they have changed.
    pub(super) fn sync_names(&self, top: &Dir, parents: &BTreeSet<PathBuf>) -> Result<(), OpError> {
        match self {
            Self::Each => parents.iter().try_for_each(|parent| top.open(parent)?.sync()),
            Self::All(dirs) => dirs.iter().try_for_each(Dir::sync_all),
        }
    }
}

/// What a job brought: what became of the file, and what is to be settled with others, if anything is.
pub(super) type Brought<T> = (Done, Option<T>);

/// Runs the jobs, some at once, and settles what they bring, many at a time, on a blocking thread. The first that
/// fails stops the others, and is the result once all have ended; what was brought until then is settled all the same.
pub(super) async fn all<T, F>(
    jobs: Vec<F>,
    settle: impl Fn(Vec<T>) -> Result<(), WeightsError> + Clone + Send + 'static,
    stop: &CancellationToken,
) -> Result<Vec<Done>, WeightsError>
where
    T: Send + 'static,
    F: Future<Output = Result<Brought<T>, WeightsError>>,
{
    let (mut done, mut first) = (Vec::with_capacity(jobs.len()), None);
    let mut jobs = stream::iter(jobs).buffer_unordered(AT_ONCE);
    let (mut batch, mut since, mut are_over) = (Vec::new(), Instant::now(), false);
    let mut settling = None;
    let mut failed = |error| {
        stop.cancel();
        // The others end as stopped because of the first; their word counts less.
        first.get_or_insert(error);
    };
    loop {
        let is_due = are_over || batch.len() >= TOGETHER || since.elapsed() >= LONGEST_WAIT;
        if settling.is_none() && !batch.is_empty() && is_due {
            let (settle, batch) = (settle.clone(), std::mem::take(&mut batch));
            settling = Some(Box::pin(blocking(move || settle(batch))));
        }
        tokio::select! {
            Some(settled) = OptionFuture::from(settling.as_mut()) => {
                settling = None;
                if let Err(error) = settled.flatten() {
                    failed(error);
                }
            }
            brought = jobs.next(), if !are_over && batch.len() < TOGETHER => match brought {
                Some(Ok((file, more))) => {
                    done.push(file);
                    if batch.is_empty() {
                        since = Instant::now();
                    }
                    batch.extend(more);
                }
                Some(Err(error)) => failed(error),
                None => are_over = true,
            },
            () = tokio::time::sleep_until(since + LONGEST_WAIT), if settling.is_none() && !batch.is_empty() => {}
            else => break,
        }
    }
    first.map_or(Ok(done), Err)
}
