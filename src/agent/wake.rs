use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::world::Now;

/// Looking again once a day is cheap, and keeps instants far from overflowing.
const FAR: Duration = Duration::from_secs(86_400);

/// The earliest moment at which time alone changes the plan.
pub(super) struct Wake {
    earliest: Option<Instant>,
    now: Now,
}

impl Wake {
    pub(super) fn from(now: Now) -> Self {
        Self { earliest: None, now }
    }

    pub(super) fn earliest(&self) -> Option<Instant> {
        self.earliest
    }

    pub(super) fn at(&mut self, at: Instant) {
        self.earliest = Some(self.earliest.map_or(at, |earlier| earlier.min(at)));
    }

    pub(super) fn after(&mut self, wait: Duration) {
        self.at(self.now.monotonic + wait.min(FAR));
    }

    /// A moment of the wall clock; half a second late, so that it's surely past then.
    pub(super) fn at_wall(&mut self, at: Timestamp) {
        if let Ok(wait) = Duration::try_from(at.duration_since(self.now.wall)) {
            self.at(self.now.monotonic + wait.min(FAR) + Duration::from_millis(500));
        }
    }
}
