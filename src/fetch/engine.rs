use std::sync::Arc;

use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;

use super::bandwidth::Bandwidth;
use super::budget::Memory;
use super::counted::Counted;
use super::cut::{Cut, Reach};
use super::handed::Handed;
use super::origin::{Origin, Origins};
use super::outlet::Outlet;
use super::parallel::{self, Parallel};
use super::stored::Stored;
use super::urgency::{Precedence, UnderWay, Urgency};
use super::whole::{Gathered, Whole};
use super::{ALIGNMENT, FetchError, Kept, Piece, Sink, stream};
use crate::rt::{Metrics, RetryPolicy};
use crate::source::RangeSource;
use crate::types::{ByteRange, Digest, Progress};

/// What the engine may use at once, over all blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in memory.
    pub memory: u64,
    /// Bytes in one GET, at most.
    pub range: u64,
    /// Connections to one server, at most: how many there are is found out.
    pub per_origin: usize,
    /// Ranges of one blob that travel at once to a reader who takes them in order.
    pub per_blob: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: 128 << 20, range: 16 << 20, per_origin: 64, per_blob: 4 }
    }
}

impl Limits {
    /// These limits, so that anything can move within them: a range is a whole number of pages that fits into the
    /// memory, and nothing is 0.
    fn workable(self) -> Self {
        let page = ALIGNMENT as u64;
        let memory = self.memory.max(page);
        Self {
            memory,
            range: (self.range.min(memory) / page * page).max(page),
            per_origin: self.per_origin.max(1),
            per_blob: self.per_blob.max(1),
        }
    }
}

/// Moves blobs from sources to sinks. Clones share the limits.
#[derive(Debug, Clone)]
pub struct Engine {
    limits: Limits,
    retry: RetryPolicy,
    memory: Memory,
    origins: Origins,
    bandwidth: Bandwidth,
    precedence: Precedence,
    urgency: Urgency,
    metrics: Option<Arc<Metrics>>,
}

/// One blob to be moved, and what it may use for that.
pub(super) struct Job<'a> {
    pub(super) blob: Arc<dyn RangeSource>,
    /// More than 0.
    pub(super) size: u64,
    pub(super) cut: Cut,
    pub(super) counted: &'a Counted<'a>,
    pub(super) limits: Limits,
    pub(super) retry: RetryPolicy,
    pub(super) memory: &'a Memory,
    pub(super) origin: Arc<Origin>,
    /// The length of the parts in which the server stores it, where that is known and of use.
    pub(super) part: Option<u64>,
    pub(super) bandwidth: &'a Bandwidth,
    pub(super) under_way: &'a UnderWay,
    pub(super) metrics: Option<&'a Metrics>,
}

impl Job<'_> {
    /// How far it may go, of which `begun` ranges are on their way or here already.
    pub(super) fn reach(&self, begun: u32) -> Reach {
        let reach = self.cut.reach(self.limits, begun, self.memory.users(), self.origin.limit());
        Reach { range: self.cut.fit(reach.range, self.part), ..reach }
    }

    /// Ranges that are begun at once.
    pub(super) fn lanes(&self) -> usize {
        self.cut.lanes(self.limits, self.origin.limit())
    }

    /// Bytes came for it.
    pub(super) fn arrived(&self, bytes: u64) {
        self.origin.moved(bytes);
        self.under_way.moved();
    }
}

impl Engine {
    /// An engine with these limits. What can't work is mended: a range longer than all memory becomes that long,
    /// and 0 becomes the least there is.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let limits = limits.workable();
        Self {
            limits,
            retry: RetryPolicy::RANGE,
            memory: Memory::new(limits.memory, Cut::Growing.piece(limits, limits.range)),
            origins: Origins::new(limits.per_origin),
            bandwidth: Bandwidth::default(),
            precedence: Precedence::default(),
            urgency: Urgency::default(),
            metrics: None,
        }
    }

    /// The same engine, that counts there what it asks for again.
    #[must_use]
    pub fn counting_in(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    /// The same engine, for what matters so much: it shares everything with this one.
    #[must_use]
    pub fn with_urgency(&self, urgency: Urgency) -> Self {
        Self { urgency, ..self.clone() }
    }

    /// How many bytes a second all of it may bring; without a limit until it's set.
    #[must_use]
    pub fn bandwidth(&self) -> Bandwidth {
        self.bandwidth.clone()
    }

    /// Fetches all `size` bytes of `blob` into `sink` and says what their SHA-256 is. Comparing it is the caller's.
    ///
    /// `progress` grows as bytes arrive, and shrinks by all of that again when the fetch fails or is dropped.
    /// When `stop` is cancelled this returns soon, after all writes that had begun have ended. Dropping the future
    /// ends the transfers at once; writes that had begun end by themselves, each holding `sink`.
    ///
    /// # Errors
    /// See [`FetchError`]. Some bytes may have been written; no write is under way any more.
    pub async fn fetch(
        &self,
        blob: Arc<dyn RangeSource>,
        size: u64,
        sink: Arc<dyn Sink>,
        progress: &Progress,
        stop: &CancellationToken,
    ) -> Result<Digest, FetchError> {
        self.fetch_rest(blob, size, sink, Kept::default(), progress, stop).await
    }

    /// The same, but for what `sink` has `kept` of this version of the blob. That counts as progress at once; what of
    /// it wasn't hashed yet is read back. From a server that turns out not to serve ranges all is read that lies
    /// behind the first gap.
    ///
    /// # Errors
    /// See [`Engine::fetch`].
    pub async fn fetch_rest(
        &self,
        blob: Arc<dyn RangeSource>,
        size: u64,
        sink: Arc<dyn Sink>,
        kept: Kept,
        progress: &Progress,
        stop: &CancellationToken,
    ) -> Result<Digest, FetchError> {
        if stop.is_cancelled() {
            return Err(FetchError::Cancelled);
        }
        if size == 0 {
            return Ok(Digest::of(&[]));
        }
        let mut outlet = Stored::new(sink, size, kept);
        self.carry(blob, size, Cut::Even, &mut outlet, progress, stop.cancelled()).await?;
        outlet.finish()
    }

    /// The longest blob that can be fetched whole, in bytes.
    #[must_use]
    pub fn longest_whole(&self) -> u64 {
        self.limits.range
    }

    /// Fetches all `size` bytes of `blob` into memory, no more than [`Engine::longest_whole`]. Hashing them is the
    /// caller's, who must let go of them without waiting for another blob's.
    ///
    /// `progress` and `stop` are as for [`Engine::fetch`].
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn fetch_whole(
        &self,
        blob: Arc<dyn RangeSource>,
        size: u64,
        progress: &Progress,
        stop: &CancellationToken,
    ) -> Result<Whole, FetchError> {
        if stop.is_cancelled() {
            return Err(FetchError::Cancelled);
        }
        let mut outlet = Gathered::new(size);
        if size > self.limits.range {
            return Err(FetchError::Sink(std::io::ErrorKind::FileTooLarge.into()));
        }
        if size > 0 {
            self.carry(blob, size, Cut::Whole, &mut outlet, progress, stop.cancelled()).await?;
        }
        Ok(outlet.finish())
    }

    /// Fetches all `size` bytes of `blob` and hands them to `pieces`, in order and without gaps, each piece soon
    /// after its last byte has come. Hashing them is the receiver's.
    ///
    /// A receiver may be as slow as it likes, but it must go on: it lets go of every piece without waiting for a
    /// later one, or for another blob's. What it holds, and what waits in the channel, counts as memory of the
    /// engine, and what is ahead of the first byte that it still holds is bounded. It sees the end of `pieces` when
    /// this returns or is dropped, and only the answer says whether that was the end of the blob.
    ///
    /// `progress` and `stop` are as for [`Engine::fetch`].
    ///
    /// # Errors
    /// See [`FetchError`]; a receiver that was dropped is [`FetchError::Cancelled`]. Some bytes may have been handed
    /// out.
    pub async fn fetch_in_order(
        &self,
        blob: Arc<dyn RangeSource>,
        size: u64,
        pieces: Sender<Piece>,
        progress: &Progress,
        stop: &CancellationToken,
    ) -> Result<(), FetchError> {
        if stop.is_cancelled() {
            return Err(FetchError::Cancelled);
        }
        if size == 0 {
            return Ok(());
        }
        let mut outlet = Handed::new(pieces.clone(), size);
        let given_up = async {
            tokio::select! {
                () = stop.cancelled() => {}
                () = pieces.closed() => {}
            }
        };
        self.carry(blob, size, Cut::Growing, &mut outlet, progress, given_up).await
    }

    /// Brings all of `blob` to `outlet`. Whatever comes of it, nothing is under way there when this returns.
    async fn carry(
        &self,
        blob: Arc<dyn RangeSource>,
        size: u64,
        cut: Cut,
        outlet: &mut impl Outlet,
        progress: &Progress,
        given_up: impl Future<Output = ()>,
    ) -> Result<(), FetchError> {
        let _user = self.memory.user();
        let counted = Counted::new(progress);
        counted.add(outlet.kept().into_iter().map(ByteRange::len).sum());
        let under_way = self.precedence.begin(self.urgency);
        let whole_pages = |part: &u64| *part > 0 && part.is_multiple_of(ALIGNMENT as u64);
        let job = Job {
            origin: self.origins.of(blob.origin()),
            part: blob.stored_part().filter(whole_pages),
            blob,
            size,
            cut,
            counted: &counted,
            limits: self.limits,
            retry: self.retry,
            memory: &self.memory,
            bandwidth: &self.bandwidth,
            under_way: &under_way,
            metrics: self.metrics.as_deref(),
        };
        let outcome = tokio::select! {
            biased;
            () = given_up => Err(FetchError::Cancelled),
            outcome = bring(&job, outlet) => outcome,
        };
        outlet.settle().await;
        outcome?;
        counted.keep();
        Ok(())
    }
}

async fn bring(job: &Job<'_>, outlet: &mut impl Outlet) -> Result<(), FetchError> {
    if job.cut.is_small(job.size, job.limits) || !job.blob.serves_ranges() {
        return in_one_stream(job, outlet).await;
    }
    match parallel::fetch(job, outlet).await? {
        Parallel::Done => Ok(()),
        Parallel::NoRanges => {
            tracing::info!(origin = job.blob.origin(), "the server ignores ranges; reading in one stream");
            in_one_stream(job, outlet).await
        }
    }
}

async fn in_one_stream(job: &Job<'_>, outlet: &mut impl Outlet) -> Result<(), FetchError> {
    let from = outlet.rewind().await?;
    job.counted.take_back();
    job.counted.add(from);
    stream::fetch(job, outlet, from).await
}

#[cfg(test)]
impl Engine {
    /// An engine that loses no time between tries.
    pub(crate) fn impatient(limits: Limits) -> Self {
        let moment = std::time::Duration::from_micros(10);
        let retry = RetryPolicy { first: moment, longest: moment, ..RetryPolicy::RANGE };
        Self { retry, ..Self::new(limits) }
    }

    /// Whether nothing is held by anybody.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.memory.is_all_free()
    }
}
