use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How far a job is, in bytes. Written by whoever moves the bytes, read by the doors at any time; it is
/// never a reason for the agent to wake up.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    /// Says how many bytes there will be, once that is known; 0 means not known.
    pub fn set_total(&self, bytes: u64) {
        self.total.store(bytes, Relaxed);
    }

    /// Counts bytes that arrived.
    pub fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Relaxed);
    }

    /// Takes back bytes that must be fetched again.
    pub fn take_back(&self, bytes: u64) {
        let _ = self.done.fetch_update(Relaxed, Relaxed, |done| Some(done.saturating_sub(bytes)));
    }

    /// Bytes that arrived so far.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done.load(Relaxed)
    }

    /// Bytes that there will be, or 0 while that isn't known.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }
}
