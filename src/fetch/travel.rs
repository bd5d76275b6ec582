//! One range on its way from a source into memory, and what to do when it breaks off.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;

use super::FetchError;
use super::budget::{Connections, Lease};
use super::counted::Counted;
use crate::rt::{Attempts, RetryPolicy, chain};
use crate::source::{RangeBody, RangeSource, SourceError};
use crate::types::{ByteRange, ErrorKind};

/// A range that waits keeps its memory, which other blobs need. A server that asks for more patience than this is
/// asked again by whoever wanted the blob.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The buffer of a range and how far it's filled. It stays with the range over all its tries: nobody who holds
/// later bytes of the blob can then take the memory that the earlier ones wait for.
#[derive(Debug)]
pub(super) struct Slot {
    range: ByteRange,
    lease: Lease,
    filled: usize,
    attempts: Attempts,
}

impl Slot {
    pub(super) fn new(range: ByteRange, lease: Lease, policy: RetryPolicy) -> Self {
        Self { range, lease, filled: 0, attempts: Attempts::new(policy) }
    }

    /// What has not come yet, or `None` when it's full.
    pub(super) fn rest(&self) -> Option<ByteRange> {
        self.range.after(self.filled as u64)
    }

    /// Takes in the next bytes; false, and none taken, when they are more than the range.
    pub(super) fn fill(&mut self, bytes: &[u8]) -> bool {
        let wanted = usize::try_from(self.range.len()).unwrap_or(usize::MAX);
        let room = self.filled..self.filled.saturating_add(bytes.len());
        if room.end > wanted {
            return false;
        }
        let Some(room) = self.lease.bytes_mut().get_mut(room) else { return false };
        room.copy_from_slice(bytes);
        self.filled += bytes.len();
        true
    }

    /// How long to wait before the rest is asked for again, after a try that brought `got` bytes of it.
    pub(super) fn failed(&mut self, got: u64, error: SourceError) -> Result<Duration, FetchError> {
        again(&mut self.attempts, got, self.range.len(), error)
    }

    /// Where it begins.
    pub(super) fn offset(&self) -> u64 {
        self.range.start()
    }

    /// What has come.
    pub(super) fn bytes(&self) -> &[u8] {
        self.lease.bytes().get(..self.filled).unwrap_or_default()
    }

    /// The memory, for the next range.
    pub(super) fn into_lease(self) -> Lease {
        self.lease
    }

    /// The bytes, to be written and hashed by several at once.
    pub(super) fn into_piece(self) -> Piece {
        Piece { offset: self.range.start(), len: self.filled, lease: Arc::new(self.lease) }
    }
}

/// Bytes that have come. The memory goes back when the last clone is dropped.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) offset: u64,
    len: usize,
    lease: Arc<Lease>,
}

impl Piece {
    pub(super) fn bytes(&self) -> &[u8] {
        self.lease.bytes().get(..self.len).unwrap_or_default()
    }

    pub(super) fn end(&self) -> u64 {
        self.offset + self.len as u64
    }
}

/// Why a range didn't come.
#[derive(Debug)]
pub(super) enum Lost {
    /// The source turned out not to serve ranges.
    NoRanges,
    /// It failed.
    Source(SourceError),
}

/// Brings what `slot` lacks, after waiting for `delay`.
pub(super) async fn travel(
    blob: &dyn RangeSource,
    connections: &Connections,
    slot: &mut Slot,
    delay: Duration,
    counted: &Counted<'_>,
) -> Result<(), Lost> {
    let Some(rest) = slot.rest() else { return Ok(()) };
    tokio::time::sleep(delay).await;
    // Waiting for it while holding memory is safe: whoever has a connection has all the memory it needs.
    let _connection = connections.one(blob.origin()).await;
    let mut body = blob.get(rest).await.map_err(Lost::Source)?;
    if !blob.serves_ranges() {
        return Err(Lost::NoRanges);
    }
    while slot.rest().is_some() {
        let Some(bytes) = next(&mut body).await.map_err(Lost::Source)? else {
            return Err(Lost::Source(too_little(blob)));
        };
        if !slot.fill(&bytes) {
            return Err(Lost::Source(too_much(blob)));
        }
        counted.add(bytes.len() as u64);
    }
    // A body that was read to its end leaves its connection usable. All bytes are here, so nothing that comes
    // of it matters.
    let _ = next(&mut body).await;
    Ok(())
}

pub(super) async fn next(body: &mut RangeBody) -> Result<Option<bytes::Bytes>, SourceError> {
    body.bytes.next().await.transpose()
}

pub(super) fn too_much(blob: &dyn RangeSource) -> SourceError {
    let problem = "it sent more bytes than were asked for".to_owned();
    SourceError::Protocol { what: blob.origin().to_owned(), problem }
}

pub(super) fn too_little(blob: &dyn RangeSource) -> SourceError {
    let cause = "fewer bytes came than were promised".into();
    SourceError::Broken { origin: blob.origin().to_owned(), cause }
}

/// The sleep before the next try, or the error that ends it all. A try that brought a sixteenth of a range is
/// progress, so a blob has a bounded number of tries however its connections break.
pub(super) fn again(
    attempts: &mut Attempts,
    got: u64,
    range: u64,
    error: SourceError,
) -> Result<Duration, FetchError> {
    if got.saturating_mul(16) >= range {
        attempts.succeeded();
    }
    let kind = error.kind();
    let delay = attempts.failed_with(kind, fastrand::f64());
    if let Some(delay) = delay.filter(|delay| *delay <= LONGEST_WAIT) {
        let failed = attempts.failed();
        tracing::debug!(error = chain(&error), failed, ?delay, "a range broke off; asking for its rest");
        return Ok(delay);
    }
    match kind {
        ErrorKind::Transient | ErrorKind::Throttled { .. } | ErrorKind::Local => {
            Err(FetchError::TriesExhausted { tries: attempts.failed(), last: error })
        }
        _ => Err(FetchError::Source(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_not_held_while_a_server_wants_to_be_left_alone_for_long() {
        let asked_for = |seconds| SourceError::Status {
            what: "x".to_owned(),
            status: 503,
            retry_after: Some(Duration::from_secs(seconds)),
        };
        let mut attempts = Attempts::new(RetryPolicy::RANGE);
        assert!(again(&mut attempts, 0, 100, asked_for(5)).is_ok());
        let error = again(&mut attempts, 0, 100, asked_for(600)).unwrap_err();
        let asked = ErrorKind::Throttled { retry_after: Some(Duration::from_secs(600)) };
        assert_eq!(error.kind(), asked, "the agent's own backoff hears how long");
    }
}
