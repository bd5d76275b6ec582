//! The layers of one image: all that are missing at once, then their snapshots one upon the other.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use futures::future::{BoxFuture, OptionFuture};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use rustix::fs::{Mode, OFlags};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::flights::{Claim, Flight, Landing};
use super::local::LocalBlob;
use super::plan::{ImagePlan, PlannedLayer};
use super::puller::{Direct, Request};
use super::{Phase, Phases};
use crate::containerd::BlobWriter;
use crate::fetch::Piece;
use crate::image::ImageError;
use crate::image::commit::{CommitError, CommitLayer, Scratch, Workplace, labels};
use crate::image::layer::{LayerDone, LayerError, LayerJob, process};
use crate::image::unpack::{Limits, Unpacker};
use crate::rt::chain;
use crate::source::RangeSource;
use crate::types::ErrorKind;

/// A layer whose bytes came wrong is fetched anew this often in all.
const TRIES: u32 = 3;

/// What one pull works with.
pub(super) struct Pull<'a> {
    pub(super) direct: &'a Direct,
    pub(super) plan: &'a ImagePlan,
    pub(super) work: &'a Workplace,
    pub(super) request: Request<'a>,
    /// Whether containerd wants the blobs kept.
    pub(super) keeps_blobs: bool,
    /// Where the snapshots are.
    pub(super) root: &'a Path,
}

/// The layers that aren't there yet, from the bottom up.
pub(super) struct Missing<'a>(Vec<Lack<'a>>);

enum Lack<'a> {
    /// We make it.
    Ours(&'a PlannedLayer, Flight),
    /// Another pull makes it.
    Theirs(&'a PlannedLayer, Landing),
}

impl<'a> Missing<'a> {
    fn ours(&self) -> impl Iterator<Item = &'a PlannedLayer> {
        self.0.iter().filter_map(|lack| match lack {
            Lack::Ours(layer, _) => Some(*layer),
            Lack::Theirs(..) => None,
        })
    }

    /// The bytes of the layers that we make, packed.
    pub(super) fn packed(&self) -> u64 {
        self.ours().map(|layer| layer.descriptor.size).fold(0, u64::saturating_add)
    }
}

/// A layer that we have unpacked.
struct Made<'a> {
    layer: &'a PlannedLayer,
    scratch: Scratch,
    done: LayerDone,
}

impl Pull<'_> {
    /// Returns once every layer's snapshot is committed and on the disk.
    pub(super) async fn bring(&self, missing: Missing<'_>, phases: &mut Phases) -> Result<(), ImageError> {
        phases.reused = u32::try_from(self.plan.layers.len() - missing.0.len()).unwrap_or(u32::MAX);
        let mut made = self.make_all(missing.ours().collect(), phases).await?;
        self.sync(phases).await?;
        let begun = Instant::now();
        // From the bottom up: each is released for others as soon as it stands.
        for one in missing.0 {
            match one {
                Lack::Ours(layer, flight) => {
                    if let Some(at) = made.iter().position(|made| made.layer.chain == layer.chain) {
                        self.commit(made.swap_remove(at)).await?;
                    }
                    drop(flight);
                }
                Lack::Theirs(layer, landing) => {
                    landing.wait().await;
                    self.take_over(layer, phases).await?;
                }
            }
        }
        phases.add(Phase::Commit, begun.elapsed(), 0);
        Ok(())
    }

    /// The layers above the highest one that is there.
    pub(super) async fn missing(&self) -> Result<Missing<'_>, ImageError> {
        let mut first = self.plan.layers.len();
        for layer in self.plan.layers.iter().rev() {
            if self.work.holds(layer.chain).await? {
                break;
            }
            first -= 1;
        }
        let missing = self.plan.layers.iter().skip(first);
        let claim = |layer: &'_ PlannedLayer| self.direct.flights.claim(layer.chain);
        Ok(Missing(
            missing
                .map(|layer| match claim(layer) {
                    Claim::Mine(flight) => Lack::Ours(layer, flight),
                    Claim::Theirs(landing) => Lack::Theirs(layer, landing),
                })
                .collect(),
        ))
    }

    /// The layer that another pull was at is there now; or it failed, and we make it.
    async fn take_over(&self, layer: &PlannedLayer, phases: &mut Phases) -> Result<(), ImageError> {
        loop {
            if self.work.holds(layer.chain).await? {
                phases.reused += 1;
                return Ok(());
            }
            match self.direct.flights.claim(layer.chain) {
                Claim::Theirs(landing) => landing.wait().await,
                Claim::Mine(_flight) => {
                    let made = self.make_all(vec![layer], phases).await?;
                    self.sync(phases).await?;
                    for made in made {
                        self.commit(made).await?;
                    }
                    return Ok(());
                }
            }
        }
    }

    /// Unpacks all of `layers`, some at a time, the largest first: a large one that begins last would end alone.
    async fn make_all<'p>(
        &self,
        mut layers: Vec<&'p PlannedLayer>,
        phases: &mut Phases,
    ) -> Result<Vec<Made<'p>>, ImageError> {
        layers.sort_by_key(|layer| std::cmp::Reverse(layer.descriptor.size));
        // Boxed, or the compiler can't tell that the whole may go from thread to thread.
        let jobs: Vec<BoxFuture<'_, Result<Made<'p>, ImageError>>> =
            layers.into_iter().map(|layer| self.make(layer).boxed()).collect();
        let made: Vec<Made<'p>> =
            stream::iter(jobs).buffer_unordered(self.direct.layers_at_once).try_collect().await?;
        for Made { layer, done, .. } in &made {
            let times = done.times;
            tracing::debug!(
                layer = %layer.descriptor.digest, packed = layer.descriptor.size, unpacked = done.inflated,
                entries = done.unpacked.entries, starved = ?times.starved, blob_hash = ?times.blob_hash,
                inflate = ?times.inflate, diff_hash = ?times.diff_hash, unpack = ?times.unpack, "a layer is unpacked"
            );
            phases.fetched += 1;
            phases.add(Phase::Fetch, times.starved + times.blob_hash, layer.descriptor.size);
            phases.add(Phase::Inflate, times.inflate, done.inflated);
            phases.add(Phase::Unpack, times.diff_hash + times.unpack, done.unpacked.bytes);
        }
        Ok(made)
    }

    async fn make<'p>(&self, layer: &'p PlannedLayer) -> Result<Made<'p>, ImageError> {
        // Before the fetch: a layer that held memory and waited for its threads could keep another's bytes from coming.
        let _slot = self.direct.slots.acquire().await.map_err(|_| ImageError::Stopped)?;
        let mut tries = 1;
        loop {
            let scratch = self.work.scratch().await?;
            let error = match self.fill(layer, &scratch).await {
                Ok(done) => return Ok(Made { layer, scratch, done }),
                Err(error) => error,
            };
            self.work.discard(scratch).await?;
            let is_worth_it = error.kind() == ErrorKind::Corrupt && tries < TRIES;
            if !is_worth_it || self.request.stop.is_cancelled() {
                return Err(error);
            }
            self.direct.metrics.retried(ErrorKind::Corrupt);
            tracing::warn!(error = chain(&error), "a layer came wrong; it's fetched anew");
            tries += 1;
        }
    }

    /// Fetches, checks and unpacks one layer into `scratch`, and hands its blob to containerd where that keeps them.
    async fn fill(&self, layer: &PlannedLayer, scratch: &Scratch) -> Result<LayerDone, ImageError> {
        let blob = &layer.descriptor;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let root = rustix::fs::open(&scratch.dir, flags, Mode::empty())
            .map_err(|errno| CommitError::NoAccess { root: scratch.dir.clone(), cause: errno.into() })?;
        let limits = Limits { bytes: self.direct.content_limit(self.root), ..Limits::default() };
        let failed =
            |cause| ImageError::Layer { image: self.image(), layer: blob.digest, cause: Box::new(cause) };
        let sink = match layer.parent {
            Some(_) => Unpacker::new(root, limits),
            None => Unpacker::lowest(root, limits),
        };
        let sink = sink.map_err(|cause| failed(LayerError::Unpack(cause)))?;
        let job = LayerJob {
            compression: layer.compression,
            blob: blob.digest,
            size: blob.size,
            diff: layer.diff,
            sink,
        };

        let is_here = self.work.has_blob(blob).await?;
        let source: Arc<dyn RangeSource> = if is_here {
            Arc::new(LocalBlob::new(self.direct.containerd.clone(), blob.digest))
        } else {
            self.request.repository.blob(blob)
        };
        // When one of them fails, the others end with it; whichever said why is believed.
        let ending = self.request.stop.child_token();
        let (fetched, mut pieces) = mpsc::channel::<Piece>(1);
        let fetch =
            self.direct.engine.fetch_in_order(source, blob.size, fetched, self.request.progress, &ending);
        let mut copy = None;
        if self.keeps_blobs && !is_here {
            // None: somebody has put it there just now.
            if let Some(mut writer) = self.work.write_blob(blob).await? {
                writer.rewind();
                let (tee, both) = mpsc::channel::<Piece>(1);
                copy = Some(keep(std::mem::replace(&mut pieces, both), tee, writer));
            }
        }
        let unpack = async {
            let done = process(job, pieces, &self.direct.threads, &ending).await;
            if done.is_err() {
                ending.cancel();
            }
            done
        };
        let (fetched, kept, done) = tokio::join!(fetch, OptionFuture::from(copy), unpack);
        if self.request.stop.is_cancelled() {
            return Err(ImageError::Stopped);
        }
        let why =
            |cause| ImageError::Fetch { image: self.image(), layer: blob.digest, cause: Box::new(cause) };
        let kept = kept.transpose();
        let done = match (done, kept.as_ref(), fetched) {
            (Ok(done), ..) => done,
            // Its bytes ended because of one of the others.
            (Err(LayerError::Cut | LayerError::Stopped), Err(_), _) => {
                return Err(kept.err().unwrap_or(ImageError::Stopped));
            }
            (Err(LayerError::Cut | LayerError::Stopped), _, Err(cause)) => return Err(why(cause)),
            (Err(cause), ..) => return Err(failed(cause)),
        };
        if let Some(writer) = kept? {
            writer.commit(&self.labels(layer)).await?;
        }
        Ok(done)
    }

    async fn commit(&self, made: Made<'_>) -> Result<(), ImageError> {
        let layer = made.layer;
        let commit = CommitLayer {
            chain: layer.chain,
            diff: layer.diff,
            parent: layer.parent,
            implied: made.done.unpacked.implied,
        };
        Ok(self.work.commit(made.scratch, &commit).await?)
    }

    /// One syncfs for all that was unpacked, before any of it gets a name that outlives this pull.
    async fn sync(&self, phases: &mut Phases) -> Result<(), ImageError> {
        let begun = Instant::now();
        self.direct.sync(self.root).await?;
        phases.add(Phase::Sync, begun.elapsed(), 0);
        Ok(())
    }

    fn labels(&self, layer: &PlannedLayer) -> BTreeMap<String, String> {
        let source = labels::of_source(self.request.asked.reference);
        labels::of_layer(layer.diff).into_iter().chain(source).collect()
    }

    fn image(&self) -> String {
        self.request.asked.reference.to_string()
    }
}

/// Hands the pieces on, and writes each to containerd's content store too. What a receiver that is gone misses, it has
/// no use for.
async fn keep(
    mut from: mpsc::Receiver<Piece>,
    to: mpsc::Sender<Piece>,
    mut writer: BlobWriter,
) -> Result<BlobWriter, ImageError> {
    while let Some(piece) = from.recv().await {
        if to.send(piece.clone()).await.is_err() {
            break;
        }
        writer.write(piece.bytes()).await?;
    }
    Ok(writer)
}
