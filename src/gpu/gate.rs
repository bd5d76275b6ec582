use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::answer::ProbeAnswer;
use crate::types::{GpuPhase, GpuReason, GpuState};

/// How one probe ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeResult {
    /// It said something.
    Answer(ProbeAnswer),
    /// It said nothing before its deadline.
    TimedOut,
    /// The library took it down.
    Crashed {
        /// The signal's number.
        signal: i32,
    },
    /// It couldn't be run, or said something that can't be read; with the reason, for people.
    Failed(String),
    /// The container that probes for us has said nothing that counts, since longer than a probe takes.
    #[serde(skip)]
    NoAnswer {
        /// What is wrong with its file.
        reason: GpuReason,
        /// The details.
        message: String,
    },
}

/// How the gate judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateParams {
    /// How many failed probes in a row close an open gate.
    pub close_after: NonZeroU32,
}

impl Default for GateParams {
    fn default() -> Self {
        Self { close_after: NonZeroU32::MIN.saturating_add(2) }
    }
}

/// The judge: probe results in, the state of the gate out. No clock, no I/O.
///
/// One proof of readiness opens it. One failed probe doesn't close it (a wedged child, a device file lost for a
/// moment); three in a row do, and hard evidence does at once: the kernel module is gone, library and module are
/// of different versions, the bus shows no GPU any more.
#[derive(Debug, Clone)]
pub struct Gate {
    params: GateParams,
    failed_in_a_row: u32,
    state: GpuState,
}

impl Gate {
    /// A gate that knows nothing. `was_open`: an earlier run of the agent left it open in this boot, and a restart
    /// is no reason to judge by one failed probe.
    #[must_use]
    pub fn new(params: GateParams, was_open: bool) -> Self {
        Self { params, failed_in_a_row: 0, state: GpuState { open: was_open, ..GpuState::unknown() } }
    }

    /// Takes in how one probe ended, and says where the GPUs stand now.
    pub fn apply(&mut self, result: ProbeResult) -> GpuState {
        let hard = is_hard_evidence(&result);
        let mut state = self.seen(result);
        if state.phase == GpuPhase::Ready {
            self.failed_in_a_row = 0;
            state.open = true;
        } else {
            self.failed_in_a_row = self.failed_in_a_row.saturating_add(1);
            let patient = !hard && self.failed_in_a_row < self.params.close_after.get();
            state.open = self.state.open && patient;
        }
        self.state = state.clone();
        state
    }

    /// Closes the gate for as long as nobody may probe; only a proof opens it again.
    pub fn hold(&mut self, reason: GpuReason) -> GpuState {
        self.failed_in_a_row = 0;
        let expected = self.state.expected;
        self.state = GpuState { phase: GpuPhase::Waiting, reason, expected, ..GpuState::unknown() };
        self.state.clone()
    }

    fn seen(&self, result: ProbeResult) -> GpuState {
        let answered = matches!(result, ProbeResult::Answer(_));
        let answer = ProbeAnswer::from(result);
        GpuState {
            phase: answer.phase,
            reason: answer.reason,
            message: answer.message,
            devices: answer.devices,
            expected: if answered { answer.expected } else { self.state.expected },
            driver_version: answer.driver_version,
            open: false,
        }
    }
}

impl From<ProbeResult> for ProbeAnswer {
    /// What to say of a probe that may have said nothing itself. Then the GPUs are waited for: time alone may mend
    /// it (a library that is just being copied crashes, a busy driver hangs).
    fn from(result: ProbeResult) -> Self {
        let (reason, message) = match result {
            ProbeResult::Answer(answer) => return answer,
            ProbeResult::TimedOut => (GpuReason::ProbeTimedOut, String::new()),
            ProbeResult::Crashed { signal } => (GpuReason::ProbeCrashed, format!("signal {signal}")),
            ProbeResult::Failed(message) => (GpuReason::ProbeFailed, message),
            ProbeResult::NoAnswer { reason, message } => (reason, message),
        };
        Self::new(GpuPhase::Waiting, reason, message)
    }
}

fn is_hard_evidence(result: &ProbeResult) -> bool {
    let ProbeResult::Answer(answer) = result else { return false };
    match answer.reason {
        GpuReason::VersionMismatch | GpuReason::NoNvidiaDevice => true,
        // The probe itself failed: it knows nothing of the module either.
        GpuReason::ProbeFailed => false,
        _ => !answer.module_loaded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(phase: GpuPhase, reason: GpuReason) -> ProbeResult {
        let answer = ProbeAnswer::new(phase, reason, "");
        ProbeResult::Answer(ProbeAnswer { module_loaded: true, expected: 8, ..answer })
    }

    fn ready() -> ProbeResult {
        answer(GpuPhase::Ready, GpuReason::DriverReady)
    }

    fn opened() -> Gate {
        let mut gate = Gate::new(GateParams::default(), false);
        assert!(gate.apply(ready()).open);
        gate
    }

    #[test]
    fn one_proof_opens_and_nothing_else_does() {
        let mut gate = Gate::new(GateParams::default(), false);
        for result in [
            answer(GpuPhase::Waiting, GpuReason::DriverNotLoaded),
            answer(GpuPhase::Degraded, GpuReason::GpuCountMismatch),
            answer(GpuPhase::NotApplicable, GpuReason::NoNvidiaDevice),
            ProbeResult::TimedOut,
        ] {
            assert!(!gate.apply(result.clone()).open, "{result:?}");
        }
        assert!(gate.apply(ready()).open);
    }

    #[test]
    fn a_gate_that_was_open_before_a_restart_stays_so_until_it_is_judged() {
        let mut gate = Gate::new(GateParams::default(), true);
        let open: Vec<bool> = (0..3).map(|_| gate.apply(ProbeResult::TimedOut).open).collect();
        assert_eq!(open, [true, true, false]);
        let mut gate = Gate::new(GateParams::default(), true);
        assert!(
            !gate.apply(answer(GpuPhase::NotApplicable, GpuReason::NoNvidiaDevice)).open,
            "hard evidence"
        );
    }

    #[test]
    fn three_failures_in_a_row_close_and_not_one() {
        let mut gate = opened();
        let failures =
            [ProbeResult::TimedOut, ProbeResult::Crashed { signal: 7 }, ProbeResult::Failed("fork".into())];
        let open: Vec<bool> = failures.iter().cloned().map(|failure| gate.apply(failure).open).collect();
        assert_eq!(open, [true, true, false]);
        assert!(gate.apply(ready()).open);
    }

    #[test]
    fn a_proof_in_between_starts_the_count_again() {
        let mut gate = opened();
        for _ in 0..5 {
            let lost = answer(GpuPhase::Failed, GpuReason::GpuLost);
            assert!(gate.apply(lost.clone()).open);
            assert!(gate.apply(lost).open);
            assert!(gate.apply(ready()).open);
        }
    }

    #[test]
    fn hard_evidence_closes_at_once() {
        let unloaded = |reason| ProbeResult::Answer(ProbeAnswer::new(GpuPhase::Waiting, reason, ""));
        for evidence in [
            unloaded(GpuReason::DriverNotLoaded),
            unloaded(GpuReason::LibraryNotFound),
            answer(GpuPhase::Failed, GpuReason::VersionMismatch),
            answer(GpuPhase::NotApplicable, GpuReason::NoNvidiaDevice),
        ] {
            assert!(!opened().apply(evidence.clone()).open, "{evidence:?}");
        }
        let soft = answer(GpuPhase::Waiting, GpuReason::DriverNotLoaded);
        assert!(opened().apply(soft).open, "NVML's word alone, with the module there, is one failed probe");
        let blind = ProbeAnswer::new(GpuPhase::Failed, GpuReason::ProbeFailed, "");
        assert!(opened().apply(ProbeResult::Answer(blind)).open);
    }

    #[test]
    fn a_hold_closes_at_once_and_only_a_proof_opens_again() {
        let mut gate = opened();
        let held = gate.hold(GpuReason::DriverUpgrade);
        assert_eq!((held.phase, held.reason), (GpuPhase::Waiting, GpuReason::DriverUpgrade));
        assert_eq!((held.open, held.devices, held.expected), (false, 0, 8));
        assert!(!gate.apply(ProbeResult::TimedOut).open);
        assert!(gate.apply(ready()).open);
    }

    #[test]
    fn silence_is_a_failed_probe_with_a_reason_of_its_own() {
        let silent = || ProbeResult::NoAnswer { reason: GpuReason::ProbeMissing, message: "no file".into() };
        let mut gate = opened();
        let state = gate.apply(silent());
        assert_eq!((state.phase, state.reason), (GpuPhase::Waiting, GpuReason::ProbeMissing));
        assert_eq!((state.open, state.message.as_str(), state.expected), (true, "no file", 8));
        assert!(gate.apply(silent()).open);
        assert!(!gate.apply(silent()).open);
    }

    #[test]
    fn what_is_expected_is_remembered_while_nobody_answers() {
        let mut gate = opened();
        let state = gate.apply(ProbeResult::Crashed { signal: 7 });
        assert_eq!((state.phase, state.reason), (GpuPhase::Waiting, GpuReason::ProbeCrashed));
        assert_eq!((state.devices, state.expected, state.driver_version), (0, 8, None));
        assert_eq!(state.message, "signal 7");
    }

    proptest::proptest! {
        /// Open exactly when there was a proof, and since the last one fewer than three failures and no hard
        /// evidence: whatever the order.
        #[test]
        fn open_by_the_rule_whatever_comes(results in proptest::collection::vec(0_u8..5, 0..40)) {
            let play = |which: u8| match which {
                0 | 1 => ready(),
                2 => ProbeResult::TimedOut,
                3 => answer(GpuPhase::Waiting, GpuReason::FabricInProgress),
                _ => answer(GpuPhase::Failed, GpuReason::VersionMismatch),
            };
            let mut gate = Gate::new(GateParams::default(), false);
            for end in 1..=results.len() {
                let state = gate.apply(play(results[end - 1]));
                let since = results[..end].iter().rev().position(|&which| which < 2);
                let by_rule = since.is_some_and(|failures| {
                    failures < 3 && !results[end - failures..end].contains(&4)
                });
                proptest::prop_assert_eq!(state.open, by_rule);
            }
        }
    }
}
