use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Long enough to be calm, short enough to follow a link that changes.
const WINDOW: Duration = Duration::from_secs(10);
/// Below it a rate is noise.
const LEAST: Duration = Duration::from_millis(400);
/// Looks that are closer together add nothing.
const APART: Duration = Duration::from_millis(100);

/// How fast something grows, over the last seconds. What was there at the first look doesn't count: it came from
/// an earlier run.
#[derive(Debug, Default)]
pub(super) struct Rate {
    samples: VecDeque<(Instant, u64)>,
}

impl Rate {
    /// It was `value` at `now`.
    pub(super) fn sample(&mut self, now: Instant, value: u64) {
        if self.samples.back().is_some_and(|(at, _)| now.duration_since(*at) < APART) {
            return;
        }
        self.samples.push_back((now, value));
        // One sample older than the window is its left edge.
        while self.samples.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW) {
            self.samples.pop_front();
        }
    }

    /// Per second; `None` until there is enough to tell.
    pub(super) fn per_second(&self) -> Option<f64> {
        let ((from, first), (to, last)) = self.samples.front().zip(self.samples.back())?;
        let elapsed = to.duration_since(*from);
        (elapsed >= LEAST).then(|| last.saturating_sub(*first) as f64 / elapsed.as_secs_f64())
    }

    /// How long `left` more will take; `None` while that can't be told.
    pub(super) fn time_for(&self, left: u64) -> Option<Duration> {
        let rate = self.per_second().filter(|rate| *rate > 0.0)?;
        Duration::try_from_secs_f64((left as f64 / rate).ceil()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_flow_and_its_end() {
        let mut rate = Rate::default();
        let start = Instant::now();
        assert_eq!(rate.per_second(), None);
        for second in 0..100 {
            rate.sample(start + Duration::from_secs(second), 1_000_000 + second * 50);
            assert!(rate.samples.len() <= 12, "memory is bounded");
        }
        assert_eq!(rate.per_second(), Some(50.0));
        assert_eq!(rate.time_for(500), Some(Duration::from_secs(10)));
        for second in 100..120 {
            rate.sample(start + Duration::from_secs(second), 1_004_950);
        }
        assert_eq!(rate.per_second(), Some(0.0));
        assert_eq!(rate.time_for(500), None);
    }

    #[test]
    fn bytes_that_are_taken_back_are_no_negative_rate() {
        let mut rate = Rate::default();
        let start = Instant::now();
        rate.sample(start, 100);
        rate.sample(start + Duration::from_secs(1), 10);
        assert_eq!(rate.per_second(), Some(0.0));
    }
}
