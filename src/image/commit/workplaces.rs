use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard};

use super::workplace::OLDEST;
use super::{CommitError, Workplace};
use crate::containerd::{Containerd, Snapshotter};
use crate::types::Digest;

/// The door to [`Workplace`]s. One image is made by one at a time: who comes second waits, and then finds all layers
/// there. Clones share that.
#[derive(Debug, Clone)]
pub struct Workplaces {
    turns: Arc<std::sync::Mutex<BTreeMap<Digest, Weak<Mutex<()>>>>>,
    oldest_lease: Duration,
}

impl Default for Workplaces {
    fn default() -> Self {
        Self::relying_on_leases_for(OLDEST)
    }
}

impl Workplaces {
    /// Workplaces that go on with a lease which was left behind only up to this age.
    #[must_use]
    pub fn relying_on_leases_for(oldest_lease: Duration) -> Self {
        Self { turns: Arc::default(), oldest_lease }
    }

    /// Opens the workplace of an image, whose lease an earlier try may have left: what hangs on it is found again, except
    /// half-unpacked layers, which are removed.
    ///
    /// # Errors
    /// When a call fails, and [`CommitError::NoAccess`] where this process can't reach the snapshotter's directory.
    pub async fn open(
        &self,
        containerd: &Containerd,
        snapshotter: &Snapshotter,
        manifest: Digest,
    ) -> Result<Workplace, CommitError> {
        let turn = self.turn(manifest).await;
        Workplace::open(containerd, snapshotter, manifest, self.oldest_lease, turn).await
    }

    async fn turn(&self, manifest: Digest) -> OwnedMutexGuard<()> {
        let turns = {
            let mut all = self.turns.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            all.retain(|_, turns| turns.strong_count() > 0);
            match all.get(&manifest).and_then(Weak::upgrade) {
                Some(turns) => turns,
                None => {
                    let turns = Arc::default();
                    all.insert(manifest, Arc::downgrade(&turns));
                    turns
                }
            }
        };
        turns.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn one_image_waits_for_itself_and_for_no_other() {
        let workplaces = Workplaces::default();
        let (one, other) = (Digest::of(b"1"), Digest::of(b"2"));
        let first = workplaces.turn(one).await;
        let again = workplaces.clone();
        let mut second = Box::pin(again.turn(one));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(workplaces.turn(other).now_or_never().is_some());
        drop(first);
        let second = second.await;
        assert!(workplaces.turn(one).now_or_never().is_none());
        drop(second);
        let third = workplaces.turn(other).await;
        assert_eq!(workplaces.turns.lock().unwrap().len(), 1, "those that nobody uses are forgotten");
        drop(third);
    }
}
