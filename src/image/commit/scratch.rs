use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::workplace::OURS;
use super::{CommitError, Workplace, access};
use crate::containerd::{ContainerdError, Mount, upper_dir};

/// How a directory that shouldn't be there shows in containerd's words: Go refuses to rename onto one.
const IN_THE_WAY: &str = "file exists";

/// An empty directory to unpack a layer into: that of a snapshot without a parent, so that containerd itself cleans it
/// up, whatever happens to us.
#[derive(Debug)]
pub struct Scratch {
    /// The snapshot's key.
    pub key: String,
    /// The directory, `<root>/snapshots/N/fs`.
    pub dir: PathBuf,
}

impl Workplace {
    /// Makes an empty directory to unpack a layer into.
    ///
    /// # Errors
    /// When a call fails; [`CommitError::NoAccess`] where this process can't write there what layers hold, or the
    /// directory can't be moved; [`CommitError::Mounts`] where the snapshotter doesn't give a plain directory.
    pub async fn scratch(&self) -> Result<Scratch, CommitError> {
        let key = format!("{OURS}scratch-{:016x}", fastrand::u64(..));
        let name = &self.snapshotter.name;
        let mounts = self.prepare(&key, None, &BTreeMap::new()).await?;
        let checked = match upper_dir(&mounts).filter(|dir| self.is_snapshot(dir)) {
            Some(dir) => access::check_scratch(&self.snapshotter.root, &dir).await.map(|()| dir),
            None => Err(self.unknown_mounts(&mounts)),
        };
        match checked {
            Ok(dir) => Ok(Scratch { key, dir }),
            Err(error) => {
                self.containerd.remove_snapshot(name, &key).await?;
                Err(error)
            }
        }
    }

    /// Prepares a snapshot. A containerd that was killed while it made one has left a directory in the way of the next; it
    /// fails on that, but removes it (`createSnapshot` in `snapshots/overlay`), so that the next try does it.
    pub(super) async fn prepare(
        &self,
        key: &str,
        parent: Option<&str>,
        labels: &BTreeMap<String, String>,
    ) -> Result<Vec<Mount>, ContainerdError> {
        let name = &self.snapshotter.name;
        let mut tries = 3;
        loop {
            tries -= 1;
            match self.containerd.prepare_snapshot(&self.lease, name, key, parent, labels).await {
                Err(ContainerdError::Call { message, .. }) if tries > 0 && message.contains(IN_THE_WAY) => {
                    tracing::debug!(%message, "a directory that was in containerd's way is gone; once more");
                }
                prepared => return prepared,
            }
        }
    }

    /// Takes back a directory that isn't needed any more.
    ///
    /// # Errors
    /// When the call fails. It goes with the lease then.
    pub async fn discard(&self, scratch: Scratch) -> Result<(), CommitError> {
        Ok(self.containerd.remove_snapshot(&self.snapshotter.name, &scratch.key).await?)
    }

    /// Whether `dir` is where overlayfs has the files of a snapshot: `<root>/snapshots/N/fs`.
    pub(super) fn is_snapshot(&self, dir: &Path) -> bool {
        let Ok(below) = dir.strip_prefix(self.snapshotter.root.join("snapshots")) else { return false };
        let mut parts = below.iter();
        let number =
            parts.next().and_then(|part| part.to_str()).is_some_and(|part| part.parse::<u64>().is_ok());
        number && parts.next().is_some_and(|part| part == "fs") && parts.next().is_none()
    }

    pub(super) fn unknown_mounts(&self, mounts: &[Mount]) -> CommitError {
        CommitError::Mounts { snapshotter: self.snapshotter.name.clone(), mounts: format!("{mounts:?}") }
    }
}
