use tokio::time::Instant;

use super::super::Fault;
use super::super::patience::Patience;

/// When a request that failed is made again.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    patience: Patience,
    until: Option<Instant>,
}

impl Backoff {
    /// Counts a failure. `random` is uniform in `0.0..1.0`.
    pub(super) fn failed(&mut self, fault: Fault, now: Instant, random: f64) {
        self.until = Some(now + self.patience.after(fault, random));
    }

    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// When the next request may be made; `None` is now.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    pub(super) fn has_passed(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_waits_from_now_and_forgets_with_a_success() {
        let now = Instant::now();
        let mut backoff = Backoff::default();
        assert!(backoff.has_passed(now) && backoff.until().is_none());
        backoff.failed(Fault::Transient, now, 1.0);
        backoff.failed(Fault::Transient, now, 0.5);
        assert_eq!(backoff.until(), Some(now + Duration::from_secs(1)));
        assert!(!backoff.has_passed(now) && backoff.has_passed(now + Duration::from_secs(1)));
        backoff.succeeded();
        assert!(backoff.has_passed(now));
    }
}
