use std::collections::BTreeMap;
use std::path::PathBuf;

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
        let checked = match upper_dir(&mounts).filter(|dir| dir.starts_with(&self.snapshotter.root)) {
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

    pub(super) fn unknown_mounts(&self, mounts: &[Mount]) -> CommitError {
        CommitError::Mounts { snapshotter: self.snapshotter.name.clone(), mounts: format!("{mounts:?}") }
    }
}
