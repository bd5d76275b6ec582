//! An image pulled by containerd itself, through CRI as the kubelet would: what our own path can't do.

use std::collections::BTreeSet;

use super::ImageError;
use super::asked::Asked;
use crate::containerd::{Containerd, ContainerdError};
use crate::types::{ErrorKind, ImageRef, RegistryAuth};

/// Pulls what is asked for with the first of `keys` that the registry takes; without any, anonymously.
///
/// Dropping the future makes containerd stop; nothing half-done has a name.
///
/// # Errors
/// When the pull fails; a blob that came with wrong bytes has been given one more chance.
pub(super) async fn pull(
    containerd: &Containerd,
    asked: Asked<'_>,
    keys: &[RegistryAuth],
) -> Result<(), ImageError> {
    let reference = asked.reference;
    let mut refetched = BTreeSet::new();
    let pulled = loop {
        let pulled = pull_with(containerd, reference, keys).await;
        let Some(blob) = pulled.as_ref().err().and_then(ContainerdError::spoiled_ingest) else {
            break pulled;
        };
        tracing::warn!(image = %reference, blob, "a blob came with wrong bytes; they are thrown away");
        containerd.abort_ingest(blob).await?;
        // Each blob gets one more chance: its bytes may be left over from somebody's earlier pull.
        if !refetched.insert(blob.to_owned()) {
            break pulled;
        }
    };
    match pulled {
        Ok(()) => Ok(()),
        Err(cause) if cause.is_daemon_away() => Err(cause.into()),
        Err(cause) => {
            let advice = asked.advice(cause.kind());
            Err(ImageError::Pull { image: reference.to_string(), advice, cause })
        }
    }
}

/// Pulls with each of `keys`, in order, until the registry takes one; without any, anonymously.
async fn pull_with(
    containerd: &Containerd,
    reference: &ImageRef,
    keys: &[RegistryAuth],
) -> Result<(), ContainerdError> {
    let mut pulled = containerd.pull_image(reference, keys.first()).await;
    for key in keys.iter().skip(1) {
        match &pulled {
            Err(error) if error.kind() == ErrorKind::Denied => {
                pulled = containerd.pull_image(reference, Some(key)).await;
            }
            _ => break,
        }
    }
    pulled.map(drop)
}
