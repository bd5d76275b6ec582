use std::time::Duration;

use tokio::time::Instant;

use crate::types::{Digest, Hasher};

/// A digest that has to come out.
#[derive(Debug)]
pub(super) struct Hashing {
    wanted: Digest,
    hasher: Hasher,
    spent: Duration,
}

/// Another came out.
#[derive(Debug)]
pub(super) struct Mismatch {
    pub(super) wanted: Digest,
    pub(super) found: Digest,
}

impl Hashing {
    pub(super) fn new(wanted: Digest) -> Self {
        Self { wanted, hasher: Hasher::new(), spent: Duration::ZERO }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        let started = Instant::now();
        self.hasher.update(bytes);
        self.spent += started.elapsed();
    }

    /// How long it took.
    ///
    /// # Errors
    /// When another digest came out than the one that is wanted.
    pub(super) fn finish(self) -> Result<Duration, Mismatch> {
        let found = self.hasher.finish();
        if found == self.wanted { Ok(self.spent) } else { Err(Mismatch { wanted: self.wanted, found }) }
    }
}
