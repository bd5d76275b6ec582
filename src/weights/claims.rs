use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::layout::PartialKey;
use crate::types::Digest;

/// How much of a file system stays free whatever the cache wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserve {
    /// Of the file system's size.
    pub percent: u8,
    /// At least so many bytes, but never more than a tenth of the file system.
    pub bytes: u64,
}

impl Default for Reserve {
    /// 5 %, as ext4 keeps for root, and at least 1 GiB.
    fn default() -> Self {
        Self { percent: 5, bytes: 1 << 30 }
    }
}

impl Reserve {
    /// In bytes, for a file system of `total` bytes.
    #[must_use]
    pub fn of(self, total: u64) -> u64 {
        let share = total / 100 * u64::from(self.percent.min(100));
        share.max(self.bytes.min(total / 10))
    }
}

/// The files that jobs have been let in for: so that two jobs never count on the same free space, and never fetch
/// the same file twice.
#[derive(Debug, Default)]
pub(super) struct Claims {
    files: Mutex<HashMap<PartialKey, Claim>>,
}

#[derive(Debug, Default)]
struct Claim {
    holders: usize,
    /// Bytes that the file system doesn't count as used yet.
    outstanding: u64,
    turn: Arc<AsyncMutex<()>>,
    /// No job has been let in for it: somebody only keeps jobs from it for a moment.
    idle: bool,
    /// The digest that the last holder of the turn found.
    found: Option<Digest>,
}

/// A job that was let in; its claims end with it.
#[derive(Debug)]
pub(super) struct Admission {
    claims: Arc<Claims>,
    keys: Vec<PartialKey>,
}

/// One file's turn: whoever holds it may fetch the file. Work on a blocking thread keeps it for as long as it can
/// still touch the file's partial, even when the job itself is gone.
#[derive(Debug)]
pub(super) struct Turn {
    // Let go before the claim, which is what others find it by.
    _turn: OwnedMutexGuard<()>,
    admission: Arc<Admission>,
    key: PartialKey,
}

/// A job that doesn't fit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) needed: u64,
    pub(super) available: u64,
}

impl Claims {
    fn files(&self) -> MutexGuard<'_, HashMap<PartialKey, Claim>> {
        // The map is whole between any two statements that could panic.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a job in that wants these files, if they and what other jobs still have to write fit into `available`
    /// bytes with `reserve` left. A file that another job is fetching costs nothing more.
    pub(super) fn admit(
        self: &Arc<Self>,
        wanted: &[(PartialKey, u64)],
        available: u64,
        reserve: u64,
    ) -> Result<Arc<Admission>, Refused> {
        let mut files = self.files();
        let new: HashMap<_, _> = {
            let is_new = |key| files.get(key).is_none_or(|claim: &Claim| claim.idle);
            wanted.iter().filter(|(key, _)| is_new(key)).cloned().collect()
        };
        let needed = new.values().copied().fold(0, u64::saturating_add);
        let outstanding = files.values().map(|claim| claim.outstanding).fold(0, u64::saturating_add);
        let available = available.saturating_sub(outstanding);
        if needed > available.saturating_sub(reserve) && needed > 0 {
            return Err(Refused { needed, available });
        }
        for (key, _) in wanted {
            let claim = files.entry(key.clone()).or_default();
            claim.holders += 1;
            claim.idle = false;
        }
        for (key, bytes) in new {
            files.entry(key).or_default().outstanding = bytes;
        }
        drop(files);
        let keys = wanted.iter().map(|(key, _)| key.clone()).collect();
        Ok(Arc::new(Admission { claims: self.clone(), keys }))
    }

    /// The turn of a file that no job wants now, and that none of a job that is gone can still touch. Whoever comes to
    /// want it waits for its end.
    pub(super) fn idle_turn(self: &Arc<Self>, key: &PartialKey) -> Option<Turn> {
        let mut files = self.files();
        if files.contains_key(key) {
            return None;
        }
        let claim = files.entry(key.clone()).or_default();
        claim.holders += 1;
        claim.idle = true;
        let turn = Arc::clone(&claim.turn).try_lock_owned();
        drop(files);
        let admission = Arc::new(Admission { claims: Arc::clone(self), keys: vec![key.clone()] });
        Some(Turn { _turn: turn.ok()?, admission, key: key.clone() })
    }

    /// Bytes that jobs have been let in for, and that the file system doesn't count yet.
    pub(super) fn outstanding(&self) -> u64 {
        self.files().values().map(|claim| claim.outstanding).fold(0, u64::saturating_add)
    }

    /// Its bytes are counted by the file system from now on.
    pub(super) fn allocated(&self, key: &PartialKey) {
        if let Some(claim) = self.files().get_mut(key) {
            claim.outstanding = 0;
        }
    }
}

impl Admission {
    /// Waits until nobody else is at work on that file.
    pub(super) async fn turn(self: &Arc<Self>, key: &PartialKey) -> Turn {
        let turn = self.claims.files().get(key).map(|claim| claim.turn.clone()).unwrap_or_default();
        Turn { _turn: turn.lock_owned().await, admission: self.clone(), key: key.clone() }
    }
}

impl Turn {
    /// The digest that the file had when another job fetched it just now.
    pub(super) fn found(&self) -> Option<Digest> {
        self.admission.claims.files().get(&self.key)?.found
    }

    /// Whose turn it is.
    pub(super) fn key(&self) -> &PartialKey {
        &self.key
    }

    /// Tells it to the next.
    pub(super) fn has_found(&self, digest: Digest) {
        if let Some(claim) = self.admission.claims.files().get_mut(&self.key) {
            claim.found = Some(digest);
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut files = self.claims.files();
        for key in &self.keys {
            if let Some(claim) = files.get_mut(key) {
                claim.holders -= 1;
                if claim.holders == 0 {
                    files.remove(key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const GIB: u64 = 1 << 30;

    fn key(name: &str) -> PartialKey {
        PartialKey::of_digest(Digest::of(name.as_bytes()))
    }

    #[test]
    fn the_reserve_fits_the_disk() {
        let reserve = Reserve::default();
        assert_eq!(reserve.of(1000 * GIB), 50 * (1000 * GIB / 1000));
        assert_eq!(reserve.of(15 * GIB), GIB);
        assert_eq!(reserve.of(100 << 20), 10 << 20);
    }

    #[test]
    fn two_jobs_never_count_on_the_same_space() {
        let claims = Arc::new(Claims::default());
        let first = claims.admit(&[(key("a"), 60)], 100, 10).unwrap();
        let refused = claims.admit(&[(key("b"), 31)], 100, 10).unwrap_err();
        assert_eq!(refused, Refused { needed: 31, available: 40 });
        let second = claims.admit(&[(key("b"), 30)], 100, 10).unwrap();
        // The first file's blocks are taken: the file system says 40 itself.
        claims.allocated(&key("a"));
        assert!(claims.admit(&[(key("c"), 1)], 40, 10).is_err());
        drop((first, second));
        claims.admit(&[(key("c"), 30)], 40, 10).unwrap();
    }

    #[test]
    fn one_file_wanted_twice_is_counted_once_and_has_one_turn() {
        let claims = Arc::new(Claims::default());
        let both = [(key("a"), 60), (key("a"), 60)];
        let first = claims.admit(&both, 100, 10).unwrap();
        let second = claims.admit(&both, 0, 10).unwrap();
        let turn = first.turn(&key("a")).now_or_never().unwrap();
        assert!(second.turn(&key("a")).now_or_never().is_none());
        turn.has_found(Digest::of(b"a"));
        drop(turn);
        assert_eq!(second.turn(&key("a")).now_or_never().unwrap().found(), Some(Digest::of(b"a")));
        drop(first);
        assert!(claims.files().contains_key(&key("a")));
        drop(second);
        assert!(claims.files().is_empty());
    }

    #[test]
    fn a_turn_outlives_the_job_that_took_it() {
        let claims = Arc::new(Claims::default());
        let dropped = claims.admit(&[(key("a"), 60)], 100, 10).unwrap();
        let turn = dropped.turn(&key("a")).now_or_never().unwrap();
        drop(dropped);
        let next = claims.admit(&[(key("a"), 60)], 100, 10).unwrap();
        assert!(next.turn(&key("a")).now_or_never().is_none());
        drop(turn);
        assert!(next.turn(&key("a")).now_or_never().is_some());
    }

    #[test]
    fn only_a_file_that_nobody_wants_has_an_idle_turn() {
        let claims = Arc::new(Claims::default());
        let job = claims.admit(&[(key("a"), 60)], 100, 10).unwrap();
        assert!(claims.idle_turn(&key("a")).is_none());
        drop(job);
        let idle = claims.idle_turn(&key("a")).unwrap();
        let job = claims.admit(&[(key("a"), 60)], 100, 10).unwrap();
        assert!(job.turn(&key("a")).now_or_never().is_none(), "it waits");
        assert!(claims.admit(&[(key("b"), 31)], 100, 10).is_err(), "and its bytes count");
        drop(idle);
        assert!(job.turn(&key("a")).now_or_never().is_some());
        drop(job);
        assert!(claims.files().is_empty());
    }

    #[test]
    fn a_job_that_needs_nothing_is_let_in_on_a_full_disk() {
        Arc::new(Claims::default()).admit(&[], 0, 10).unwrap();
    }
}
