use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::types::Digest;

/// Blobs that jobs count on although no entry shows them yet: none of them is given up meanwhile.
#[derive(Debug, Default)]
pub(super) struct Holds {
    held: Mutex<HashMap<Digest, usize>>,
}

/// What one job counts on; it ends with the job.
#[derive(Debug)]
pub(super) struct Held {
    holds: Arc<Holds>,
    digests: Mutex<Vec<Digest>>,
}

impl Holds {
    fn held(&self) -> MutexGuard<'_, HashMap<Digest, usize>> {
        // The map is whole between any two statements that could panic.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A job's own, with nothing in it yet.
    pub(super) fn begin(self: &Arc<Self>) -> Arc<Held> {
        Arc::new(Held { holds: Arc::clone(self), digests: Mutex::default() })
    }

    /// Does `work` unless somebody counts on the blob. Nobody can begin to before it's done.
    pub(super) fn unless_held<T>(&self, digest: Digest, work: impl FnOnce() -> T) -> Option<T> {
        let held = self.held();
        (!held.contains_key(&digest)).then(work)
    }
}

impl Held {
    /// Counts on this one too, from here on: whether it's there must be looked at after this.
    pub(super) fn add(&self, digest: Digest) {
        *self.holds.held().entry(digest).or_default() += 1;
        self.digests.lock().unwrap_or_else(PoisonError::into_inner).push(digest);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let digests = self.digests.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut held = self.holds.held();
        for digest in digests {
            if let Some(count) = held.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    held.remove(digest);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_held_until_the_last_job_lets_go() {
        let holds = Arc::new(Holds::default());
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let (first, second) = (holds.begin(), holds.begin());
        first.add(a);
        first.add(a);
        second.add(a);
        second.add(b);
        drop(first);
        assert_eq!(holds.unless_held(a, || ()), None);
        drop(second);
        assert_eq!((holds.unless_held(a, || 1), holds.unless_held(b, || 2)), (Some(1), Some(2)));
        assert!(holds.held().is_empty());
    }
}
