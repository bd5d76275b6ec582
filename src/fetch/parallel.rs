//! Several ranges of one blob at once. They come out of order; what becomes of that is the outlet's.

use std::time::Duration;

use futures::future::{BoxFuture, OptionFuture};
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::FetchError;
use super::budget::Grant;
use super::engine::Job;
use super::error::nothing_moves;
use super::frontier::Frontier;
use super::outlet::Outlet;
use super::piece::{Home, Piece};
use super::schedule::Schedule;
use super::travel::{Lost, Slot, travel};
use crate::source::SourceError;
use crate::types::ByteRange;

/// What came of fetching in parallel.
pub(super) enum Parallel {
    /// All bytes went to the outlet, and it has done with them.
    Done,
    /// Ranges are not served; nothing is lost by going on in one stream.
    NoRanges,
}

/// How long an answer whose bytes are all here may take to end. Only then can its connection be used again.
const ENDING: Duration = Duration::from_millis(100);

type Arrival = (Slot, ByteRange, Result<(), Lost>);

/// Fetches all of `job` in ranges.
pub(super) async fn fetch(job: &Job<'_>, outlet: &mut impl Outlet) -> Result<Parallel, FetchError> {
    let (arrive, arrivals) = unbounded_channel();
    let (leave, gone) = unbounded_channel();
    let reach = job.reach(0);
    let mut schedule = Schedule::new(job.size, reach.range, reach.window).in_parts_of(job.part);
    let mut frontier = Frontier::default();
    let kept = outlet.kept();
    schedule.keep(&kept);
    // It's in nobody's memory, so it takes nothing of the window.
    kept.into_iter().for_each(|range| schedule.consumed(frontier.add(range)));
    let state = State { job, schedule, begun: 0, arrive, arrivals, held: 0, leave, gone, frontier };
    state.drive(outlet).await
}

struct State<'a> {
    job: &'a Job<'a>,
    schedule: Schedule,
    /// How many ranges were handed out, not counting the rests of broken ones.
    begun: u32,
    /// What has come.
    arrive: UnboundedSender<Piece>,
    arrivals: UnboundedReceiver<Piece>,
    /// How many pieces somebody holds.
    held: usize,
    /// What nobody holds any more.
    leave: UnboundedSender<ByteRange>,
    gone: UnboundedReceiver<ByteRange>,
    frontier: Frontier,
}

impl<'a> State<'a> {
    /// Memory is granted before a range is handed out, and both in order. So whoever holds the memory for some
    /// bytes knows that all bytes before them were taken already or hold memory too: the first range in line
    /// can always go on, however small the budget and however many blobs share it.
    async fn drive(mut self, outlet: &mut impl Outlet) -> Result<Parallel, FetchError> {
        let job = self.job;
        let mut travelling: FuturesUnordered<BoxFuture<'a, Arrival>> = FuturesUnordered::new();
        let mut memory: Option<BoxFuture<'a, Grant>> = None;
        loop {
            while let Ok(piece) = self.arrivals.try_recv() {
                self.arrived(piece, outlet);
            }
            if outlet.is_done() {
                // All bytes are here, so nothing that comes of the rest matters.
                let _ =
                    tokio::time::timeout(ENDING, async { while travelling.next().await.is_some() {} }).await;
                return Ok(Parallel::Done);
            }
            if memory.is_none()
                && travelling.len() < job.lanes()
                && let Some(range) = self.next_range()
            {
                memory = Some(
                    async move {
                        job.under_way.turn().await;
                        job.under_way.waiting(job.memory.grant(range.len())).await
                    }
                    .boxed(),
                );
            }
            tokio::select! {
                biased;
                Some(moved) = outlet.moved() => moved?,
                Some(range) = self.gone.recv(), if self.held > 0 => {
                    self.held -= 1;
                    self.schedule.consumed(self.frontier.add(range));
                }
                Some((slot, asked, outcome)) = travelling.next() => match outcome {
                    Ok(()) => self.schedule.completed(asked),
                    Err(Lost::NoRanges) => return Ok(Parallel::NoRanges),
                    Err(Lost::Source(error)) => travelling.push(self.broken(slot, asked, error)?),
                },
                Some(piece) = self.arrivals.recv(), if !travelling.is_empty() => self.arrived(piece, outlet),
                Some(grant) = OptionFuture::from(memory.as_mut()) => {
                    memory = None;
                    if let Some(range) = self.schedule.hand_out() {
                        self.begun = self.begun.saturating_add(1);
                        travelling.push(send(job, self.slot(range, grant), range, Duration::ZERO));
                    }
                }
                else => return Err(nothing_moves()),
            }
        }
    }

    /// What to ask for next. The answer stands until that was handed out, whoever comes and goes meanwhile.
    fn next_range(&mut self) -> Option<ByteRange> {
        let reach = self.job.reach(self.begun);
        self.schedule.reach(reach.range, reach.window);
        self.schedule.peek()
    }

    fn slot(&self, range: ByteRange, grant: Grant) -> Slot {
        let piece = self.job.cut.piece(self.job.limits, range.len());
        Slot::new(range, grant, piece, self.job.retry, Home::Window(self.leave.clone()), self.arrive.clone())
    }

    fn arrived(&mut self, piece: Piece, outlet: &mut impl Outlet) {
        self.held += 1;
        outlet.arrived(piece);
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
        let delay = slot.failed(got, error, self.job.metrics)?;
        let rest = self.schedule.hand_out().ok_or_else(nothing_moves)?;
        Ok(send(self.job, slot, rest, delay))
    }
}

fn send<'a>(job: &'a Job<'_>, mut slot: Slot, asked: ByteRange, delay: Duration) -> BoxFuture<'a, Arrival> {
    async move {
        let outcome = travel(job, &mut slot, delay).await;
        (slot, asked, outcome)
    }
    .boxed()
}
