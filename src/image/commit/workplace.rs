use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use super::{CommitError, access, labels};
use crate::containerd::{BlobWriter, Containerd, ContainerdError, Lease, Snapshotter};
use crate::types::{Descriptor, Digest};

/// When garbage collection may take a lease that was never closed: also that of a node which lost us for good.
const LASTS: Duration = Duration::from_secs(24 * 3600);

/// The one snapshotter whose directories are what a layer unpacks to. Others look alike and mean other things.
pub(in crate::image) const OVERLAYFS: &str = "overlayfs";

/// Beyond this age a lease may run out under us, and it can't be made to last longer.
pub(super) const OLDEST: Duration = Duration::from_secs(12 * 3600);

/// How our snapshots' keys begin until they are committed.
pub(super) const OURS: &str = "stoker-";

/// How long a document waits for another writer of the same one.
const LOCKED: Duration = Duration::from_secs(30);

/// One image being made: containerd, a lease that holds what was made so far, and where layers go.
///
/// Dropped without [`Self::close`], it leaves the lease, and the next try for the same manifest goes on with it.
#[derive(Debug)]
pub struct Workplace {
    pub(super) containerd: Containerd,
    pub(super) snapshotter: Snapshotter,
    pub(super) lease: Lease,
    _turn: OwnedMutexGuard<()>,
}

impl Workplace {
    pub(super) async fn open(
        containerd: &Containerd,
        snapshotter: &Snapshotter,
        manifest: Digest,
        oldest: Duration,
        turn: OwnedMutexGuard<()>,
    ) -> Result<Self, CommitError> {
        if snapshotter.name != OVERLAYFS {
            return Err(CommitError::Snapshotter { snapshotter: snapshotter.name.clone() });
        }
        access::check_root(&snapshotter.root).await?;
        let lease = lease(containerd, &format!("stoker-{manifest}"), oldest).await?;
        // What a crash has left half-unpacked: its bytes were never checked to the end.
        for key in containerd.held_snapshots(&lease, &snapshotter.name).await? {
            if key.starts_with(OURS) {
                containerd.remove_snapshot(&snapshotter.name, &key).await?;
            }
        }
        Ok(Self { containerd: containerd.clone(), snapshotter: snapshotter.clone(), lease, _turn: turn })
    }

    /// Whether the committed snapshot called `chain` is there. If so, it stays from now on.
    ///
    /// # Errors
    /// When a call fails.
    pub async fn holds(&self, chain: Digest) -> Result<bool, CommitError> {
        // In this order: what is there once it's held can't be collected any more.
        let (name, chain) = (&self.snapshotter.name, chain.to_string());
        self.containerd.hold_snapshot(&self.lease, name, &chain).await?;
        let found = self.containerd.snapshot_info(name, &chain).await?;
        Ok(found.is_some_and(|found| found.committed))
    }

    /// Whether the content store has this blob. If so, it stays from now on, and can be read by
    /// [`Containerd::read_range`].
    ///
    /// # Errors
    /// When a call fails.
    pub async fn has_blob(&self, blob: &Descriptor) -> Result<bool, CommitError> {
        self.containerd.hold_blob(&self.lease, blob.digest).await?;
        Ok(self.containerd.blob_info(blob.digest).await?.is_some_and(|found| found.size == blob.size))
    }

    /// Takes over a blob that is in the content store's directory `root`, but not in our namespace; `false` where there is
    /// none. Nothing has checked it.
    ///
    /// # Errors
    /// When a call fails.
    pub async fn adopt_blob(
        &self,
        blob: &Descriptor,
        root: &Path,
        labels: &BTreeMap<String, String>,
    ) -> Result<bool, CommitError> {
        Ok(self.containerd.adopt_blob(&self.lease, blob, root, labels).await?)
    }

    /// Opens a layer's blob for writing, where blobs are kept; `None` where it's there already, and stays from now on.
    ///
    /// # Errors
    /// When the call fails, also while somebody of us writes the same blob.
    pub async fn write_blob(&self, blob: &Descriptor) -> Result<Option<BlobWriter>, CommitError> {
        Ok(self.containerd.write_blob(&self.lease, blob).await?)
    }

    /// Puts these labels on a blob that is there, beside those that it has: repositories are joined.
    ///
    /// # Errors
    /// When a call fails, also because there is no such blob.
    pub async fn label(&self, blob: Digest, labels: BTreeMap<String, String>) -> Result<(), CommitError> {
        let there = self.containerd.blob_info(blob).await?.map(|found| found.labels).unwrap_or_default();
        Ok(self.containerd.label_blob(blob, &labels::joined(labels, &there)).await?)
    }

    /// Puts an index, a manifest or a configuration into the content store with these labels.
    ///
    /// # Errors
    /// When a call fails, and when `bytes` aren't what `document` says.
    pub async fn put_document(
        &self,
        document: &Descriptor,
        bytes: Vec<u8>,
        labels: BTreeMap<String, String>,
    ) -> Result<(), CommitError> {
        if self.has_blob(document).await? {
            return self.label(document.digest, labels).await;
        }
        let end = Instant::now() + LOCKED;
        loop {
            let put = self.containerd.put_blob(&self.lease, document.digest, bytes.clone(), &labels).await;
            match put {
                Err(ContainerdError::Locked { .. }) if Instant::now() < end => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                put => return Ok(put?),
            }
        }
    }

    /// Deletes the lease, once the image has its names: from here on they hold everything.
    ///
    /// # Errors
    /// When the call fails. The lease runs out by itself then.
    pub async fn close(self) -> Result<(), CommitError> {
        Ok(self.containerd.delete_lease(&self.lease, false).await?)
    }

    /// Gives up: deletes the lease, and has containerd collect at once what only the lease held.
    pub async fn abandon(self) {
        if let Err(error) = self.containerd.delete_lease(&self.lease, true).await {
            tracing::warn!(lease = self.lease.id(), error = %crate::rt::chain(&error), "a lease stays until it runs out");
        }
    }
}

/// The lease called `id`: the one that is there, unless it's too old to be relied on, or a new one.
async fn lease(containerd: &Containerd, id: &str, oldest: Duration) -> Result<Lease, ContainerdError> {
    loop {
        if let Some(lease) = containerd.create_lease(id, LASTS).await? {
            return Ok(lease);
        }
        match containerd.lease(id).await? {
            Some(lease) if !is_old(lease.made(), Timestamp::now(), oldest) => return Ok(lease),
            // With all that hangs on it: half a day's leftovers are worth little.
            Some(lease) => containerd.delete_lease(&lease, true).await?,
            // Somebody deleted it just now.
            None => {}
        }
    }
}

/// A lease from the future was made by a clock that was wrong, and so is the time at which it runs out.
fn is_old(made: Timestamp, now: Timestamp, oldest: Duration) -> bool {
    let age = now.duration_since(made);
    let most = if age.is_negative() { Duration::from_secs(60) } else { oldest };
    age.unsigned_abs() > most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_old_well_before_it_runs_out_or_when_its_clock_was_wrong() {
        let now: Timestamp = "2026-06-01T12:00:00Z".parse().unwrap();
        let old = |made: &str| is_old(made.parse().unwrap(), now, OLDEST);
        assert!(!old("2026-06-01T12:00:00Z") && !old("2026-06-01T00:00:01Z") && !old("2026-06-01T12:00:59Z"));
        assert!(old("2026-05-31T23:59:59Z") && old("1970-01-01T00:00:00Z") && old("2026-06-01T12:01:01Z"));
    }
}
