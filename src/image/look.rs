use super::ImageError;
use super::presence::{chain_id, diff_ids};
use crate::containerd::{Containerd, ImageRecord, SnapshotStamp};
use crate::types::{Digest, ImageRef};

/// What containerd has of one image, before it's known to be on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) target: Digest,
    pub(super) config: Digest,
    pub(super) top: Top,
}

/// The snapshot a container would be started from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Top {
    /// The image has no layers, so there is nothing to unpack.
    NotNeeded,
    /// It isn't there: the image is a name without unpacked bytes.
    Missing,
    /// It is there, since then.
    There(Digest, SnapshotStamp),
}

/// Looks `reference` up: a record of that name, CRI's word on it, its configuration, its top snapshot. `None` is an
/// image that isn't there.
pub(super) async fn look(
    containerd: &Containerd,
    snapshotter: &str,
    records: &[ImageRecord],
    reference: &ImageRef,
) -> Result<Option<Seen>, ImageError> {
    let name = reference.to_string();
    let Some(record) = records.iter().find(|record| record.name == name) else { return Ok(None) };
    let Some(image) = containerd.image_status(reference).await? else { return Ok(None) };
    let seen = |top| Some(Seen { target: record.target, config: image.config, top });
    // A record whose configuration has gone can't start a container, whatever CRI remembers of it.
    let Some(config) = containerd.read_blob(image.config).await? else { return Ok(seen(Top::Missing)) };
    let diff_ids = diff_ids(&config).map_err(|cause| ImageError::Configuration {
        image: name.clone(),
        config: image.config,
        cause,
    })?;
    let Some(chain) = chain_id(&diff_ids) else { return Ok(seen(Top::NotNeeded)) };
    let made = containerd.snapshot(snapshotter, chain).await?;
    Ok(seen(made.map_or(Top::Missing, |made| Top::There(chain, made))))
}
