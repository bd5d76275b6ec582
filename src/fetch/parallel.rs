//! Several ranges of one blob at once: out of order onto the disk, in order into the hash.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, OptionFuture};
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use super::FetchError;
use super::budget::Lease;
use super::engine::Job;
use super::error::{blocking_died, nothing_moves};
use super::schedule::Schedule;
use super::travel::{Lost, Piece, Slot, travel};
use crate::source::SourceError;
use crate::types::{ByteRange, Digest, Hasher};

/// What came of fetching in parallel.
pub(super) enum Parallel {
    /// The digest of all bytes.
    Done(Digest),
    /// Ranges are not served; nothing is lost by starting again.
    NoRanges,
}

type Arrival = (Slot, ByteRange, Result<(), Lost>);

/// Fetches all of `job` in ranges. Whatever comes of it, no write and no hashing is under way when it returns.
pub(super) async fn fetch(job: &Job<'_>) -> Result<Parallel, FetchError> {
    let ahead = job.limits.range.saturating_mul(2 * job.limits.per_blob as u64);
    let mut state = State {
        job,
        schedule: Schedule::new(job.size, job.limits.range, ahead),
        ready: BTreeMap::new(),
        hashed: 0,
        hasher: Some(Hasher::new()),
        hashing: None,
        writing: FuturesUnordered::new(),
    };
    let outcome = tokio::select! {
        biased;
        () = job.stop.cancelled() => Err(FetchError::Cancelled),
        outcome = state.drive() => outcome,
    };
    state.settle().await;
    match outcome? {
        Some(digest) => Ok(Parallel::Done(digest)),
        None => Ok(Parallel::NoRanges),
    }
}

struct State<'a> {
    job: &'a Job<'a>,
    schedule: Schedule,
    /// What has come but can't be hashed yet, by offset.
    ready: BTreeMap<u64, Piece>,
    /// The hasher has seen all bytes before this one.
    hashed: u64,
    /// Here between two pieces; with the blocking thread while it takes one in.
    hasher: Option<Hasher>,
    hashing: Option<JoinHandle<(Hasher, u64)>>,
    writing: FuturesUnordered<JoinHandle<io::Result<()>>>,
}

impl<'a> State<'a> {
    /// Memory is granted before a range is handed out, and both in order. So whoever holds the memory for some
    /// bytes knows that all bytes before them are hashed already or hold memory too: the first unhashed range can
    /// always go on, however small the budget and however many blobs share it.
    async fn drive(&mut self) -> Result<Option<Digest>, FetchError> {
        let job = self.job;
        let mut travelling: FuturesUnordered<BoxFuture<'a, Arrival>> = FuturesUnordered::new();
        let mut memory: Option<BoxFuture<'a, Lease>> = None;
        loop {
            self.hash_next();
            if self.hashed == job.size && self.writing.is_empty() {
                return Ok(self.hasher.take().map(Hasher::finish));
            }
            if memory.is_none()
                && travelling.len() < job.limits.per_blob
                && let Some(range) = self.schedule.peek()
            {
                let len = usize::try_from(range.len()).unwrap_or(usize::MAX);
                memory = Some(async move { job.memory.lease(len).await }.boxed());
            }
            tokio::select! {
                biased;
                Some(written) = self.writing.next() => {
                    written.map_err(blocking_died)?.map_err(FetchError::Sink)?;
                }
                Some(hashed) = OptionFuture::from(self.hashing.as_mut()) => self.take_hasher(hashed)?,
                Some((slot, asked, outcome)) = travelling.next() => match outcome {
                    Ok(()) => self.arrived(slot, asked),
                    Err(Lost::NoRanges) => return Ok(None),
                    Err(Lost::Source(error)) => travelling.push(self.broken(slot, asked, error)?),
                },
                Some(lease) = OptionFuture::from(memory.as_mut()) => {
                    memory = None;
                    if let Some(range) = self.schedule.hand_out() {
                        let slot = Slot::new(range, lease, job.retry);
                        travelling.push(send(job, slot, range, Duration::ZERO));
                    }
                }
                else => return Err(nothing_moves()),
            }
        }
    }

    fn arrived(&mut self, slot: Slot, asked: ByteRange) {
        self.schedule.completed(asked);
        let piece = slot.into_piece();
        let sink = Arc::clone(&self.job.sink);
        self.ready.insert(piece.offset, piece.clone());
        self.writing.push(spawn_blocking(move || sink.write_at(piece.offset, piece.bytes())));
    }

    /// What is left of `asked` goes back to the schedule, which gives it out again at once: it's the only rest.
    /// The memory goes with it.
    fn broken(
        &mut self,
        mut slot: Slot,
        asked: ByteRange,
        error: SourceError,
    ) -> Result<BoxFuture<'a, Arrival>, FetchError> {
        let got = asked.len() - slot.rest().map_or(0, ByteRange::len);
        self.schedule.failed(asked, got);
        let delay = slot.failed(got, error)?;
        let rest = self.schedule.hand_out().ok_or_else(nothing_moves)?;
        Ok(send(self.job, slot, rest, delay))
    }

    /// Gives the hasher to a blocking thread with the next bytes, if both are here.
    fn hash_next(&mut self) {
        let Some(mut hasher) = self.hasher.take() else { return };
        let Some(piece) = self.ready.remove(&self.hashed) else {
            self.hasher = Some(hasher);
            return;
        };
        self.hashing = Some(spawn_blocking(move || {
            hasher.update(piece.bytes());
            (hasher, piece.end())
        }));
    }

    fn take_hasher(&mut self, hashed: Result<(Hasher, u64), JoinError>) -> Result<(), FetchError> {
        self.hashing = None;
        let (hasher, upto) = hashed.map_err(blocking_died)?;
        self.hasher = Some(hasher);
        self.hashed = upto;
        self.schedule.consumed(upto);
        Ok(())
    }

    /// Waits for all that runs on blocking threads. What came of it no longer matters.
    async fn settle(&mut self) {
        while self.writing.next().await.is_some() {}
        if let Some(hashing) = self.hashing.take() {
            let _ = hashing.await;
        }
    }
}

fn send<'a>(job: &'a Job<'_>, mut slot: Slot, asked: ByteRange, delay: Duration) -> BoxFuture<'a, Arrival> {
    async move {
        let outcome = travel(&*job.blob, job.connections, &mut slot, delay, job.counted).await;
        (slot, asked, outcome)
    }
    .boxed()
}
