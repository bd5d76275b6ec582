use std::sync::Arc;
use std::sync::mpsc as link;
use std::time::Duration;

use tokio::sync::mpsc;

use super::blob_in::BlobIn;
use super::emptying::{Emptied, Emptying, hash_diff};
use super::halt::Halt;
use super::hashing::Hashing;
use super::intake::{BlobHash, Intake, TookIn, hash_blob, verdict};
use super::outlet::Outlet;
use super::threads::{Stage, Turn};
use super::{LayerDone, LayerError, LayerJob, LayerTimes, Split};
use crate::image::unpack::TarSink;

/// Pieces that wait for the thread that hashes them, at most.
const WAITING_PIECES: usize = 1;

/// The threads of one layer, all of them at work.
#[derive(Default)]
pub(super) struct Stages {
    intake: Option<Stage<TookIn>>,
    /// Unless the intake does it.
    blob_hash: Option<Stage<Duration>>,
    emptying: Option<Stage<Emptied>>,
    /// Unless the emptying does it.
    diff_hash: Option<Stage<Duration>>,
}

impl Stages {
    /// Starts all of them. When one can't be, those before it stop.
    pub(super) fn start<P, S>(
        job: LayerJob<S>,
        pieces: mpsc::Receiver<P>,
        turn: &Arc<Turn>,
        halt: &Halt,
    ) -> Self
    where
        P: AsRef<[u8]> + Send + Sync + Clone + 'static,
        S: TarSink + 'static,
    {
        let mut stages = Self::default();
        if let Err(error) = stages.start_all(job, pieces, turn, halt) {
            halt.fail(error);
        }
        stages
    }

    fn start_all<P, S>(
        &mut self,
        job: LayerJob<S>,
        pieces: mpsc::Receiver<P>,
        turn: &Arc<Turn>,
        halt: &Halt,
    ) -> Result<(), LayerError>
    where
        P: AsRef<[u8]> + Send + Sync + Clone + 'static,
        S: TarSink + 'static,
    {
        let limit = inflated_limit(job.size);
        let (blob, diff) = (BlobIn::new(job.blob, job.copy), Hashing::new(job.diff));
        let (unpack, blocks) = link::channel();
        let mut links = vec![unpack];
        let (blob_hash, diff_hash) = match turn.split {
            Split::Two => (BlobHash::Here(blob), Some(diff)),
            Split::Four => {
                let (to_blob, pieces) = link::sync_channel(WAITING_PIECES);
                let (judged, verdict) = verdict();
                let on = halt.clone();
                let hash = move || hash_blob(blob, &pieces, &judged, &on);
                self.blob_hash = Some(Stage::start("blob", turn, halt, hash)?);
                let (to_diff, blocks) = link::channel();
                links.push(to_diff);
                let on = halt.clone();
                self.diff_hash =
                    Some(Stage::start("diff", turn, halt, move || hash_diff(diff, &blocks, &on))?);
                (BlobHash::There(to_blob, verdict), None)
            }
        };
        let emptying = Emptying { blocks, sink: job.sink, hash: diff_hash, halt: halt.clone() };
        self.emptying = Some(Stage::start("unpack", turn, halt, move || emptying.run())?);
        let intake = Intake {
            compression: job.compression,
            size: job.size,
            pieces,
            outlet: Outlet::new(links, limit),
            halt: halt.clone(),
            took: TookIn::default(),
        };
        self.intake = Some(Stage::start("inflate", turn, halt, move || intake.run(blob_hash))?);
        Ok(())
    }

    /// Waits for the end of all of them. None runs any more when it returns.
    pub(super) async fn join(self, halt: &Halt) -> Result<LayerDone, LayerError> {
        let intake = join(self.intake).await;
        let blob_hash = join(self.blob_hash).await;
        let diff_hash = join(self.diff_hash).await;
        let emptying = join(self.emptying).await;
        if let Some(error) = halt.error() {
            return Err(error);
        }
        let (intake, emptying) = intake.zip(emptying).ok_or(LayerError::Stopped)?;
        // Each is there only where its digest is right.
        let blob_hash = intake.blob_hash.or(blob_hash).ok_or(LayerError::Stopped)?;
        let diff_hash = emptying.diff_hash.or(diff_hash).ok_or(LayerError::Stopped)?;
        Ok(LayerDone {
            unpacked: emptying.unpacked,
            inflated: intake.inflated,
            times: LayerTimes {
                blob_hash,
                inflate: intake.inflate,
                diff_hash,
                unpack: emptying.unpack,
                starved: intake.starved,
            },
        })
    }
}

async fn join<T: Send + 'static>(stage: Option<Stage<T>>) -> Option<T> {
    match stage {
        Some(stage) => stage.join().await,
        None => None,
    }
}

/// What a blob of `size` bytes may inflate to: more than any real layer does, and not for ever. DEFLATE makes at most
/// 1032 bytes of one; zstd can make far more, up to the fixed part.
fn inflated_limit(size: u64) -> u64 {
    const ANY: u64 = 64 << 30;
    const RATIO: u64 = 1100;
    size.saturating_mul(RATIO).max(ANY)
}
