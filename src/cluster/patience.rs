use std::time::Duration;

use super::error::Fault;
use crate::rt::{Attempts, LONGEST_RETRY_AFTER, RetryPolicy};

/// How long to leave the API server alone after a failure. With jitter over the whole of it: thousands of agents lose
/// an API server in the same instant, and must not find it again in the same one. Never gives up.
///
/// Failures to reach it and answers that refuse are counted apart: what an API server says after it was away for long
/// needs no long wait.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Patience {
    unanswered: Attempts,
    refused: Attempts,
}

impl Default for Patience {
    fn default() -> Self {
        let none = Attempts::new(RetryPolicy::API_SERVER);
        Self { unanswered: none, refused: none }
    }
}

impl Patience {
    /// Counts a failure and says how long to wait. `random` is uniform in `0.0..1.0`.
    pub(super) fn after(&mut self, fault: Fault, random: f64) -> Duration {
        let (attempts, asked) = match fault {
            Fault::Transient => (&mut self.unanswered, None),
            Fault::Throttled { retry_after } => (&mut self.unanswered, retry_after),
            Fault::Unauthorized
            | Fault::Denied
            | Fault::NotFound
            | Fault::Conflict
            | Fault::Invalid
            | Fault::Expired
            | Fault::Broken => (&mut self.refused, None),
        };
        attempts.count();
        asked.unwrap_or_default().min(LONGEST_RETRY_AFTER) + attempts.backoff(random)
    }

    /// How often in a row it couldn't be reached.
    pub(super) fn unanswered(&self) -> u32 {
        self.unanswered.failed()
    }

    /// Forgets the failures.
    pub(super) fn worked(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = RetryPolicy::API_SERVER.first;

    #[test]
    fn waits_double_up_to_half_a_minute_and_may_be_short() {
        let mut patience = Patience::default();
        let waits: Vec<_> = (0..7).map(|_| patience.after(Fault::Transient, 1.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(patience.after(Fault::Transient, 0.0), Duration::ZERO);
        assert_eq!(patience.unanswered(), 8);
        patience.worked();
        assert_eq!(patience.after(Fault::Transient, 1.0), FIRST);
    }

    #[test]
    fn an_answer_after_a_long_silence_needs_no_long_wait() {
        let mut patience = Patience::default();
        for _ in 0..9 {
            patience.after(Fault::Transient, 1.0);
        }
        assert_eq!(patience.after(Fault::Expired, 1.0), FIRST);
        assert_eq!(
            patience.after(Fault::Denied, 1.0),
            2 * FIRST,
            "answers that refuse are no way to ask faster"
        );
    }

    #[test]
    fn a_server_that_asks_for_patience_gets_it_and_no_crowd_after_it() {
        let asked = |seconds| Fault::Throttled { retry_after: Some(Duration::from_secs(seconds)) };
        let mut patience = Patience::default();
        assert_eq!(patience.after(asked(7), 1.0), Duration::from_secs(8));
        assert_eq!(patience.after(asked(7), 0.0), Duration::from_secs(7));
        assert!(patience.after(asked(1 << 40), 1.0) < Duration::from_secs(700));
    }
}
