//! One range on its way from a source into memory, and what to do when it breaks off.

use std::time::Duration;

use futures::StreamExt as _;
use tokio::sync::mpsc::UnboundedSender;

use super::budget::Grant;
use super::engine::Job;
use super::piece::{Home, Part, Piece};
use super::{FetchError, bodies};
use crate::rt::{Attempts, Metrics, RetryPolicy, chain};
use crate::source::{RangeBody, RangeSource, SourceError};
use crate::types::{ByteRange, ErrorKind};

/// A range that waits keeps its memory, which other blobs need. A server that asks for more patience than this is
/// asked again by whoever wanted the blob.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The memory of a range and how far it's filled. It stays with the range over all its tries: nobody who holds
/// later bytes of the blob can then take the memory that the earlier ones wait for.
#[derive(Debug)]
pub(super) struct Slot {
    range: ByteRange,
    filled: u64,
    grant: Grant,
    attempts: Attempts,
    /// Bytes in one piece.
    piece: u64,
    part: Option<Part>,
    home: Home,
    arrive: UnboundedSender<Piece>,
    is_asked_twice: bool,
}

impl Slot {
    /// Full pieces go to `arrive`, each at once.
    pub(super) fn new(
        range: ByteRange,
        grant: Grant,
        piece: u64,
        policy: RetryPolicy,
        home: Home,
        arrive: UnboundedSender<Piece>,
    ) -> Self {
        let attempts = Attempts::new(policy);
        Self { range, filled: 0, grant, attempts, piece, part: None, home, arrive, is_asked_twice: false }
    }

    /// What has not come yet, or `None` when it's full.
    pub(super) fn rest(&self) -> Option<ByteRange> {
        self.range.after(self.filled)
    }

    /// Bytes that have come.
    pub(super) fn filled(&self) -> u64 {
        self.filled
    }

    /// Whether a second connection has been tried: each range has one chance.
    pub(super) fn was_asked_twice(&self) -> bool {
        self.is_asked_twice
    }

    pub(super) fn ask_twice(&mut self) {
        self.is_asked_twice = true;
    }

    /// Takes in what is new of the bytes that belong at `position`, which isn't beyond what has come, and says how many
    /// were; `None`, and none taken, when they reach beyond the range.
    pub(super) fn fill_at(&mut self, position: u64, bytes: &[u8]) -> Option<u64> {
        if position.checked_add(bytes.len() as u64)? > self.range.end() {
            return None;
        }
        let known = (self.range.start() + self.filled).checked_sub(position)?;
        let new = bytes.get(usize::try_from(known).ok()?..).unwrap_or_default();
        self.fill(new);
        Some(new.len() as u64)
    }

    /// Takes in the next bytes, which are no more than lack.
    fn fill(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let mut part = self.part.take().unwrap_or_else(|| self.next_part());
            let count = part.fill(bytes);
            self.filled += count as u64;
            if part.is_full() {
                // When nobody is there to take it, nobody wants the range any more.
                let _ = self.arrive.send(part.into_piece(self.home.clone()));
            } else {
                self.part = Some(part);
            }
            bytes = bytes.get(count..).unwrap_or_default();
        }
    }

    fn next_part(&mut self) -> Part {
        let start = self.range.start() + self.filled;
        let len = self.piece.min(self.range.end() - start);
        let lease = self.grant.part(usize::try_from(len).unwrap_or(usize::MAX));
        Part::new(start, self.range.end(), lease)
    }

    /// How long to wait before the rest is asked for again, after a try that brought `got` bytes of it.
    pub(super) fn failed(
        &mut self,
        got: u64,
        error: SourceError,
        metrics: Option<&Metrics>,
    ) -> Result<Duration, FetchError> {
        again(&mut self.attempts, got, self.range.len(), error, metrics)
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
pub(super) async fn travel(job: &Job<'_>, slot: &mut Slot, delay: Duration) -> Result<(), Lost> {
    // Even a sleep of nothing lasts until the clock's next millisecond.
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    // Waiting for it while holding memory is safe: whoever has a connection has all the memory it needs.
    let lane = job.under_way.waiting(job.origin.lane()).await;
    bodies::bring(job, slot, lane).await
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
/// progress, so a blob has a bounded number of tries however its connections break. Every further try is counted.
pub(super) fn again(
    attempts: &mut Attempts,
    got: u64,
    range: u64,
    error: SourceError,
    metrics: Option<&Metrics>,
) -> Result<Duration, FetchError> {
    if got.saturating_mul(16) >= range {
        attempts.succeeded();
    }
    let kind = error.kind();
    let delay = attempts.failed_with(kind, fastrand::f64());
    if let Some(delay) = delay.filter(|delay| *delay <= LONGEST_WAIT) {
        if let Some(metrics) = metrics {
            metrics.retried(kind);
        }
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
        assert!(again(&mut attempts, 0, 100, asked_for(5), None).is_ok());
        let error = again(&mut attempts, 0, 100, asked_for(600), None).unwrap_err();
        let asked = ErrorKind::Throttled { retry_after: Some(Duration::from_secs(600)) };
        assert_eq!(error.kind(), asked, "the agent's own backoff hears how long");
    }
}
