use std::sync::mpsc as link;
use std::time::Duration;

use futures::executor::block_on;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::blob_in::BlobIn;
use super::emptying::next;
use super::halt::Halt;
use super::inflate::{Detect, Inflate as _, InflateError, Step};
use super::outlet::Outlet;
use super::{Compression, LayerError};

/// Bytes of a piece that are hashed and inflated at a time, so that they're in the cache when they're inflated.
const BITE: usize = 256 << 10;

/// Where the pieces are hashed.
pub(super) enum BlobHash<P> {
    /// Here.
    Here(BlobIn),
    /// On another thread, which gets each piece, and `None` at the end.
    There(link::SyncSender<Option<P>>, Verdict),
}

/// The other end of a [`Judged`]: closed without a word where the digest is wrong.
pub(super) struct Verdict(link::Receiver<()>);

/// Says that the blob's digest is right.
pub(super) struct Judged(link::SyncSender<()>);

/// How another thread says that the digest is right.
pub(super) fn verdict() -> (Judged, Verdict) {
    let (say, hear) = link::sync_channel(1);
    (Judged(say), Verdict(hear))
}

/// The first stage: takes the pieces in and lets the tar stream out.
pub(super) struct Intake<P> {
    pub(super) compression: Compression,
    /// Bytes of the blob.
    pub(super) size: u64,
    pub(super) pieces: mpsc::Receiver<P>,
    pub(super) outlet: Outlet,
    pub(super) halt: Halt,
    pub(super) took: TookIn,
}

/// What the first stage did.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TookIn {
    pub(super) inflated: u64,
    pub(super) inflate: Duration,
    pub(super) starved: Duration,
    /// Unless another thread did it. It says that the digest is right.
    pub(super) blob_hash: Option<Duration>,
}

impl<P: AsRef<[u8]> + Clone> Intake<P> {
    /// Runs to the end of the pieces.
    pub(super) fn run(mut self, mut hash: BlobHash<P>) -> Result<TookIn, LayerError> {
        let mut inflate = Detect::new(self.compression)?;
        let mut came = 0;
        while let Some(piece) = self.next()? {
            came += piece.as_ref().len() as u64;
            if came > self.size {
                return Err(LayerError::TooLong { size: self.size });
            }
            if let BlobHash::There(link, _) = &hash {
                link.send(Some(piece.clone())).map_err(|_| LayerError::Stopped)?;
            }
            for bite in piece.as_ref().chunks(BITE) {
                self.halt.check()?;
                if let BlobHash::Here(blob) = &mut hash {
                    blob.take(bite)?;
                }
                self.inflate(&mut inflate, bite)?;
            }
        }
        if came < self.size {
            return Err(LayerError::Cut);
        }
        // Before anything is said against the stream: a blob that isn't the right one is a reason for all of it.
        match hash {
            BlobHash::Here(blob) => self.took.blob_hash = Some(blob.finish()?),
            BlobHash::There(link, verdict) => {
                link.send(None).map_err(|_| LayerError::Stopped)?;
                verdict.0.recv().map_err(|_| LayerError::Stopped)?;
            }
        }
        inflate.no_more()?;
        self.inflate(&mut inflate, &[])?;
        inflate.end()?;
        self.took.inflated = self.outlet.end()?;
        Ok(self.took)
    }

    /// The next piece, as soon as there is one.
    fn next(&mut self) -> Result<Option<P>, LayerError> {
        let started = Instant::now();
        // Nothing in it needs a runtime on this thread.
        let piece = block_on(self.halt.token().run_until_cancelled(self.pieces.recv()));
        self.took.starved += started.elapsed();
        piece.ok_or(LayerError::Stopped)
    }

    fn inflate(&mut self, inflate: &mut Detect, mut input: &[u8]) -> Result<(), LayerError> {
        loop {
            self.halt.check()?;
            let room = self.outlet.room();
            let started = Instant::now();
            let step = inflate.step(input, room)?;
            self.took.inflate += started.elapsed();
            let is_full = step.written == room.len();
            input = &input[step.read..];
            self.outlet.fill(step.written)?;
            if is_full {
                continue;
            }
            if input.is_empty() {
                return Ok(());
            }
            if step == Step::default() {
                return Err(LayerError::Inflate { problem: "nothing comes out of it any more".to_owned() });
            }
        }
    }
}

impl From<InflateError> for LayerError {
    fn from(InflateError(problem): InflateError) -> Self {
        Self::Inflate { problem }
    }
}

/// Hashes the pieces, and keeps them.
pub(super) fn hash_blob<P: AsRef<[u8]>>(
    mut blob: BlobIn,
    pieces: &link::Receiver<Option<P>>,
    judged: &Judged,
    halt: &Halt,
) -> Result<Duration, LayerError> {
    while let Some(piece) = next(pieces, halt)? {
        for bite in piece.as_ref().chunks(BITE) {
            halt.check()?;
            blob.take(bite)?;
        }
    }
    let took = blob.finish()?;
    // Nobody hears it where the intake has failed.
    let _ = judged.0.send(());
    Ok(took)
}
