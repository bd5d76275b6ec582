//! One layer on its way: its bytes are fetched, checked and unpacked into a scratch snapshot, and its blob is kept where
//! containerd keeps them.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::OptionFuture;
use rustix::fs::{Mode, OFlags};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::attempt::{Attempt, Whence};
use super::flights::{Claim, Flight};
use super::keeping::{Keeping, Kept};
use super::layers::Pull;
use super::local::LocalBlob;
use super::plan::PlannedLayer;
use super::{Phase, Phases};
use crate::fetch::Piece;
use crate::image::ImageError;
use crate::image::commit::{CommitError, Scratch, labels};
use crate::image::early_file::EarlyFile;
use crate::image::layer::{LayerDone, LayerError, LayerJob, process};
use crate::image::unpack::{Limits, Unpacker};
use crate::rt::chain;
use crate::source::RangeSource;

/// A layer that we have unpacked.
pub(super) struct Made<'a> {
    pub(super) layer: &'a PlannedLayer,
    pub(super) scratch: Scratch,
    pub(super) done: LayerDone,
    /// Its blob gets its name, where containerd wants it too.
    naming: Option<JoinHandle<Result<(), ImageError>>>,
}

impl Made<'_> {
    /// Returns when its blob has its name.
    pub(super) async fn named(&mut self) -> Result<(), ImageError> {
        match self.naming.take() {
            Some(naming) => naming.await.unwrap_or(Err(ImageError::Stopped)),
            None => Ok(()),
        }
    }

    pub(super) fn count(&self, phases: &mut Phases) {
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

impl Pull<'_> {
    pub(super) async fn make<'p>(
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
                Ok((done, kept)) => {
                    // While other layers are at work.
                    let naming = kept.map(|kept| tokio::spawn(kept.commit()));
                    return Ok(Made { layer, scratch, done, naming });
                }
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

    fn labels(&self, layer: &PlannedLayer) -> BTreeMap<String, String> {
        let source = labels::of_source(self.request.asked.reference);
        labels::of_layer(layer.diff).into_iter().chain(source).collect()
    }
}
