//! The one retry policy: classification is the error's (`kind()`), the decision is a pure function here, and the
//! caller sleeps.

use std::time::Duration;

use crate::types::ErrorKind;

/// How often and how patiently something is tried again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    /// Sleep before the first retry, before jitter.
    pub first: Duration,
    /// No sleep of ours is longer.
    pub longest: Duration,
    /// How many retries there are at most; `None` is no limit (the level-triggered loop of the agent).
    pub retries: Option<u32>,
    /// How much of each sleep is left to chance: 0 is none of it, 1 is all. A fleet that failed together doesn't come
    /// back together.
    pub jitter: f64,
}

/// A server may ask for patience, but not for for ever.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(600);

impl RetryPolicy {
    /// The usual jitter: a sleep is never shorter than half of what it could be.
    pub const HALF: f64 = 0.5;

    /// For one range of a blob: a stall or a reset is tried again within seconds.
    pub const RANGE: Self = Self {
        first: Duration::from_millis(200),
        longest: Duration::from_secs(10),
        retries: Some(6),
        jitter: Self::HALF,
    };

    /// For one small request: a listing, a token, a HEAD.
    pub const REQUEST: Self = Self {
        first: Duration::from_millis(300),
        longest: Duration::from_secs(5),
        retries: Some(4),
        jitter: Self::HALF,
    };

    /// For a whole entry that failed in a way that time may mend.
    pub const ENTRY: Self = Self {
        first: Duration::from_secs(5),
        longest: Duration::from_secs(900),
        retries: None,
        jitter: Self::HALF,
    };

    /// For the API server: thousands of agents lose it in the same instant, and must not find it again in the same one.
    pub const API_SERVER: Self =
        Self { first: Duration::from_secs(1), longest: Duration::from_secs(30), retries: None, jitter: 1.0 };

    /// For a daemon that isn't there just now.
    pub const RECONNECT: Self = Self {
        first: Duration::from_millis(250),
        longest: Duration::from_secs(15),
        retries: None,
        jitter: Self::HALF,
    };
}

/// The state of one series of tries.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attempts {
    policy: RetryPolicy,
    failed: u32,
}

impl Attempts {
    /// None made yet.
    #[must_use]
    pub fn new(policy: RetryPolicy) -> Self {
        Self { policy, failed: 0 }
    }

    /// How many have failed in a row.
    #[must_use]
    pub fn failed(&self) -> u32 {
        self.failed
    }

    /// Counts a failure and says how long to wait before the next try, or `None` when there is no next one: the
    /// error isn't one that time mends, or the tries are used up. `random` is uniform in `0.0..1.0`.
    pub fn failed_with(&mut self, kind: ErrorKind, random: f64) -> Option<Duration> {
        self.count();
        if self.policy.retries.is_some_and(|retries| self.failed > retries) {
            return None;
        }
        let own = self.backoff(random);
        match kind {
            ErrorKind::Transient | ErrorKind::Local => Some(own),
            ErrorKind::Throttled { retry_after } => {
                Some(retry_after.map_or(own, |asked| asked.min(LONGEST_RETRY_AFTER) + own / 4))
            }
            ErrorKind::Changed
            | ErrorKind::Corrupt
            | ErrorKind::NotFound
            | ErrorKind::Denied
            | ErrorKind::Invalid
            | ErrorKind::Unsupported
            | ErrorKind::NoSpace
            | ErrorKind::Cancelled => None,
        }
    }

    /// Counts a failure.
    pub fn count(&mut self) {
        self.failed = self.failed.saturating_add(1);
    }

    /// Forgets the failures: progress was made.
    pub fn succeeded(&mut self) {
        self.failed = 0;
    }

    /// Exponential, with the policy's jitter over its upper part.
    #[must_use]
    pub fn backoff(&self, random: f64) -> Duration {
        let doublings = self.failed.saturating_sub(1).min(20);
        let full = self.policy.first.saturating_mul(1 << doublings).min(self.policy.longest);
        full.mul_f64(1.0 - self.policy.jitter * (1.0 - random.clamp(0.0, 1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeps_double_up_to_the_longest_and_then_end() {
        let mut attempts = Attempts::new(RetryPolicy {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(3),
            retries: Some(4),
            jitter: RetryPolicy::HALF,
        });
        let sleeps: Vec<_> = (0..5).map(|_| attempts.failed_with(ErrorKind::Transient, 1.0)).collect();
        let seconds = |s| Some(Duration::from_secs(s));
        assert_eq!(sleeps, [seconds(1), seconds(2), seconds(3), seconds(3), None]);
    }

    #[test]
    fn jitter_never_goes_below_half() {
        let mut attempts = Attempts::new(RetryPolicy::RANGE);
        assert_eq!(attempts.failed_with(ErrorKind::Transient, 0.0), Some(RetryPolicy::RANGE.first / 2));
    }

    #[test]
    fn no_number_of_failures_overflows() {
        for policy in [RetryPolicy::API_SERVER, RetryPolicy::RECONNECT] {
            let mut attempts = Attempts { policy, failed: u32::MAX - 1 };
            for _ in 0..3 {
                attempts.count();
                assert_eq!(attempts.backoff(1.0), policy.longest);
            }
        }
    }

    #[test]
    fn retry_after_is_obeyed_within_reason() {
        let mut attempts = Attempts::new(RetryPolicy::RANGE);
        let throttled = |seconds| ErrorKind::Throttled { retry_after: Some(Duration::from_secs(seconds)) };
        assert!(attempts.failed_with(throttled(7), 0.0).unwrap() >= Duration::from_secs(7));
        assert!(attempts.failed_with(throttled(1 << 40), 1.0).unwrap() < Duration::from_secs(700));
    }

    #[test]
    fn what_time_does_not_mend_is_not_tried_again() {
        for kind in [ErrorKind::NotFound, ErrorKind::Denied, ErrorKind::Corrupt, ErrorKind::Cancelled] {
            assert_eq!(Attempts::new(RetryPolicy::ENTRY).failed_with(kind, 0.5), None, "{kind:?}");
        }
    }
}
