use std::sync::mpsc as link;
use std::time::Duration;

use tokio::time::Instant;

use super::LayerError;
use super::halt::Halt;
use super::hashing::{Hashing, Mismatch};
use super::outlet::Next;
use crate::image::unpack::{TarSink, Unpacked};

/// The last stage: unpacks the tar stream.
pub(super) struct Emptying<S> {
    pub(super) blocks: link::Receiver<Next>,
    pub(super) sink: S,
    /// Unless another thread does it.
    pub(super) hash: Option<Hashing>,
    pub(super) halt: Halt,
}

/// What the last stage did.
#[derive(Debug)]
pub(super) struct Emptied {
    pub(super) unpacked: Unpacked,
    pub(super) unpack: Duration,
    /// Unless another thread did it. It says that the digest is right.
    pub(super) diff_hash: Option<Duration>,
}

impl<S: TarSink> Emptying<S> {
    /// Runs to the end of the stream.
    pub(super) fn run(mut self) -> Result<Emptied, LayerError> {
        let mut unpack = Duration::ZERO;
        while let Some(block) = next(&self.blocks, &self.halt)? {
            if let Some(hashing) = &mut self.hash {
                hashing.update(&block);
            }
            let started = Instant::now();
            self.sink.feed(&block)?;
            unpack += started.elapsed();
        }
        // Before the sink says what it misses: a stream that isn't the right one is a reason for all of it.
        let diff_hash = self.hash.map(Hashing::finish).transpose().map_err(diff_digest)?;
        let started = Instant::now();
        let unpacked = self.sink.finish()?;
        unpack += started.elapsed();
        Ok(Emptied { unpacked, unpack, diff_hash })
    }
}

/// Hashes the tar stream, and does nothing else.
pub(super) fn hash_diff(
    mut hashing: Hashing,
    blocks: &link::Receiver<Next>,
    halt: &Halt,
) -> Result<Duration, LayerError> {
    while let Some(block) = next(blocks, halt)? {
        hashing.update(&block);
    }
    hashing.finish().map_err(diff_digest)
}

/// What comes next, where a link that closes without an end is a stage that has failed.
pub(super) fn next<T>(link: &link::Receiver<Option<T>>, halt: &Halt) -> Result<Option<T>, LayerError> {
    let next = link.recv().map_err(|_| LayerError::Stopped)?;
    halt.check()?;
    Ok(next)
}

fn diff_digest(Mismatch { wanted, found }: Mismatch) -> LayerError {
    LayerError::DiffDigest { wanted, found }
}
