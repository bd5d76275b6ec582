//! Sees to it that the blobs of an entry's files are there: admits what is missing, fetches it, and makes blobs of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::batch::{self, Brought, Written};
use super::cache::Cache;
use super::claims::{Admission, Turn};
use super::error::WeightsError;
use super::found::Found;
use super::holds::Held;
use super::plan::Wanted;
use super::transfer::{self, Done, Fetched, Transfer, blocking};
use super::warm::Warmer;
use crate::types::{Digest, EntryId, ErrorKind, Progress, Published, RelPath};

/// Large files of one entry that are fetched at once. The engine decides how many ranges travel.
const FILES_AT_ONCE: usize = 4;

/// One entry's files on their way.
pub(super) struct Gather<'a> {
    pub(super) warmer: &'a Warmer,
    pub(super) id: &'a EntryId,
    /// Where digests are kept that no source publishes.
    pub(super) found: &'a Arc<Found>,
    pub(super) held: &'a Arc<Held>,
}

/// A small file that isn't a blob yet, and its turn.
struct Small {
    file: Written,
    turn: Turn,
    is_to_be_noted: bool,
}

impl Gather<'_> {
    /// Says which digest each file has, and how many bytes were fetched.
    pub(super) async fn all(
        &self,
        wanted: &[Wanted],
        progress: &Progress,
        stop: &CancellationToken,
    ) -> Result<(BTreeMap<RelPath, Digest>, u64), WeightsError> {
        let Warmer { cache, engine, reserve, pace, .. } = self.warmer;
        let (at, all) = (Arc::clone(cache), wanted.to_vec());
        let missing = blocking(move || missing(&at, all)).await??;
        let claims: Vec<_> = missing.iter().map(|file| (file.key.clone(), file.size)).collect();
        let (at, reserve) = (Arc::clone(cache), *reserve);
        let admission = blocking(move || at.admit(&claims, reserve)).await??;
        let bytes = missing.iter().map(|file| file.size).fold(0, u64::saturating_add);
        progress.set_total(progress.done().saturating_add(bytes));

        let known = wanted.iter().filter_map(|file| Some((file.path.clone(), file.known?)));
        let mut digests: BTreeMap<_, _> = known.collect();
        let stop = stop.child_token();
        let transfer = Transfer { engine, progress, stop: &stop };
        let (mut large, mut small) = (Vec::new(), Vec::new());
        for file in &missing {
            if batch::is_small(file, *pace, engine) {
                small.push(self.fetch_small(file, &admission, transfer));
            } else {
                large.push(self.fetch_large(file, &admission, transfer));
            }
        }
        let large = transfer::all(large, FILES_AT_ONCE, &stop);
        let (large, small) = tokio::join!(large, batch::all(small, self.adopting(), &stop));
        let mut fetched_bytes = 0;
        let done = match transfer::both(large, small) {
            Err(error) if error.kind() == ErrorKind::NoSpace => {
                return Err(self.filled_up(&missing, error).await?);
            }
            done => done?,
        };
        for (path, digest, bytes) in done {
            digests.insert(path, digest);
            fetched_bytes += bytes;
        }
        Ok((digests, fetched_bytes))
    }

    /// Waits until no other job is at work on a file.
    async fn turn(
        &self,
        file: &Wanted,
        admission: &Arc<Admission>,
        transfer: Transfer<'_>,
    ) -> Result<Turn, WeightsError> {
        tokio::select! {
            biased;
            () = transfer.stop.cancelled() => Err(WeightsError::Stopped),
            turn = admission.turn(&file.key) => Ok(turn),
        }
    }

    /// Whether another job has brought a file since this one looked.
    async fn is_there(
        &self,
        file: &Wanted,
        digest: Option<Digest>,
        transfer: Transfer<'_>,
    ) -> Result<Option<Done>, WeightsError> {
        let Some(digest) = digest else { return Ok(None) };
        self.held.add(digest);
        let (cache, size) = (self.warmer.cache.clone(), file.size);
        if !blocking(move || cache.has_blob(digest, size)).await?? {
            return Ok(None);
        }
        transfer.progress.add(size);
        Ok(Some((file.path.clone(), digest, 0)))
    }

    /// Fetches one large file, unless another job that wants it too was first.
    async fn fetch_large(
        &self,
        file: &Wanted,
        admission: &Arc<Admission>,
        transfer: Transfer<'_>,
    ) -> Result<Done, WeightsError> {
        let turn = Arc::new(self.turn(file, admission, transfer).await?);
        if let Some(done) = self.is_there(file, turn.found().or(file.known), transfer).await? {
            return Ok(done);
        }
        let (size, pace) = (file.size, self.warmer.pace);
        let (cache, of, origin) = (self.warmer.cache.clone(), turn.clone(), file.origin(Some(self.id)));
        let stop = transfer.stop.clone();
        let place = Arc::new(move || cache.open_partial(of.clone(), origin.clone(), size, pace, &stop));
        let Fetched { incoming, digest, bytes } = transfer.fetch(file, place).await?;
        let (cache, key) = (self.warmer.cache.clone(), turn.key().clone());
        let held = self.held.clone();
        let note = file.is_to_be_found().then(|| Arc::clone(self.found));
        let adopt = move || {
            held.add(digest);
            // Before the bytes have another name, by which nobody would find them.
            note.map_or(Ok(()), |note| note.note(&key, digest, size > pace.least))?;
            cache.adopt(incoming, digest, size)
        };
        blocking(adopt).await??;
        turn.has_found(digest);
        Ok((file.path.clone(), digest, bytes))
    }

    /// Fetches one small file, unless another job was first; it becomes a blob with others.
    async fn fetch_small(
        &self,
        file: &Wanted,
        admission: &Arc<Admission>,
        transfer: Transfer<'_>,
    ) -> Result<Brought<Small>, WeightsError> {
        let turn = self.turn(file, admission, transfer).await?;
        let mut found = turn.found();
        if found.is_some() {
            // What its source has told with the bytes, the other job has heard.
            transfer.hear(file, &file.bytes).await?;
            let said = file.told().as_ref().and_then(Published::sha256);
            found = found.filter(|found| said.is_none_or(|said| said == *found));
        }
        if let Some(done) = self.is_there(file, found, transfer).await? {
            return Ok((done, None));
        }
        let (cache, size, key) = (self.warmer.cache.clone(), file.size, turn.key().clone());
        let keep = move |whole: &_, digest| {
            let written = cache.desk()?.write(whole, digest, size)?;
            cache.is_written(&key);
            Ok(written)
        };
        let written = transfer.fetch_small(file, keep).await?;
        let done = (file.path.clone(), written.digest, size);
        Ok((done, Some(Small { file: written, turn, is_to_be_noted: file.is_to_be_found() })))
    }

    /// Makes blobs of small files.
    fn adopting(&self) -> impl Fn(Vec<Small>) -> Result<(), WeightsError> + Clone + Send + 'static {
        let (cache, held, found) = (self.warmer.cache.clone(), self.held.clone(), Arc::clone(self.found));
        move |small| {
            for Small { file, turn, is_to_be_noted } in &small {
                held.add(file.digest);
                if *is_to_be_noted {
                    // Before the bytes have another name, by which nobody would find them.
                    found.note(turn.key(), file.digest, false)?;
                }
            }
            cache.adopt_all(&small.iter().map(|small| &small.file).collect::<Vec<_>>())?;
            small.iter().for_each(|small| small.turn.has_found(small.file.digest));
            Ok(())
        }
    }

    /// Says how much room is missing, after the disk turned out smaller than it was when the job was let in.
    async fn filled_up(
        &self,
        missing_then: &[Wanted],
        cause: WeightsError,
    ) -> Result<WeightsError, WeightsError> {
        let (cache, wanted) = (self.warmer.cache.clone(), missing_then.to_vec());
        let still = blocking(move || missing(&cache, wanted)).await??;
        let still: Vec<_> = still.into_iter().map(|file| (file.key, file.size)).collect();
        let cache = self.warmer.cache.clone();
        let still = blocking(move || cache.lacking(&still)).await??;
        let needed = still.iter().map(|(_, bytes)| *bytes).fold(0, u64::saturating_add);
        let available = self.warmer.cache.disk_space()?;
        let root = self.warmer.cache.path().to_owned();
        Ok(WeightsError::FilledUp { root, needed, available, cause: Box::new(cause) })
    }
}

/// Those whose blob isn't there, or whose digest nobody knows.
fn missing(cache: &Cache, mut wanted: Vec<Wanted>) -> Result<Vec<Wanted>, WeightsError> {
    let mut missing = Vec::new();
    for file in wanted.drain(..) {
        let there = file.known.map(|digest| cache.has_blob(digest, file.size)).transpose()?;
        if there != Some(true) {
            missing.push(file);
        }
    }
    Ok(missing)
}
