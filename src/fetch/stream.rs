//! One blob in one GET, in order: for small blobs, and for servers that don't serve ranges.

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::FetchError;
use super::budget::{Grant, Lease};
use super::engine::Job;
use super::error::nothing_moves;
use super::outlet::Outlet;
use super::piece::{Home, Part, Piece};
use super::travel::{again, next, too_little, too_much};
use crate::rt::Attempts;
use crate::source::SourceError;
use crate::types::{ByteRange, ErrorKind};

/// Fetches `job` from the byte `from` to its last.
pub(super) async fn fetch(job: &Job<'_>, outlet: &mut impl Outlet, from: u64) -> Result<(), FetchError> {
    let (arrive, mut arrivals) = unbounded_channel();
    let reading = read_all(job, from, arrive);
    tokio::pin!(reading);
    let mut is_read = false;
    loop {
        while let Ok(piece) = arrivals.try_recv() {
            outlet.arrived(piece);
        }
        if outlet.is_done() {
            return Ok(());
        }
        tokio::select! {
            biased;
            Some(moved) = outlet.moved() => moved?,
            read = &mut reading, if !is_read => {
                read?;
                is_read = true;
            }
            Some(piece) = arrivals.recv(), if !is_read => outlet.arrived(piece),
            else => return Err(nothing_moves()),
        }
    }
}

/// All memory that it will ever need is granted before it asks for a connection, and comes back to it with each
/// piece that nobody holds any more: so nobody waits in a circle.
async fn read_all(job: &Job<'_>, from: u64, arrive: UnboundedSender<Piece>) -> Result<(), FetchError> {
    let share = job.cut.stream(job.limits, job.size.saturating_sub(from));
    job.under_way.turn().await;
    let (home, spare) = unbounded_channel();
    let mut reader = Reader {
        job,
        position: from,
        piece: share.piece,
        grant: job.under_way.waiting(job.memory.grant(share.memory)).await,
        fresh: share.memory,
        spare,
        part: None,
        home: Home::Stream(home),
        arrive,
    };
    let mut attempts = Attempts::new(job.retry);
    while let Some(rest) = ByteRange::new(reader.position, job.size) {
        let error = match reader.read(rest).await {
            Ok(()) => continue,
            Err(Ended::Source(error)) => error,
            Err(Ended::Fetch(error)) => return Err(error),
        };
        if matches!(error.kind(), ErrorKind::Throttled { .. }) {
            job.origin.throttled();
        }
        let got = reader.position - rest.start();
        let delay = again(&mut attempts, got, share.piece, error, job.metrics)?;
        tokio::time::sleep(delay).await;
    }
    Ok(())
}

struct Reader<'a> {
    job: &'a Job<'a>,
    /// All bytes before this one have come.
    position: u64,
    piece: u64,
    grant: Grant,
    /// Bytes of the grant that were never used.
    fresh: u64,
    /// Memory that was used and is free again.
    spare: UnboundedReceiver<Lease>,
    /// What is being filled.
    part: Option<Part>,
    home: Home,
    arrive: UnboundedSender<Piece>,
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

impl Reader<'_> {
    async fn read(&mut self, rest: ByteRange) -> Result<(), Ended> {
        let job = self.job;
        let _lane = job.under_way.waiting(job.origin.lane()).await;
        let mut body = job.blob.get(rest).await?;
        while let Some(bytes) = next(&mut body).await? {
            if self.position + bytes.len() as u64 > job.size {
                return Err(too_much(&*job.blob).into());
            }
            self.take_in(&bytes).await?;
            job.bandwidth.pass(bytes.len() as u64).await;
        }
        if self.position == job.size { Ok(()) } else { Err(too_little(&*job.blob).into()) }
    }

    async fn take_in(&mut self, mut bytes: &[u8]) -> Result<(), FetchError> {
        while !bytes.is_empty() {
            let mut part = match self.part.take() {
                Some(part) => part,
                None => Part::new(self.position, self.job.size, self.room().await?),
            };
            let count = part.fill(bytes);
            bytes = bytes.get(count..).filter(|_| count > 0).ok_or_else(nothing_moves)?;
            self.position += count as u64;
            self.job.counted.add(count as u64);
            self.job.arrived(count as u64);
            if part.is_full() {
                // Whoever fetches holds the other end for as long as this runs.
                let _ = self.arrive.send(part.into_piece(self.home.clone()));
            } else {
                self.part = Some(part);
            }
        }
        Ok(())
    }

    /// Memory for the next piece.
    async fn room(&mut self) -> Result<Lease, FetchError> {
        let fresh = self.fresh.min(self.piece);
        if fresh > 0 {
            self.fresh -= fresh;
            return Ok(self.grant.part(usize::try_from(fresh).unwrap_or(usize::MAX)));
        }
        self.spare.recv().await.ok_or_else(nothing_moves)
    }
}
