use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

/// One file's turn: whoever holds it may fetch the file; it says which digest the last holder found.
pub(super) type Turn = Arc<tokio::sync::Mutex<Option<Digest>>>;

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
    turn: Turn,
}

/// A job that was let in; its claims end with it.
#[derive(Debug)]
pub(super) struct Admission {
    claims: Arc<Claims>,
    keys: Vec<PartialKey>,
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
    ) -> Result<Admission, Refused> {
        let mut files = self.files();
        let new: HashMap<_, _> = wanted.iter().filter(|(key, _)| !files.contains_key(key)).cloned().collect();
        let needed = new.values().copied().fold(0, u64::saturating_add);
        let outstanding = files.values().map(|claim| claim.outstanding).fold(0, u64::saturating_add);
        let available = available.saturating_sub(outstanding);
        if needed > available.saturating_sub(reserve) && needed > 0 {
            return Err(Refused { needed, available });
        }
        for (key, _) in wanted {
            let claim = files.entry(key.clone()).or_default();
            claim.holders += 1;
        }
        for (key, bytes) in new {
            files.entry(key).or_default().outstanding = bytes;
        }
        drop(files);
        Ok(Admission { claims: self.clone(), keys: wanted.iter().map(|(key, _)| key.clone()).collect() })
    }

    /// Its bytes are counted by the file system from now on.
    pub(super) fn allocated(&self, key: &PartialKey) {
        if let Some(claim) = self.files().get_mut(key) {
            claim.outstanding = 0;
        }
    }
}

impl Admission {
    /// What to wait on before fetching that file.
    pub(super) fn turn(&self, key: &PartialKey) -> Turn {
        self.claims.files().get(key).map(|claim| claim.turn.clone()).unwrap_or_default()
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
        assert!(Arc::ptr_eq(&first.turn(&key("a")), &second.turn(&key("a"))));
        drop(first);
        assert!(claims.files().contains_key(&key("a")));
        drop(second);
        assert!(claims.files().is_empty());
    }

    #[test]
    fn a_job_that_needs_nothing_is_let_in_on_a_full_disk() {
        Arc::new(Claims::default()).admit(&[], 0, 10).unwrap();
    }
}
