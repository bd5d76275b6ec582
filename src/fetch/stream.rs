//! One blob in one GET, in order: for small blobs, and for servers that don't serve ranges.

use std::io;
use std::sync::Arc;

use tokio::task::{JoinHandle, spawn_blocking};

use super::budget::Lease;
use super::engine::Job;
use super::error::{blocking_died, nothing_moves};
use super::travel::{Slot, again, next, too_little, too_much};
use super::{ALIGNMENT, FetchError};
use crate::rt::Attempts;
use crate::source::SourceError;
use crate::types::{ByteRange, Digest, Hasher};

/// Fetches all of `job` from its first byte to its last. Whatever comes of it, no write is under way when it
/// returns.
pub(super) async fn fetch(job: &Job<'_>) -> Result<Digest, FetchError> {
    let mut state = State {
        job,
        position: 0,
        piece: piece(job),
        slot: None,
        spare: Vec::new(),
        hasher: Some(Hasher::new()),
        storing: None,
    };
    let outcome = tokio::select! {
        biased;
        () = job.stop.cancelled() => Err(FetchError::Cancelled),
        outcome = state.drive() => outcome,
    };
    if let Some(storing) = state.storing.take() {
        let _ = storing.await;
    }
    outcome
}

/// A blob of one range is one piece. A longer one takes turns with two halves of a range: one is filled while the
/// other is hashed and written.
fn piece(job: &Job<'_>) -> u64 {
    if job.size <= job.limits.range {
        return job.size;
    }
    let page = ALIGNMENT as u64;
    (job.limits.range / 2 / page * page).max(page)
}

struct State<'a> {
    job: &'a Job<'a>,
    /// All bytes before this one have come.
    position: u64,
    piece: u64,
    /// What is being filled.
    slot: Option<Slot>,
    spare: Vec<Lease>,
    /// Here, or with the blocking thread.
    hasher: Option<Hasher>,
    storing: Option<JoinHandle<Stored>>,
}

/// What the blocking thread gives back.
struct Stored {
    hasher: Hasher,
    lease: Lease,
    written: io::Result<()>,
}

/// Why a body wasn't read to its end.
enum Ended {
    Source(SourceError),
    Fetch(FetchError),
}

impl From<SourceError> for Ended {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

impl From<FetchError> for Ended {
    fn from(error: FetchError) -> Self {
        Self::Fetch(error)
    }
}

impl State<'_> {
    /// All memory it will ever need is granted before it asks for a connection, so nobody waits in a circle.
    async fn drive(&mut self) -> Result<Digest, FetchError> {
        let job = self.job;
        let len = usize::try_from(self.piece).unwrap_or(usize::MAX);
        if self.piece == job.size {
            self.spare.push(job.memory.lease(len).await);
        } else {
            self.spare.extend(job.memory.lease_two(len).await);
        }
        self.next_slot();
        let mut attempts = Attempts::new(job.retry);
        while let Some(rest) = ByteRange::new(self.position, job.size) {
            let error = match self.read(rest).await {
                Ok(()) => continue,
                Err(Ended::Source(error)) => error,
                Err(Ended::Fetch(error)) => return Err(error),
            };
            let got = self.position - rest.start();
            tokio::time::sleep(again(&mut attempts, got, self.piece, error)?).await;
        }
        self.stored().await?;
        self.hasher.take().map(Hasher::finish).ok_or_else(nothing_moves)
    }

    async fn read(&mut self, rest: ByteRange) -> Result<(), Ended> {
        let job = self.job;
        let _connection = job.connections.one(job.blob.origin()).await;
        let mut body = job.blob.get(rest).await?;
        while let Some(bytes) = next(&mut body).await? {
            if self.position + bytes.len() as u64 > job.size {
                return Err(too_much(&*job.blob).into());
            }
            self.take_in(&bytes).await?;
        }
        if self.position == job.size { Ok(()) } else { Err(too_little(&*job.blob).into()) }
    }

    async fn take_in(&mut self, mut bytes: &[u8]) -> Result<(), FetchError> {
        while !bytes.is_empty() {
            let slot = self.slot.as_mut().ok_or_else(nothing_moves)?;
            let room = slot.rest().map_or(0, ByteRange::len);
            let (now, later) = bytes.split_at(bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
            if now.is_empty() || !slot.fill(now) {
                return Err(nothing_moves());
            }
            let is_full = slot.rest().is_none();
            self.position += now.len() as u64;
            self.job.counted.add(now.len() as u64);
            bytes = later;
            if is_full {
                self.store().await?;
            }
        }
        Ok(())
    }

    /// Hands the full slot to a blocking thread, when that has done with the one before, and begins the next.
    async fn store(&mut self) -> Result<(), FetchError> {
        self.stored().await?;
        let (Some(slot), Some(mut hasher)) = (self.slot.take(), self.hasher.take()) else {
            return Err(nothing_moves());
        };
        let sink = Arc::clone(&self.job.sink);
        self.storing = Some(spawn_blocking(move || {
            hasher.update(slot.bytes());
            let written = sink.write_at(slot.offset(), slot.bytes());
            Stored { hasher, lease: slot.into_lease(), written }
        }));
        self.next_slot();
        Ok(())
    }

    async fn stored(&mut self) -> Result<(), FetchError> {
        let Some(storing) = &mut self.storing else { return Ok(()) };
        let stored = storing.await;
        self.storing = None;
        let Stored { hasher, lease, written } = stored.map_err(blocking_died)?;
        self.hasher = Some(hasher);
        self.spare.push(lease);
        written.map_err(FetchError::Sink)
    }

    fn next_slot(&mut self) {
        let end = self.position.saturating_add(self.piece).min(self.job.size);
        let Some(range) = ByteRange::new(self.position, end) else { return };
        self.slot = self.spare.pop().map(|lease| Slot::new(range, lease, self.job.retry));
    }
}
