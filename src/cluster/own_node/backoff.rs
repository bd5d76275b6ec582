use std::time::Duration;

use tokio::time::Instant;

use super::super::Fault;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// What only a person can mend is asked less often.
const LONGEST_REFUSED: Duration = Duration::from_secs(120);

/// A server may ask for patience, but not for for ever.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(600);

/// When a request that failed is made again. The jitter is over the whole wait: all nodes lose their API server at the
/// same moment, and must not come back at the same one.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failed: u32,
    until: Option<Instant>,
}

impl Backoff {
    /// Counts a failure. `random` is uniform in `0.0..1.0`.
    pub(super) fn failed(&mut self, fault: Fault, now: Instant, random: f64) {
        let longest = match fault {
            Fault::Denied | Fault::Broken => LONGEST_REFUSED,
            _ => LONGEST,
        };
        let full = FIRST.saturating_mul(1 << self.failed.min(20)).min(longest);
        let asked = match fault {
            Fault::Throttled { retry_after } => retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER),
            _ => Duration::ZERO,
        };
        self.failed = self.failed.saturating_add(1);
        self.until = Some(now + asked + full.mul_f64(random.clamp(0.0, 1.0)));
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
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_grow_to_a_limit_over_their_whole_length() {
        let now = Instant::now();
        let wait = |backoff: &Backoff| (backoff.until().unwrap() - now).as_secs();
        let mut backoff = Backoff::default();
        assert!(backoff.has_passed(now));
        let mut waits = Vec::new();
        for _ in 0..7 {
            backoff.failed(Fault::Transient, now, 1.0);
            waits.push(wait(&backoff));
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        backoff.failed(Fault::Transient, now, 0.0);
        assert_eq!(wait(&backoff), 0, "somebody goes first");
        backoff.failed(Fault::Denied, now, 1.0);
        assert_eq!(wait(&backoff), 120);
        backoff.succeeded();
        assert!(backoff.has_passed(now));
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_is_the_least() {
        let now = Instant::now();
        let mut backoff = Backoff::default();
        let retry_after = Some(Duration::from_secs(7));
        backoff.failed(Fault::Throttled { retry_after }, now, 0.5);
        assert_eq!(backoff.until().unwrap() - now, Duration::from_millis(7500));
        let retry_after = Some(Duration::from_secs(1 << 40));
        backoff.failed(Fault::Throttled { retry_after }, now, 0.0);
        assert_eq!(backoff.until().unwrap() - now, LONGEST_RETRY_AFTER);
    }
}
