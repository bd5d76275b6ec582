//! The layers of one image: all that are missing at once, then their snapshots one upon the other.

use std::path::Path;

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::flights::{Claim, Flight, Landing};
use super::one_layer::Made;
use super::plan::{ImagePlan, PlannedLayer};
use super::puller::{Direct, Request};
use super::{Phase, Phases, waves};
use crate::image::ImageError;
use crate::image::commit::{CommitLayer, Workplace};
use crate::image::early_file;
use crate::rt::chain;

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

/// Layers that are put onto the disk and committed together.
type Wave<'a> = Vec<Lack<'a>>;

impl<'a> Lack<'a> {
    fn ours(&self) -> Option<&'a PlannedLayer> {
        match self {
            Self::Ours(layer, _) => Some(layer),
            Self::Theirs(..) => None,
        }
    }

    /// What we fetch for it, packed.
    fn packed(&self) -> u64 {
        self.ours().map_or(0, |layer| layer.descriptor.size)
    }
}

impl<'a> Missing<'a> {
    /// The bytes of the layers that we make, packed.
    pub(super) fn packed(&self) -> u64 {
        self.0.iter().map(Lack::packed).fold(0, u64::saturating_add)
    }

    fn waves(self) -> Vec<Wave<'a>> {
        let sizes: Vec<u64> = self.0.iter().map(Lack::packed).collect();
        let mut lacks = self.0.into_iter();
        waves::cut(&sizes).into_iter().map(|layers| lacks.by_ref().take(layers).collect()).collect()
    }
}

/// The order in which they begin: wave by wave, the largest of each first, since a large one that begins last ends alone.
fn in_order<'a>(waves: &[Wave<'a>]) -> Vec<&'a PlannedLayer> {
    let ordered = waves.iter().flat_map(|wave| {
        let mut ours: Vec<_> = wave.iter().filter_map(Lack::ours).collect();
        ours.sort_by_key(|layer| std::cmp::Reverse(layer.descriptor.size));
        ours
    });
    ordered.collect()
}

/// The layers that were made, in the order in which they were ready.
struct Ready<'a> {
    from: mpsc::UnboundedReceiver<Made<'a>>,
    /// Of later waves.
    early: Vec<Made<'a>>,
}

impl<'a> Ready<'a> {
    /// All of ours in `wave`, once they are there.
    async fn all_of(&mut self, wave: &Wave<'a>) -> Result<Vec<Made<'a>>, ImageError> {
        let is_in = |made: &mut Made<'_>| {
            wave.iter().filter_map(Lack::ours).any(|layer| layer.chain == made.layer.chain)
        };
        let wanted = wave.iter().filter_map(Lack::ours).count();
        let mut all: Vec<Made<'a>> = self.early.extract_if(.., is_in).collect();
        while all.len() < wanted {
            let Some(mut made) = self.from.recv().await else {
                // One of them failed.
                self.early.append(&mut all);
                return Err(ImageError::Stopped);
            };
            if is_in(&mut made) { all.push(made) } else { self.early.push(made) }
        }
        Ok(all)
    }

    /// Returns when containerd is done with all that nobody took.
    async fn end(&mut self) {
        while let Ok(made) = self.from.try_recv() {
            self.early.push(made);
        }
        for mut made in self.early.drain(..) {
            made.named().await.ok();
        }
    }
}

impl Pull<'_> {
    /// Returns once every layer's snapshot is committed and on the disk: those at the bottom while others are still under way,
    /// so that a run that dies has done something, and the end isn't all that is left to do.
    pub(super) async fn bring(&self, missing: Missing<'_>, phases: &mut Phases) -> Result<(), ImageError> {
        phases.reused = u32::try_from(self.plan.layers.len() - missing.0.len()).unwrap_or(u32::MAX);
        let waves = missing.waves();
        let halt = self.request.stop.child_token();
        let (finished, from) = mpsc::unbounded_channel();
        let mut ready = Ready { from, early: Vec::new() };
        let making = self.make_all(in_order(&waves), &halt, finished);
        let settling = async {
            for wave in waves {
                if let Err(error) = self.settle(wave, &mut ready, &halt, phases).await {
                    halt.cancel();
                    return Err(error);
                }
            }
            Ok(())
        };
        let (made, settled) = tokio::join!(making, settling);
        let outcome = match (made, settled) {
            // They were stopped because of the other.
            (Err(ImageError::Stopped), Err(error)) => Err(error),
            (made, settled) => made.and(settled),
        };
        if outcome.is_err() {
            // What containerd is still at would come back after it was thrown away.
            self.request.stop.run_until_cancelled(ready.end()).await;
        }
        outcome
    }

    /// Commits a wave once its layers are there and on the disk, from the bottom up: each is released for others as soon as it
    /// stands.
    async fn settle<'p>(
        &self,
        wave: Wave<'p>,
        ready: &mut Ready<'p>,
        halt: &CancellationToken,
        phases: &mut Phases,
    ) -> Result<(), ImageError> {
        let mut made = ready.all_of(&wave).await?;
        self.make_durable(&mut made, phases).await?;
        let begun = Instant::now();
        for one in wave {
            match one {
                Lack::Ours(layer, flight) => {
                    if let Some(at) = made.iter().position(|made| made.layer.chain == layer.chain) {
                        self.commit(made.swap_remove(at)).await?;
                    }
                    drop(flight);
                }
                Lack::Theirs(layer, landing) => {
                    // Not for another pull's sake, once one of ours has failed.
                    halt.run_until_cancelled(landing.wait()).await.ok_or(ImageError::Stopped)?;
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
                    let mut made = self.make(layer, &self.request.stop.child_token()).await?;
                    self.make_durable(std::slice::from_mut(&mut made), phases).await?;
                    return self.commit(made).await;
                }
            }
        }
    }

    /// Puts what was made onto the disk, and returns when its blobs have their names, too.
    async fn make_durable(&self, made: &mut [Made<'_>], phases: &mut Phases) -> Result<(), ImageError> {
        for one in made.iter() {
            one.count(phases);
        }
        let begun = Instant::now();
        let synced = async {
            let synced = self.direct.sync(self.root).await;
            early_file::let_go().await;
            (synced, begun.elapsed())
        };
        let named = async {
            let mut all = Ok(());
            for one in made {
                all = all.and(one.named().await);
            }
            all
        };
        let ((synced, took), named) = tokio::join!(synced, named);
        synced.and(named)?;
        phases.add(Phase::Sync, took, 0);
        phases.add(Phase::Commit, begun.elapsed().saturating_sub(took), 0);
        Ok(())
    }

    /// Unpacks all of `layers`, some at a time. When one fails, the others are ended, and have let go of all that they wrote
    /// when this returns.
    async fn make_all<'p>(
        &self,
        layers: Vec<&'p PlannedLayer>,
        halt: &CancellationToken,
        finished: mpsc::UnboundedSender<Made<'p>>,
    ) -> Result<(), ImageError> {
        // Boxed, or the compiler can't tell that the whole may go from thread to thread.
        let jobs: Vec<BoxFuture<'_, Result<Made<'p>, ImageError>>> =
            layers.into_iter().map(|layer| self.make(layer, halt).boxed()).collect();
        let mut failed = None;
        let mut jobs = stream::iter(jobs).buffer_unordered(self.direct.layers_at_once);
        while let Some(made) = jobs.next().await {
            match made {
                // Who would receive it has failed, and so will the others.
                Ok(made) => drop(finished.send(made)),
                Err(error) => {
                    halt.cancel();
                    failed.get_or_insert(error);
                }
            }
        }
        failed.map_or(Ok(()), Err)
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

    pub(super) fn image(&self) -> String {
        self.request.asked.reference.to_string()
    }
}
