use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use tokio::sync::Mutex;

use super::ImageError;
use super::look::{Seen, Top};
use crate::containerd::SnapshotStamp;
use crate::types::Digest;

/// Which unpacked images are known to be on the disk. containerd itself doesn't sync what it unpacks: after a power
/// cut its snapshots can be full of empty files, which no pull mends, because the snapshots still have their names.
#[derive(Debug, Clone, Default)]
pub(super) struct Durable(Arc<Mutex<BTreeMap<Digest, SnapshotStamp>>>);

impl Durable {
    /// Returns once the unpacked images among `seen` are on the disk: one syncfs of the snapshotter's file system for
    /// all that weren't before. Dropping the future leaves the syncfs running, to no harm.
    pub(super) async fn settle(&self, root: &Path, seen: &[Seen]) -> Result<(), ImageError> {
        let tops = || {
            seen.iter().filter_map(|seen| match seen.top {
                Top::There(chain, made) => Some((chain, made)),
                Top::Missing | Top::NotNeeded => None,
            })
        };
        let mut synced = self.0.lock().await;
        if tops().all(|(chain, made)| synced.get(&chain) == Some(&made)) {
            return Ok(());
        }
        sync(root).await?;
        synced.extend(tops());
        Ok(())
    }

    /// Which of these are usable: they need no snapshot, or theirs is known to be on the disk.
    pub(super) async fn which_settled(&self, seen: &[Seen]) -> Vec<bool> {
        let synced = self.0.lock().await;
        let settled = |seen: &Seen| match seen.top {
            Top::NotNeeded => true,
            Top::Missing => false,
            Top::There(chain, made) => synced.get(&chain) == Some(&made),
        };
        seen.iter().map(settled).collect()
    }

    /// Forgets all but `seen`, so that it doesn't grow with every image there ever was.
    pub(super) async fn keep_only(&self, seen: &[Seen]) {
        let keep =
            |chain: &Digest| seen.iter().any(|seen| matches!(seen.top, Top::There(top, _) if top == *chain));
        self.0.lock().await.retain(|chain, _| keep(chain));
    }
}

/// Returns once all that was written to the file system below `root` is on the disk: one syncfs, on a thread that may
/// wait. Dropping the future leaves it running, to no harm.
pub(super) async fn sync(root: &Path) -> Result<(), ImageError> {
    let path = root.to_path_buf();
    let synced = tokio::task::spawn_blocking(move || sync_file_system(&path)).await;
    synced
        .map_err(io::Error::other)
        .flatten()
        .map_err(|cause| ImageError::NotDurable { root: root.to_path_buf(), cause })
}

/// Writes the file system below `root` to the disk.
fn sync_file_system(root: &Path) -> io::Result<()> {
    // An empty directory at this path is a mount that is missing; syncing what lies under it would prove nothing.
    let snapshots = root.join("snapshots");
    let inside: PathBuf = if snapshots.is_dir() {
        snapshots
    } else {
        std::fs::read_dir(root)?.next().ok_or_else(|| io::Error::other("the directory is empty"))??.path()
    };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let fd = rustix::fs::open(inside, flags, Mode::empty())?;
    rustix::fs::syncfs(fd)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(top: Top) -> Seen {
        Seen { target: Digest::of(b"t"), config: Digest::of(b"c"), top }
    }

    fn there(name: &str, seconds: i64) -> Seen {
        seen(Top::There(Digest::of(name.as_bytes()), SnapshotStamp::new(seconds, 0)))
    }

    #[tokio::test]
    async fn what_was_synced_is_not_synced_again_until_it_is_unpacked_anew() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("snapshots")).unwrap();
        let durable = Durable::default();
        durable.settle(root.path(), &[there("a", 1)]).await.unwrap();
        let gone = Path::new("/nonexistent/snapshotter");
        durable.settle(gone, &[there("a", 1)]).await.unwrap();
        for again in [there("a", 2), there("b", 1)] {
            let error = durable.settle(gone, &[there("a", 1), again]).await.unwrap_err();
            assert!(matches!(error, ImageError::NotDurable { .. }));
            // What was on the disk before stays usable.
            assert_eq!(durable.which_settled(&[there("a", 1), again]).await, [true, false]);
        }
        durable.keep_only(&[there("b", 1)]).await;
        assert!(durable.settle(gone, &[there("a", 1)]).await.is_err());
    }

    #[tokio::test]
    async fn where_nothing_is_unpacked_there_is_nothing_to_sync() {
        let gone = Path::new("/nonexistent/snapshotter");
        Durable::default().settle(gone, &[seen(Top::Missing), seen(Top::NotNeeded)]).await.unwrap();
    }

    #[tokio::test]
    async fn an_empty_mount_point_is_not_the_snapshotter() {
        let root = tempfile::tempdir().unwrap();
        assert!(Durable::default().settle(root.path(), &[there("a", 1)]).await.is_err());
    }
}
