use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::types::Progress;

/// What one fetch added to a progress. Unless it's kept, dropping it takes all of that back: the next try starts
/// from nothing.
#[derive(Debug)]
pub(super) struct Counted<'a> {
    progress: &'a Progress,
    added: AtomicU64,
}

impl<'a> Counted<'a> {
    pub(super) fn new(progress: &'a Progress) -> Self {
        Self { progress, added: AtomicU64::new(0) }
    }

    pub(super) fn add(&self, bytes: u64) {
        self.added.fetch_add(bytes, Relaxed);
        self.progress.add(bytes);
    }

    pub(super) fn take_back(&self) {
        self.progress.take_back(self.added.swap(0, Relaxed));
    }

    pub(super) fn keep(self) {
        self.added.store(0, Relaxed);
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.take_back();
    }
}
