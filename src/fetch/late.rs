use std::time::Duration;

/// Which ranges are asked for a second time because the first connection is slow. Pure.
///
/// Only a few: each range that came by itself earns a twentieth of one. So a server that has become slow as a whole is
/// asked for one byte in twenty twice, and no more.
#[derive(Debug)]
pub(super) struct Late {
    /// Seconds a byte, of ranges that came by one connection.
    pace: f64,
    seen: u32,
    tokens: f64,
}

/// Before so many have come nobody can say what is slow.
const SAMPLES: u32 = 4;
/// How much a new range counts.
const WEIGHT: f64 = 0.125;
/// One that took longer than so many times the usual counts as that: it's the exception.
const OUTLIER: f64 = 3.0;
/// A range is looked at after the usual time and this long, and late if the rest would take so many times the usual.
const LATE: f64 = 2.0;
const SLACK: Duration = Duration::from_millis(100);

const EARNED: f64 = 0.05;
/// A small blob's ranges earn none in time.
const AT_FIRST: f64 = 2.0;
const MOST: f64 = 10.0;

impl Default for Late {
    fn default() -> Self {
        Self { pace: 0.0, seen: 0, tokens: AT_FIRST }
    }
}

impl Late {
    /// A range came by one connection alone.
    pub(super) fn came(&mut self, bytes: u64, time: Duration) {
        let pace = time.as_secs_f64() / bytes.max(1) as f64;
        self.pace = match self.seen {
            0 => pace,
            1..SAMPLES => self.pace + (pace - self.pace) / 2.0,
            _ => self.pace + (pace.min(self.pace * OUTLIER) - self.pace) * WEIGHT,
        };
        self.seen = self.seen.saturating_add(1);
        self.tokens = (self.tokens + EARNED).min(MOST);
    }

    /// After how long a range of so many bytes is looked at; `None` while nobody knows what is usual.
    pub(super) fn patience(&self, bytes: u64) -> Option<Duration> {
        (self.seen >= SAMPLES).then(|| self.usual(bytes).saturating_add(SLACK))
    }

    /// Whether a range of which `rest` bytes lack and `got` have come, `after` so long, is to be asked for again: it's
    /// late, a second connection should be done first, and there is a token, which is then spent.
    pub(super) fn may_ask_again(&mut self, rest: u64, got: u64, after: Duration) -> bool {
        let Some(patience) = self.patience(rest + got) else { return false };
        let is_hopeless = got == 0 || {
            let own = after.as_secs_f64() * rest as f64 / got as f64;
            own > self.usual(rest).mul_f64(LATE).as_secs_f64()
        };
        let asks = after >= patience && is_hopeless && self.tokens >= 1.0;
        if asks {
            self.tokens -= 1.0;
        }
        asks
    }

    fn usual(&self, bytes: u64) -> Duration {
        Duration::try_from_secs_f64(self.pace * bytes as f64).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;
    const SECOND: Duration = Duration::from_secs(1);

    fn used_to_a_second() -> Late {
        let mut late = Late::default();
        (0..SAMPLES).for_each(|_| late.came(MIB, SECOND));
        late
    }

    #[test]
    fn nobody_is_late_before_anybody_knows_what_is_usual() {
        let mut late = Late::default();
        for _ in 1..SAMPLES {
            late.came(MIB, SECOND);
            assert!(!late.may_ask_again(MIB, 0, SECOND * 1000));
        }
        late.came(MIB, SECOND);
        assert!(late.may_ask_again(MIB, 0, SECOND * 1000));
    }

    #[test]
    fn only_what_takes_longer_than_usual_and_would_take_long_still_is_late() {
        let mut late = used_to_a_second();
        assert!(!late.may_ask_again(MIB, 0, SECOND));
        assert!(!late.may_ask_again(MIB / 4, MIB * 3 / 4, SECOND * 3 / 2));
        assert!(!late.may_ask_again(1000, MIB - 1000, SECOND), "it has all but come");
        assert!(late.may_ask_again(MIB / 2, MIB / 2, SECOND * 3));
        assert!(late.may_ask_again(4 * MIB, 0, SECOND * 10));
        assert!(!late.may_ask_again(4 * MIB, 0, SECOND * 10), "the tokens are spent");
    }

    #[test]
    fn a_slow_one_among_many_does_not_make_slow_usual() {
        let mut late = used_to_a_second();
        for number in 0..400 {
            late.came(MIB, if number % 8 == 0 { SECOND * 60 } else { SECOND });
        }
        assert!(late.patience(MIB).unwrap() < SECOND * 5, "{late:?}");
    }

    proptest! {
        /// However slow everything becomes, one in twenty is asked for twice, and a few at first.
        #[test]
        fn second_requests_are_few(times in prop::collection::vec(1_u64..100_000, 1..2000)) {
            let mut late = Late::default();
            let mut twice = 0.0;
            for &millis in &times {
                let time = Duration::from_millis(millis);
                if late.may_ask_again(MIB, 0, time) {
                    twice += 1.0;
                } else {
                    late.came(MIB, time);
                }
            }
            prop_assert!(twice <= AT_FIRST + EARNED * times.len() as f64);
        }
    }
}
