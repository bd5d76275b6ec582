//! What the agent makes of the probe container's file. Pure.

use std::time::Duration;

use super::boot_clock::millis;
use super::gate::ProbeResult;
use super::notice::{Notice, Said, Unusable};
use crate::rt;
use crate::types::GpuReason;

/// Both containers start together; this long the agent says nothing yet.
const FIRST_GRACE: Duration = Duration::from_secs(3);
/// Silence is never counted faster than this, whatever the file says.
const LEAST_EVERY_MS: u64 = 1000;

/// Turns looks at the file into ends of probes: each new answer is one, and so is each stretch of time in which one
/// should have come and hasn't. All moments are milliseconds since boot.
#[derive(Debug)]
pub(super) struct Listener {
    last: Option<(u64, u64)>,
    counts_from: u64,
    due: u64,
    every: u64,
}

impl Listener {
    /// `every`: how long a missing answer takes to be as bad as a failed probe, until a writer says so itself.
    pub(super) fn new(now: u64, every: Duration) -> Self {
        Self { last: None, counts_from: 0, due: now + millis(FIRST_GRACE), every: millis(every) }
    }

    /// From now on only probes count that are started from now on.
    pub(super) fn begin_anew(&mut self, now: u64) {
        self.counts_from = now;
        self.due = self.due.max(now.saturating_add(self.every));
    }

    /// Takes in one look at the file.
    pub(super) fn hear(
        &mut self,
        read: Result<Notice, Unusable>,
        boot_id: &str,
        now: u64,
    ) -> Option<ProbeResult> {
        let (reason, message) = match read {
            Err(error) => (error.reason(), rt::chain(&error)),
            Ok(notice) if notice.boot_id != boot_id => {
                (GpuReason::ProbeMissing, "its last answer is from before this boot".to_owned())
            }
            Ok(notice) if notice.written_ms > now => {
                (GpuReason::ProbeUnreadable, "its answer is dated in the future".to_owned())
            }
            Ok(notice) => {
                if self.is_news(&notice, now) {
                    return self.counted(notice);
                }
                // No age here: a message that changes with each look would be written to the cluster each time.
                (GpuReason::ProbeMissing, "its last answer is out of date".to_owned())
            }
        };
        if now < self.due {
            return None;
        }
        self.due = now.saturating_add(self.every);
        Some(ProbeResult::NoAnswer { reason, message })
    }

    /// Whether it wasn't heard before, and isn't what a writer left behind that fell silent since.
    fn is_news(&mut self, notice: &Notice, now: u64) -> bool {
        let mark = Some((notice.run, notice.sequence));
        let is_new = self.last != mark;
        self.last = mark;
        is_new && now <= notice.next_by_ms
    }

    fn counted(&mut self, notice: Notice) -> Option<ProbeResult> {
        self.due = notice.next_by_ms;
        self.every = notice.then_every_ms.max(LEAST_EVERY_MS);
        if notice.began_ms < self.counts_from {
            return None;
        }
        Some(match notice.said {
            Said::Probed(result) => result,
            // While this agent holds the probe it isn't asked what it hears: the hold is another's.
            Said::Held(reason) => {
                let message = "it still holds, as an agent has asked it to".to_owned();
                ProbeResult::NoAnswer { reason, message }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::answer::ProbeAnswer;
    use super::super::gate::{Gate, GateParams};
    use super::*;
    use crate::types::{GpuPhase, GpuState};

    const EVERY: u64 = 27_000;

    fn listener() -> Listener {
        Listener::new(0, Duration::from_millis(EVERY))
    }

    fn ready() -> ProbeResult {
        let answer = ProbeAnswer::new(GpuPhase::Ready, GpuReason::DriverReady, "");
        ProbeResult::Answer(ProbeAnswer { module_loaded: true, ..answer })
    }

    /// An answer that was written at once, by a writer that says that the next one takes a minute at most.
    fn at(now: u64, (run, sequence): (u64, u64), result: ProbeResult) -> Result<Notice, Unusable> {
        Ok(Notice {
            version: Notice::VERSION,
            boot_id: "this".into(),
            run,
            sequence,
            began_ms: now,
            written_ms: now,
            next_by_ms: now + 60_000,
            then_every_ms: 10_000,
            said: Said::Probed(result),
        })
    }

    fn missing() -> Result<Notice, Unusable> {
        Err(Unusable::Missing(PathBuf::from("/run/gpu.json")))
    }

    fn reason(heard: Option<ProbeResult>) -> Option<GpuReason> {
        heard.map(|result| ProbeAnswer::from(result).reason)
    }

    #[test]
    fn each_new_answer_is_one_probe() {
        let mut listener = listener();
        assert_eq!(listener.hear(at(100, (1, 1), ready()), "this", 100), Some(ready()));
        assert_eq!(listener.hear(at(100, (1, 1), ready()), "this", 1_100), None);
        assert_eq!(
            listener.hear(at(2_000, (1, 2), ProbeResult::TimedOut), "this", 2_100),
            Some(ProbeResult::TimedOut)
        );
        assert_eq!(
            listener.hear(at(3_000, (2, 1), ready()), "this", 3_100),
            Some(ready()),
            "the writer has started anew"
        );
    }

    #[test]
    fn a_missing_file_is_waited_for_and_then_counts_by_the_interval() {
        let mut listener = listener();
        let heard: Vec<u64> = (0..90)
            .map(|second| second * 1000)
            .filter(|now| reason(listener.hear(missing(), "this", *now)) == Some(GpuReason::ProbeMissing))
            .collect();
        assert_eq!(heard, [3_000, 30_000, 57_000, 84_000]);
    }

    #[test]
    fn silence_counts_from_when_the_writer_said_that_it_would_answer() {
        let mut listener = listener();
        let mut gate = Gate::new(GateParams::default(), false);
        let mut state = GpuState::unknown();
        let mut closed = None;
        for now in (0..120).map(|second| second * 1000) {
            if let Some(result) = listener.hear(at(0, (1, 1), ready()), "this", now) {
                let open = state.open;
                state = gate.apply(result);
                closed = closed.or((open && !state.open).then_some(now));
            }
        }
        assert_eq!(closed, Some(80_000), "at 60, 70 and 80 seconds");
        assert_eq!(state.reason, GpuReason::ProbeMissing);
        assert_eq!(listener.hear(at(120_000, (1, 2), ready()), "this", 120_100), Some(ready()));
    }

    #[test]
    fn what_a_dead_writer_left_is_no_answer() {
        let mut left = listener();
        let heard = left.hear(at(1_000, (1, 1), ready()), "this", 500_000);
        assert_eq!(reason(heard), Some(GpuReason::ProbeMissing));

        let mut rebooted = listener();
        let heard = rebooted.hear(at(1_000, (1, 1), ready()), "other", 4_000);
        assert_eq!(reason(heard), Some(GpuReason::ProbeMissing));

        let mut foreign = listener();
        let heard = foreign.hear(at(900_000, (1, 1), ready()), "this", 4_000);
        assert_eq!(reason(heard), Some(GpuReason::ProbeUnreadable));
    }

    #[test]
    fn after_a_hold_only_a_probe_counts_that_was_started_later() {
        let mut listener = listener();
        listener.begin_anew(50_000);
        assert_eq!(listener.hear(at(49_999, (1, 8), ready()), "this", 50_500), None);
        assert_eq!(listener.hear(at(50_000, (1, 9), ready()), "this", 50_600), Some(ready()));
        listener.begin_anew(300_000);
        assert_eq!(listener.hear(missing(), "this", 301_000), None, "the writer has its time to begin again");
    }

    #[test]
    fn a_hold_that_is_not_ours_is_no_answer() {
        let mut listener = listener();
        let held = at(100, (1, 1), ready())
            .map(|notice| Notice { said: Said::Held(GpuReason::DriverUpgrade), ..notice });
        assert_eq!(reason(listener.hear(held, "this", 100)), Some(GpuReason::DriverUpgrade));
    }

    #[test]
    fn a_writer_cannot_make_silence_count_at_every_look() {
        let mut listener = listener();
        let hasty = at(0, (1, 1), ready()).map(|notice| Notice { then_every_ms: 0, ..notice });
        listener.hear(hasty, "this", 0);
        assert!(listener.hear(missing(), "this", 60_000).is_some());
        assert_eq!(listener.hear(missing(), "this", 60_100), None);
    }
}
