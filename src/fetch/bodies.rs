//! The rest of one range by one connection, or by two where the first is late.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::{BoxFuture, OptionFuture};
use tokio::time::Instant;

use super::engine::Job;
use super::origin::Lane;
use super::travel::{Lost, Slot, too_little, too_much};
use crate::source::{RangeBody, SourceError};
use crate::types::{ByteRange, ErrorKind};

/// One answer, asked for or being read.
struct Body<'a> {
    asking: Option<BoxFuture<'a, Result<RangeBody, SourceError>>>,
    reading: Option<RangeBody>,
    asked: Instant,
    /// When the head of the answer came, and how many bytes since.
    answered: Option<Instant>,
    got: u64,
    /// Where in the blob its next byte belongs.
    position: u64,
    lane: Lane,
}

impl<'a> Body<'a> {
    fn ask(job: &'a Job<'_>, rest: ByteRange, lane: Lane) -> Self {
        Self {
            asking: Some(job.blob.get(rest)),
            reading: None,
            asked: Instant::now(),
            answered: None,
            got: 0,
            position: rest.start(),
            lane,
        }
    }

    /// What comes next: bytes, its head (no bytes), or its end (`None`). Dropping the future loses nothing.
    async fn next(&mut self) -> Option<Result<Bytes, SourceError>> {
        if let Some(asking) = &mut self.asking {
            let answer = asking.await;
            self.asking = None;
            self.answered = Some(Instant::now());
            return Some(answer.map(|body| {
                self.reading = Some(body);
                Bytes::new()
            }));
        }
        self.reading.as_mut()?.bytes.next().await
    }

    /// Whether it ends in less time than an answer takes to begin.
    fn has_all_but_ended(&self, rest: u64, lead: Duration) -> bool {
        let time = self.answered.map_or(Duration::ZERO, |answered| answered.elapsed());
        self.got > 0 && rest as f64 * time.as_secs_f64() <= lead.as_secs_f64() * self.got as f64
    }
}

/// Brings what `slot` lacks. A range that is late is asked for once more, by a second connection; both fill the one
/// slot from where it is, and who comes first with a byte has brought it. When the slot is full the other is dropped.
pub(super) async fn bring(job: &Job<'_>, slot: &mut Slot, lane: Lane) -> Result<(), Lost> {
    let Some(rest) = slot.rest() else { return Ok(()) };
    let asked = rest.len();
    let begun = Instant::now();
    let mut first = Some(Body::ask(job, rest, lane));
    let mut second: Option<Body<'_>> = None;
    // Time in which nobody read, because of the limit on the bandwidth.
    let mut held = Duration::ZERO;
    while let Some(rest) = slot.rest() {
        let late = job.origin.patience(asked).filter(|_| second.is_none() && !slot.was_asked_twice());
        let late = late.map(|patience| begun + patience + held);
        let (is_first, next) = tokio::select! {
            biased;
            Some(next) = OptionFuture::from(first.as_mut().map(Body::next)) => (true, next),
            Some(next) = OptionFuture::from(second.as_mut().map(Body::next)) => (false, next),
            () = sleep_until(late), if late.is_some() => {
                second = ask_again(job, slot, rest, begun.elapsed().saturating_sub(held));
                continue;
            }
            else => return Err(Lost::Source(too_little(&*job.blob))),
        };
        let (body, other) = if is_first { (&mut first, &second) } else { (&mut second, &first) };
        let taken = match (next, body.as_mut()) {
            (Some(Ok(bytes)), Some(body)) => take(job, slot, body, &bytes).map(|()| bytes.len() as u64),
            (Some(Err(error)), _) => Err(Lost::Source(error)),
            (None, _) | (_, None) => Err(Lost::Source(too_little(&*job.blob))),
        };
        match taken {
            Ok(bytes) => held += job.bandwidth.pass(bytes).await,
            Err(lost) => {
                if let Lost::Source(error) = &lost
                    && matches!(error.kind(), ErrorKind::Throttled { .. })
                {
                    job.origin.throttled();
                }
                if other.is_none() || matches!(lost, Lost::NoRanges) {
                    return Err(lost);
                }
                *body = None;
            }
        }
    }
    if !slot.was_asked_twice() {
        job.origin.came(asked, begun.elapsed().saturating_sub(held));
    }
    end([first, second], rest.end()).await;
    Ok(())
}

async fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        // A moment that has passed would be asked about again and again.
        tokio::time::sleep_until(at.max(Instant::now() + Duration::from_millis(20))).await;
    }
}

fn ask_again<'a>(job: &'a Job<'_>, slot: &mut Slot, rest: ByteRange, after: Duration) -> Option<Body<'a>> {
    let lane = job.origin.second_lane(rest.len(), slot.filled(), after)?;
    slot.ask_twice();
    if let Some(metrics) = job.metrics {
        metrics.asked_twice();
    }
    tracing::debug!(origin = job.blob.origin(), ?rest, ?after, "a range is late; asking for it once more");
    Some(Body::ask(job, rest, lane))
}

fn take(job: &Job<'_>, slot: &mut Slot, body: &mut Body<'_>, bytes: &[u8]) -> Result<(), Lost> {
    if body.got == 0 && bytes.is_empty() {
        // The head of its answer.
        if !job.blob.serves_ranges() {
            return Err(Lost::NoRanges);
        }
        if let Some(answered) = body.answered {
            job.origin.answered(answered - body.asked);
        }
        return Ok(());
    }
    let Some(new) = slot.fill_at(body.position, bytes) else {
        return Err(Lost::Source(too_much(&*job.blob)));
    };
    let count = bytes.len() as u64;
    body.position += count;
    body.got += count;
    job.counted.add(new);
    job.arrived(new);
    if let Some(metrics) = job.metrics.filter(|_| new < count) {
        metrics.came_twice(count - new);
    }
    if body.has_all_but_ended(slot.rest().map_or(0, ByteRange::len), job.origin.lead()) {
        body.lane.hand_over();
    }
    Ok(())
}

/// A body that was read to its end leaves its connection usable. All bytes are here, so nothing that comes of it
/// matters; one that lost is dropped.
async fn end(bodies: [Option<Body<'_>>; 2], end: u64) {
    let won = bodies.into_iter().flatten().find(|body| body.position == end && body.reading.is_some());
    if let Some(mut won) = won {
        let _ = won.next().await;
    }
}
