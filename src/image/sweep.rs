use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use futures::{StreamExt as _, TryStreamExt as _};

use super::durable::Durable;
use super::fullness::Use;
use super::look::{Seen, look};
use super::{ImageError, Images, Presence, pins};
use crate::containerd::{Containerd, ContainerdError, ImageRecord};
use crate::rt;
use crate::types::ImageRef;

/// How many images are looked up at once.
const LOOKUPS: usize = 8;

/// Asks containerd about every wanted image, and has the unpacked ones written to the disk. Gives the directory that has
/// them, too.
///
/// # Errors
/// When containerd can't be asked. What is wrong with one image only is the problem in the answer.
pub(super) async fn sweep(
    containerd: &Containerd,
    durable: &Durable,
    wanted: &BTreeSet<ImageRef>,
) -> Result<(Images, PathBuf), ContainerdError> {
    let snapshotter = containerd.snapshotter().await?;
    let records = containerd.records().await?;
    let mut looked = look_at_all(containerd, &snapshotter.name, &records, wanted).await?;
    let mut problems = Vec::new();
    looked.retain_mut(|(reference, looked)| match looked {
        Ok(seen) => seen.is_some(),
        Err(error) => {
            problems.push(format!("{reference}: {}", rt::chain(error)));
            false
        }
    });
    let seen: Vec<(ImageRef, Seen)> = looked
        .into_iter()
        .filter_map(|(reference, looked)| looked.ok().flatten().map(|seen| (reference, seen)))
        .collect();
    let all_seen: Vec<Seen> = seen.iter().map(|(_, seen)| *seen).collect();
    durable.keep_only(&all_seen).await;
    if let Err(error) = durable.settle(&snapshotter.root, &all_seen).await {
        problems.push(rt::chain(&error));
    }
    let settled = durable.which_settled(&all_seen).await;
    let by_ref = seen.into_iter().zip(settled).map(|((reference, seen), unpacked)| {
        (reference, Presence::new(seen.target, seen.config, unpacked, &records))
    });
    let images = Images {
        connected: true,
        asked: wanted.clone(),
        by_ref: by_ref.collect(),
        problem: (!problems.is_empty()).then(|| problems.join("; ")),
        our_pins: pins::ours(&records),
        fullness: fullness(&snapshotter.root),
    };
    Ok((images, snapshotter.root))
}

/// How full the disk is that `root` is on.
pub(super) fn fullness(root: &Path) -> Option<u8> {
    Use::of(root).ok().map(Use::percent)
}

type Looked = Vec<(ImageRef, Result<Option<Seen>, ImageError>)>;

async fn look_at_all(
    containerd: &Containerd,
    snapshotter: &str,
    records: &[ImageRecord],
    wanted: &BTreeSet<ImageRef>,
) -> Result<Looked, ContainerdError> {
    futures::stream::iter(wanted.clone())
        .map(|reference| async move {
            match look(containerd, snapshotter, records, &reference).await {
                // Then it isn't this image that can't be told, but all of them.
                Err(ImageError::Containerd(error)) if error.is_daemon_away() => Err(error),
                seen => Ok((reference, seen)),
            }
        })
        .buffered(LOOKUPS)
        .try_collect()
        .await
}
