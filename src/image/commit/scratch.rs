use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::workplace::OURS;
use super::{CommitError, Workplace, access};
use crate::containerd::{Mount, upper_dir};

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
        let mounts =
            self.containerd.prepare_snapshot(&self.lease, name, &key, None, &BTreeMap::new()).await?;
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
