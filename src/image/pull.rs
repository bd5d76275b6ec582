use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::credentials::Keyring;
use super::look::{Seen, Top, look};
use super::pins::{MARK, PIN, is_ours, needs_pin};
use super::{ImageError, ImagesHandle};
use crate::containerd::{Containerd, ContainerdError};
use crate::list::ImageGoods;
use crate::types::{Digest, ErrorKind, ImageRef, Progress, RegistryAuth, Revision};

/// Brings images into containerd through CRI, as the kubelet would, and pins and unpins them.
#[derive(Debug, Clone)]
pub struct Puller {
    containerd: Containerd,
    images: ImagesHandle,
    credentials_dir: Option<Arc<Path>>,
}

/// An image that is warm now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WarmImage {
    /// What its reference points at.
    pub revision: Revision,
    /// Whether anything had to be pulled or unpacked for it: false where it was warm already and its tag, if that was
    /// asked for again, still points at the same.
    pub pulled: bool,
}

impl Puller {
    /// A puller that keeps the image task behind `images` informed, and finds credentials in the directories under
    /// `credentials_dir`.
    #[must_use]
    pub fn new(containerd: Containerd, images: ImagesHandle, credentials_dir: Option<PathBuf>) -> Self {
        Self { containerd, images, credentials_dir: credentials_dir.map(Into::into) }
    }

    /// Returns once the image is warm: pulled, unpacked, on the disk, pinned if it's to be, and shown so by the image
    /// task. What is there already isn't pulled again, except that with `recheck` a tag is resolved again (which costs
    /// a manifest where the layers are there). An image that was warm stays so when that fails.
    ///
    /// CRI reports no bytes, so `progress` stays as it is. It can be dropped at any time; containerd then stops its
    /// pull and nothing half-done has a name.
    ///
    /// # Errors
    /// See [`ImageError`]. There are no retries in here, except one for each blob that came with wrong bytes.
    pub async fn ensure(
        &self,
        goods: &ImageGoods,
        credentials: Option<&str>,
        recheck: bool,
        _progress: &Progress,
        stop: &CancellationToken,
    ) -> Result<WarmImage, ImageError> {
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(ImageError::Stopped),
            outcome = self.warm(goods, credentials, recheck) => outcome,
        }
    }

    async fn warm(
        &self,
        goods: &ImageGoods,
        credentials: Option<&str>,
        recheck: bool,
    ) -> Result<WarmImage, ImageError> {
        let reference = &goods.reference;
        let snapshotter = self.containerd.snapshotter().await?;
        let before = self.look(&snapshotter.name, reference).await?.filter(Seen::is_unpacked);
        let seen = match before {
            Some(seen) if !(recheck && reference.tag().is_some()) => seen,
            _ => {
                self.pull(reference, credentials).await?;
                self.look(&snapshotter.name, reference)
                    .await?
                    .ok_or_else(|| ImageError::NotShown { image: reference.to_string() })?
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
        Ok(WarmImage {
            revision: Revision::of_image(seen.target),
            pulled: before.is_none_or(|before| before.target != seen.target),
        })
    }

    async fn look(&self, snapshotter: &str, reference: &ImageRef) -> Result<Option<Seen>, ImageError> {
        let records: Vec<_> = self.containerd.record(&reference.to_string()).await?.into_iter().collect();
        look(&self.containerd, snapshotter, &records, reference).await
    }

    async fn pull(&self, reference: &ImageRef, credentials: Option<&str>) -> Result<(), ImageError> {
        let keys = self.credentials(reference, credentials).await?;
        let mut refetched = BTreeSet::new();
        let pulled = loop {
            let pulled = self.pull_with(reference, &keys).await;
            let Some(blob) = pulled.as_ref().err().and_then(ContainerdError::spoiled_ingest) else {
                break pulled;
            };
            tracing::warn!(image = %reference, blob, "a blob came with wrong bytes; they are thrown away");
            self.containerd.abort_ingest(blob).await?;
            // Each blob gets one more chance: its bytes may be left over from somebody's earlier pull.
            if !refetched.insert(blob.to_owned()) {
                break pulled;
            }
        };
        match pulled {
            Ok(()) => Ok(()),
            Err(cause) if cause.is_daemon_away() => Err(cause.into()),
            Err(cause) => Err(ImageError::Pull {
                image: reference.to_string(),
                advice: advice(&cause, reference, credentials, keys.len()),
                cause,
            }),
        }
    }

    /// Pulls with each of `keys`, in order, until the registry takes one; without any, anonymously.
    async fn pull_with(&self, reference: &ImageRef, keys: &[RegistryAuth]) -> Result<(), ContainerdError> {
        let mut pulled = self.containerd.pull_image(reference, keys.first()).await;
        for key in keys.iter().skip(1) {
            match &pulled {
                Err(error) if error.kind() == ErrorKind::Denied => {
                    pulled = self.containerd.pull_image(reference, Some(key)).await;
                }
                _ => break,
            }
        }
        pulled.map(drop)
    }

    async fn credentials(
        &self,
        reference: &ImageRef,
        name: Option<&str>,
    ) -> Result<Vec<RegistryAuth>, ImageError> {
        let Some(name) = name else { return Ok(Vec::new()) };
        let Some(dir) = &self.credentials_dir else {
            return Err(ImageError::Credentials {
                name: name.to_owned(),
                problem: "there is no directory to look for it; give --credentials-dir".to_owned(),
            });
        };
        Ok(Keyring::read(dir, name).await?.candidates(reference))
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

impl Seen {
    fn is_unpacked(&self) -> bool {
        self.top != Top::Missing
    }
}

/// What to do about a pull that failed.
fn advice(cause: &ContainerdError, reference: &ImageRef, credentials: Option<&str>, keys: usize) -> String {
    let host = reference.domain();
    match cause.kind() {
        ErrorKind::NotFound => "no such image; check the name, the tag and the registry".to_owned(),
        ErrorKind::Denied => match (credentials, keys) {
            (None, _) => {
                format!(
                    "{host} denied it without credentials; name a mounted Secret for it under `credentials`"
                )
            }
            (Some(name), 0) => format!(
                "{host} denied it without credentials: {name:?} holds none that fit this image; add {host} to \
                 its auths"
            ),
            (Some(name), _) => {
                format!("{host} denied it with the credentials {name:?}; check them and what they may read")
            }
        },
        ErrorKind::Throttled { .. } => {
            format!("{host} asks for fewer requests; it is tried again later")
        }
        ErrorKind::NoSpace => "the disk of containerd is full; free space or list less".to_owned(),
        ErrorKind::Unsupported => "containerd can't use this image on this node".to_owned(),
        ErrorKind::Invalid => "containerd refuses the reference; correct it in the list".to_owned(),
        ErrorKind::Transient
        | ErrorKind::Changed
        | ErrorKind::Corrupt
        | ErrorKind::Cancelled
        | ErrorKind::Local => {
            format!(
                "the pull failed; check that this node reaches {host} (containerd's hosts.toml, proxy, CA)"
            )
        }
    }
}
