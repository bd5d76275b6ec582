//! The layers of one image: all that are missing at once, then their snapshots one upon the other.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use futures::future::{BoxFuture, OptionFuture};
use futures::{FutureExt as _, StreamExt as _, stream};
use rustix::fs::{Mode, OFlags};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::attempt::{Attempt, Whence};
use super::flights::{Claim, Flight, Landing};
use super::keeping::{Keeping, Kept};
use super::local::LocalBlob;
use super::plan::{ImagePlan, PlannedLayer};
use super::puller::{Direct, Request};
use super::{Phase, Phases};
use crate::fetch::Piece;
use crate::image::ImageError;
use crate::image::commit::{CommitError, CommitLayer, Scratch, Workplace, labels};
use crate::image::early_file::{self, EarlyFile};
use crate::image::layer::{LayerDone, LayerError, LayerJob, process};
use crate::image::unpack::{Limits, Unpacker};
use crate::rt::chain;
use crate::source::RangeSource;

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
    /// Where the content store is.
    pub(super) content_root: Option<&'a Path>,
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
    /// Its blob, where containerd wants it too, until somebody commits it.
    kept: Option<Kept>,
}

impl Made<'_> {
    fn count(&self, phases: &mut Phases) {
        let Self { layer, done, .. } = self;
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
}

/// Where a blob is.
enum Blob {
    /// In containerd.
    Here,
    /// At the registry; where it's to be kept, we are the ones who bring it.
    Away(Option<Flight>),
}

/// A layer that was filled, and its blob, which containerd wants too.
type Filled = (LayerDone, Option<Kept>);

/// Blobs that get their names while other layers are at work.
type Naming = JoinSet<Result<(), ImageError>>;

impl Pull<'_> {
    /// Returns once every layer's snapshot is committed and on the disk.
    pub(super) async fn bring(&self, missing: Missing<'_>, phases: &mut Phases) -> Result<(), ImageError> {
        phases.reused = u32::try_from(self.plan.layers.len() - missing.0.len()).unwrap_or(u32::MAX);
        let mut made = self.make_durable(missing.ours().collect(), phases).await?;
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
                    for made in self.make_durable(vec![layer], phases).await? {
                        self.commit(made).await?;
                    }
                    return Ok(());
                }
            }
        }
    }

    /// Unpacks all of `layers` onto the disk, and has their blobs kept.
    async fn make_durable<'p>(
        &self,
        layers: Vec<&'p PlannedLayer>,
        phases: &mut Phases,
    ) -> Result<Vec<Made<'p>>, ImageError> {
        let mut naming = Naming::new();
        let made = match self.make_all(layers, &mut naming).await {
            Ok(made) => made,
            Err(error) => {
                // What containerd is still at would come back after it was thrown away.
                let ended = async { while naming.join_next().await.is_some() {} };
                self.request.stop.run_until_cancelled(ended).await;
                return Err(error);
            }
        };
        for one in &made {
            one.count(phases);
        }
        let named = async {
            let mut all = Ok(());
            while let Some(named) = naming.join_next().await {
                all = all.and(named.unwrap_or(Err(ImageError::Stopped)));
            }
            all
        };
        let begun = Instant::now();
        let synced = async {
            let synced = self.direct.sync(self.root).await;
            early_file::let_go().await;
            (synced, begun.elapsed())
        };
        let ((synced, took), named) = tokio::join!(synced, named);
        synced.and(named)?;
        phases.add(Phase::Sync, took, 0);
        phases.add(Phase::Commit, begun.elapsed().saturating_sub(took), 0);
        Ok(made)
    }

    /// Unpacks all of `layers`, some at a time, the largest first: a large one that begins last would end alone. When one
    /// fails, the others are ended, and have let go of all that they wrote when this returns.
    async fn make_all<'p>(
        &self,
        mut layers: Vec<&'p PlannedLayer>,
        naming: &mut Naming,
    ) -> Result<Vec<Made<'p>>, ImageError> {
        layers.sort_by_key(|layer| std::cmp::Reverse(layer.descriptor.size));
        // Boxed, or the compiler can't tell that the whole may go from thread to thread.
        let halt = self.request.stop.child_token();
        let jobs: Vec<BoxFuture<'_, Result<Made<'p>, ImageError>>> =
            layers.into_iter().map(|layer| self.make(layer, &halt).boxed()).collect();
        let mut all = Vec::with_capacity(jobs.len());
        let mut failed = None;
        let mut jobs = stream::iter(jobs).buffer_unordered(self.direct.layers_at_once);
        while let Some(made) = jobs.next().await {
            match made {
                Ok(mut made) => {
                    if let Some(kept) = made.kept.take() {
                        naming.spawn(kept.commit());
                    }
                    all.push(made);
                }
                Err(error) => {
                    halt.cancel();
                    failed.get_or_insert(error);
                }
            }
        }
        failed.map_or(Ok(all), Err)
    }

    async fn make<'p>(
        &self,
        layer: &'p PlannedLayer,
        halt: &CancellationToken,
    ) -> Result<Made<'p>, ImageError> {
        // Before the fetch: a layer that held memory and waited for its threads could keep another's bytes from coming.
        let slot = halt.run_until_cancelled(self.direct.slots.acquire()).await;
        let _slot = slot.and_then(Result::ok).ok_or(ImageError::Stopped)?;
        let mut attempt = Attempt::FIRST;
        loop {
            let scratch = self.work.scratch().await?;
            let error = match self.fill(layer, attempt, &scratch, halt).await {
                Ok((done, kept)) => return Ok(Made { layer, scratch, done, kept }),
                Err(error) => error,
            };
            self.work.discard(scratch).await?;
            let next = attempt.after(&error, self.request.repository.has_mirrors());
            match next {
                Some(next) if !halt.is_cancelled() => attempt = next,
                _ => return Err(error),
            }
            self.direct.metrics.retried(error.kind());
            tracing::warn!(error = chain(&error), from = ?attempt.from, "a layer came wrong; it's fetched anew");
        }
    }

    /// Fetches, checks and unpacks one layer into `scratch`, and keeps its blob where containerd keeps them.
    async fn fill(
        &self,
        layer: &PlannedLayer,
        attempt: Attempt,
        scratch: &Scratch,
        halt: &CancellationToken,
    ) -> Result<Filled, ImageError> {
        let blob = &layer.descriptor;
        let by_file = &self.direct.by_file;
        let (source, mut keeping): (Arc<dyn RangeSource>, _) = match self.whence(layer, halt).await? {
            Blob::Here => (Arc::new(LocalBlob::new(self.direct.containerd.clone(), blob.digest)), None),
            Blob::Away(flight) => {
                let keeping = match flight {
                    Some(flight) => {
                        Keeping::begin(self.work, blob, self.content_root, by_file, flight).await?
                    }
                    None => None,
                };
                let repository = self.request.repository;
                let source = match attempt.from {
                    Whence::AnyHost => repository.blob(blob),
                    Whence::RegistryItself => repository.blob_past_mirrors(blob),
                };
                (source, keeping)
            }
        };
        let filled = self.pour(layer, scratch, source, keeping.as_mut(), halt).await;
        match (filled, keeping) {
            (Ok(done), keeping) => Ok((done, keeping.map(|keeping| keeping.done(self.labels(layer))))),
            (Err(error), keeping) => {
                if let Some(keeping) = keeping {
                    self.request.stop.run_until_cancelled(keeping.let_go()).await;
                }
                Err(error)
            }
        }
    }

    /// Has the bytes of `source` checked, unpacked into `scratch` and kept.
    async fn pour(
        &self,
        layer: &PlannedLayer,
        scratch: &Scratch,
        source: Arc<dyn RangeSource>,
        mut keeping: Option<&mut Keeping>,
        halt: &CancellationToken,
    ) -> Result<LayerDone, ImageError> {
        let blob = &layer.descriptor;
        let copy = keeping.as_mut().and_then(|keeping| keeping.take_file());
        let job = self.job(layer, scratch, copy)?;
        // When one of them fails, the others end with it; whichever said why is believed.
        let ending = halt.child_token();
        let (fetched, mut pieces) = mpsc::channel::<Piece>(1);
        let fetch =
            self.direct.engine.fetch_in_order(source, blob.size, fetched, self.request.progress, &ending);
        let passing = keeping.filter(|keeping| !keeping.is_by_file()).map(|keeping| {
            let (tee, both) = mpsc::channel::<Piece>(1);
            keeping.pass(std::mem::replace(&mut pieces, both), tee)
        });
        let unpack = async {
            let done = process(job, pieces, &self.direct.threads, &ending).await;
            if done.is_err() {
                ending.cancel();
            }
            done
        };
        let (fetched, passed, done) = tokio::join!(fetch, OptionFuture::from(passing), unpack);
        if halt.is_cancelled() {
            return Err(ImageError::Stopped);
        }
        let why =
            |cause| ImageError::Fetch { image: self.image(), layer: blob.digest, cause: Box::new(cause) };
        let passed = passed.unwrap_or(Ok(()));
        match (done, passed, fetched) {
            (Ok(done), passed, _) => passed.map(|()| done),
            // Its bytes ended because of one of the others.
            (Err(LayerError::Cut | LayerError::Stopped), Err(error), _) => Err(error),
            (Err(LayerError::Cut | LayerError::Stopped), _, Err(cause)) => Err(why(cause)),
            (Err(cause), ..) => Err(self.failed(layer, cause)),
        }
    }

    /// Where the blob is to be had. Whoever else brings it just now, for a layer at another place, is waited for.
    async fn whence(&self, layer: &PlannedLayer, halt: &CancellationToken) -> Result<Blob, ImageError> {
        let blob = &layer.descriptor;
        loop {
            if self.work.has_blob(blob).await? {
                return Ok(Blob::Here);
            }
            if !self.keeps_blobs {
                return Ok(Blob::Away(None));
            }
            match self.direct.blob_flights.claim(blob.digest) {
                Claim::Theirs(landing) => {
                    halt.run_until_cancelled(landing.wait()).await.ok_or(ImageError::Stopped)?;
                }
                // It may have landed in between.
                Claim::Mine(_) if self.work.has_blob(blob).await? => return Ok(Blob::Here),
                Claim::Mine(flight) => {
                    let is_adopted = match self.content_root {
                        Some(root) => self.work.adopt_blob(blob, root, &self.labels(layer)).await?,
                        None => false,
                    };
                    return Ok(if is_adopted { Blob::Here } else { Blob::Away(Some(flight)) });
                }
            }
        }
    }

    /// Throws away what is half-written of the image's blobs, and nobody's.
    pub(super) async fn throw_away(&self) {
        for layer in self.plan.layers.iter().filter(|_| self.keeps_blobs) {
            let blob = layer.descriptor.digest;
            let Claim::Mine(_flight) = self.direct.blob_flights.claim(blob) else { continue };
            if let Err(error) = self.direct.containerd.throw_away(blob).await {
                tracing::debug!(%blob, error = chain(&error), "a half-written blob stays");
            }
        }
    }

    /// What the layer's threads are to do.
    fn job(
        &self,
        layer: &PlannedLayer,
        scratch: &Scratch,
        copy: Option<EarlyFile>,
    ) -> Result<LayerJob<Unpacker>, ImageError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let root = rustix::fs::open(&scratch.dir, flags, Mode::empty())
            .map_err(|errno| CommitError::NoAccess { root: scratch.dir.clone(), cause: errno.into() })?;
        let limits = Limits { room: self.direct.room(self.root), ..Limits::default() };
        let sink = match layer.parent {
            Some(_) => Unpacker::new(root, limits),
            None => Unpacker::lowest(root, limits),
        };
        Ok(LayerJob {
            compression: layer.compression,
            blob: layer.descriptor.digest,
            size: layer.descriptor.size,
            diff: layer.diff,
            sink: sink.map_err(|cause| self.failed(layer, LayerError::Unpack(cause)))?,
            copy,
        })
    }

    fn failed(&self, layer: &PlannedLayer, cause: LayerError) -> ImageError {
        let digest = layer.descriptor.digest;
        ImageError::Layer { image: self.image(), layer: digest, cause: Box::new(cause) }
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

    fn labels(&self, layer: &PlannedLayer) -> BTreeMap<String, String> {
        let source = labels::of_source(self.request.asked.reference);
        labels::of_layer(layer.diff).into_iter().chain(source).collect()
    }

    fn image(&self) -> String {
        self.request.asked.reference.to_string()
    }
}
