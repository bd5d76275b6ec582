use std::time::Duration;

use super::child::KILL_GRACE;
use crate::types::{GpuPhase, GpuReason, GpuState};

/// What starting a process and writing a file may take on a busy host.
const SLACK: Duration = Duration::from_secs(2);

/// How often is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) steady: Duration,
    pub(super) waiting: Duration,
}

impl Pace {
    /// Between two probes when something is in doubt.
    pub(super) fn middle(&self) -> Duration {
        (self.steady / 6).max(self.waiting)
    }

    /// How long to wait after this state, before jitter. What costs the driver nothing (nothing was loaded, or init
    /// refused) is asked often; doubt about an open gate is settled within three of the shorter steps in the middle;
    /// what is as it should be is left alone.
    fn after(&self, state: &GpuState) -> Duration {
        match (state.phase, state.reason) {
            (GpuPhase::Ready | GpuPhase::NotApplicable, _) => self.steady,
            _ if state.open => self.middle(),
            (
                GpuPhase::Waiting,
                GpuReason::LibraryNotFound
                | GpuReason::LibraryLoadError
                | GpuReason::DriverNotLoaded
                | GpuReason::DriverBusy,
            ) => self.waiting,
            _ => self.middle(),
        }
    }

    /// With a fifth of it more or less: a fleet that started together doesn't probe together.
    pub(super) fn pause(&self, state: &GpuState) -> Duration {
        self.after(state).mul_f64(0.8 + 0.4 * fastrand::f64())
    }
}

/// How long after one answer the next one may take, if this long is paused in between.
pub(super) fn longest_silence(pause: Duration, deadline: Duration) -> Duration {
    pause.saturating_add(deadline).saturating_add(KILL_GRACE + SLACK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubt_is_settled_sooner_than_readiness_is_checked() {
        let pace = Pace { steady: Duration::from_secs(30), waiting: Duration::from_secs(1) };
        let state = |phase, reason, open| GpuState { phase, reason, open, ..GpuState::unknown() };
        let after = |phase, reason, open| pace.after(&state(phase, reason, open)).as_secs();
        assert_eq!(after(GpuPhase::Ready, GpuReason::DriverReady, true), 30);
        assert_eq!(after(GpuPhase::Waiting, GpuReason::DriverNotLoaded, true), 5);
        assert_eq!(after(GpuPhase::Waiting, GpuReason::DriverNotLoaded, false), 1);
        assert_eq!(after(GpuPhase::Waiting, GpuReason::FabricInProgress, false), 5);
        assert_eq!(after(GpuPhase::Failed, GpuReason::GpuLost, false), 5);
        assert_eq!(after(GpuPhase::NotApplicable, GpuReason::NoNvidiaDevice, false), 30);
    }
}
