use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::asked::Asked;
use super::by_containerd;
use super::credentials::Credentials;
use super::direct::{Direct, Request, Unable};
use super::look::{Seen, Top, look};
use super::pins::{MARK, PIN, is_ours, needs_pin};
use super::{ImageError, ImagesHandle, PullSettings};
use crate::containerd::{Containerd, ContainerdError, Daemon};
use crate::fetch::{Engine, Urgency};
use crate::list::ImageGoods;
use crate::rt::{self, Metrics};
use crate::source::registry::Repository;
use crate::types::{Digest, ErrorKind, ImageRef, Progress, RegistryAuth, Revision};

/// Brings images into containerd, and pins and unpins them.
#[derive(Debug, Clone)]
pub struct Puller {
    containerd: Containerd,
    images: ImagesHandle,
    credentials: Credentials,
    direct: Direct,
    metrics: Arc<Metrics>,
    /// Every image is left to containerd.
    only_containerd: bool,
    /// Where the host's `/` is.
    host_root: PathBuf,
}

/// An image that is warm now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmImage {
    /// What its reference points at.
    pub revision: Revision,
    /// Whether anything had to be pulled or unpacked for it: false where it was warm already and its tag, if that was
    /// asked for again, still points at the same.
    pub pulled: bool,
    /// Why containerd had to pull it, if it had to.
    pub unable: Option<Unable>,
}

impl Puller {
    /// A puller that keeps the image task behind `images` informed, moves bytes by `engine`, and counts in `metrics`.
    ///
    /// # Errors
    /// When the system's CA certificates can't be read, or threads' limits can't be told.
    pub fn new(
        containerd: Containerd,
        images: ImagesHandle,
        engine: Engine,
        metrics: Arc<Metrics>,
        settings: PullSettings,
    ) -> Result<Self, ImageError> {
        let host_root = settings.host_root.clone();
        let credentials = Credentials::new(
            settings.sources.credentials_dir.clone(),
            settings.providers.clone(),
            Some(host_root.clone()),
        );
        let only_containerd = settings.only_containerd;
        let direct = Direct::new(containerd.clone(), engine, Arc::clone(&metrics), settings)?;
        Ok(Self { containerd, images, credentials, direct, metrics, only_containerd, host_root })
    }

    /// The same for an entry that matters so much beside others.
    #[must_use]
    pub fn with_urgency(&self, urgency: Urgency) -> Self {
        Self { direct: self.direct.with_urgency(urgency), ..self.clone() }
    }

    /// Returns once the image is warm: pulled, unpacked, on the disk, pinned if it's to be, and shown so by the image
    /// task. What is there already isn't pulled again, except that with `recheck` a tag is resolved again (one HEAD
    /// where it still points at the same). An image that was warm stays so when that fails.
    ///
    /// `progress` counts the compressed bytes of layers; where containerd pulls, it stays as it is. It can be dropped
    /// at any time; nothing half-done has a name.
    ///
    /// # Errors
    /// See [`ImageError`]. Requests and ranges are tried again in here, and layers that came with wrong bytes.
    pub async fn ensure(
        &self,
        goods: &ImageGoods,
        credentials: Option<&str>,
        recheck: bool,
        progress: &Progress,
        stop: &CancellationToken,
    ) -> Result<WarmImage, ImageError> {
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(ImageError::Stopped),
            outcome = self.warm(goods, credentials, recheck, progress, stop) => outcome,
        }
    }

    async fn warm(
        &self,
        goods: &ImageGoods,
        credentials: Option<&str>,
        recheck: bool,
        progress: &Progress,
        stop: &CancellationToken,
    ) -> Result<WarmImage, ImageError> {
        let reference = &goods.reference;
        let daemon = self.containerd.daemon(&self.host_root).await?;
        let snapshotter = &daemon.snapshotter;
        let before = self.look(&snapshotter.name, reference).await?.filter(Seen::is_unpacked);
        let (seen, unable) = match before {
            Some(seen) if !(recheck && reference.tag().is_some()) => (seen, None),
            _ => {
                let bringing = Bringing { goods, credentials, daemon: &daemon, before, progress, stop };
                let unable = self.bring(bringing).await?;
                let seen = self.look(&snapshotter.name, reference).await?;
                (seen.ok_or_else(|| ImageError::NotShown { image: reference.to_string() })?, unable)
            }
        };
        if seen.top == Top::Missing {
            return Err(ImageError::NotUnpacked { image: reference.to_string() });
        }
        self.images.durable().settle(&snapshotter.root, &[seen]).await?;
        if goods.pin {
            self.pin(seen.target).await?;
        }
        self.images.refresh().await;
        let pulled = before.is_none_or(|before| before.target != seen.target);
        Ok(WarmImage { revision: Revision::of_image(seen.target), pulled, unable })
    }

    /// Makes the image what its reference points at now, by ourselves where we can.
    async fn bring(&self, bringing: Bringing<'_>) -> Result<Option<Unable>, ImageError> {
        let reference = &bringing.goods.reference;
        // As the kubelet does: a provider that fails keeps nobody from an image that needs none.
        let (auths, withheld) = match self.credentials.candidates(reference, bringing.credentials).await {
            Ok(auths) => (auths, None),
            Err(error @ (ImageError::Provider { .. } | ImageError::ProviderConfig { .. })) => {
                tracing::warn!(image = %reference, error = rt::chain(&error), "asking without credentials");
                (Vec::new(), Some(error))
            }
            Err(error) => return Err(error),
        };
        match (self.bring_as(&bringing, auths).await, withheld) {
            (Err(error), Some(withheld)) if error.kind() == ErrorKind::Denied => Err(withheld),
            (brought, _) => brought,
        }
    }

    async fn bring_as(
        &self,
        bringing: &Bringing<'_>,
        auths: Vec<RegistryAuth>,
    ) -> Result<Option<Unable>, ImageError> {
        let Bringing { goods, credentials, daemon, before, progress, stop } = *bringing;
        let reference = &goods.reference;
        let asked = Asked { reference, credentials, keys: auths.len() };
        let unable = match self.able(reference, daemon, &auths).await {
            Err(unable) => unable,
            Ok(repository) => {
                let target = repository.resolve().await.map_err(|cause| asked.failed(cause))?;
                if before.is_some_and(|before| before.target == target.digest) {
                    return Ok(None);
                }
                let request =
                    Request { asked, repository: &repository, daemon, pin: goods.pin, progress, stop };
                match self.direct.pull(target, request).await {
                    Ok(Ok(phases)) => {
                        tracing::info!(image = %reference, %phases, "pulled");
                        return Ok(None);
                    }
                    Ok(Err(unable)) => unable,
                    // It showed only at the first layer that this process can't write what layers hold.
                    Err(ImageError::Commit(error)) if error.kind() == ErrorKind::Unsupported => {
                        Unable::NoAccess(rt::chain(&error))
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        self.metrics.image_left(unable.code());
        tracing::info!(image = %reference, "{unable}");
        by_containerd::pull(&self.containerd, asked, &auths).await?;
        Ok(Some(unable))
    }

    /// Where the image can be had, if it's for us to fetch it.
    async fn able(
        &self,
        reference: &ImageRef,
        daemon: &Daemon,
        auths: &[RegistryAuth],
    ) -> Result<Repository, Unable> {
        if self.only_containerd {
            return Err(Unable::Told);
        }
        self.direct.check(daemon).await?;
        self.direct.repository(reference, daemon, auths.to_vec()).await
    }

    async fn look(&self, snapshotter: &str, reference: &ImageRef) -> Result<Option<Seen>, ImageError> {
        let records: Vec<_> = self.containerd.record(&reference.to_string()).await?.into_iter().collect();
        look(&self.containerd, snapshotter, &records, reference).await
    }

    /// Pins every record of `target` that nobody has pinned yet: kubelet's garbage collection goes by image, which is
    /// pinned while any of its records is, and a pull by the kubelet takes the pin off the tag's.
    async fn pin(&self, target: Digest) -> Result<(), ContainerdError> {
        for record in self.containerd.records_of(target).await?.iter().filter(|record| needs_pin(record)) {
            let labels = [(PIN.0, Some(PIN.1)), (MARK.0, Some(MARK.1))];
            self.containerd.set_labels(record, &labels).await?;
        }
        Ok(())
    }

    /// Takes our pins off the records with these names; pins without our mark, and records that are gone, are left
    /// alone. The image task has seen it when this returns.
    ///
    /// # Errors
    /// When containerd doesn't do it; some may be off already.
    pub async fn unpin(&self, names: &[String]) -> Result<(), ImageError> {
        for name in names {
            if let Some(record) = self.containerd.record(name).await?.filter(is_ours) {
                self.containerd.set_labels(&record, &[(PIN.0, None), (MARK.0, None)]).await?;
            }
        }
        self.images.refresh().await;
        Ok(())
    }
}

/// An image that is not as it should be.
#[derive(Clone, Copy)]
struct Bringing<'a> {
    goods: &'a ImageGoods,
    credentials: Option<&'a str>,
    daemon: &'a Daemon,
    before: Option<Seen>,
    progress: &'a Progress,
    stop: &'a CancellationToken,
}

impl Seen {
    fn is_unpacked(&self) -> bool {
        self.top != Top::Missing
    }
}
