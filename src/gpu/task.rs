use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::child::{ProbeCommand, ask_until};
use super::follow::{Follow, follow};
use super::gate::{Gate, GateParams};
use super::hold::Hold;
use super::pace::{Pace, longest_silence};
use super::probe::ProbeTarget;
use super::rounds::go_round;
use crate::types::GpuState;

/// How often the probe container's file is read, at least.
const POLL: Duration = Duration::from_secs(1);

/// How the gpu task works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuConfig {
    /// The program whose `gpu` command is the probe; `/proc/self/exe` for this one.
    pub exe: PathBuf,
    /// The library to load, and no other; `None` looks in the known places.
    pub nvml_path: Option<PathBuf>,
    /// Where the host's root is mounted.
    pub host_root: PathBuf,
    /// Where sysfs is mounted.
    pub sysfs_root: PathBuf,
    /// How many GPUs there must be; `None`: as many as the PCI bus shows.
    pub expected: Option<u32>,
    /// Between two probes of GPUs that are ready.
    pub interval: Duration,
    /// Between two probes of a driver that isn't there yet.
    pub waiting_interval: Duration,
    /// How long a probe may take.
    pub deadline: Duration,
    /// An earlier run of the agent left the gate open in this boot.
    pub was_open: bool,
    /// Where another container writes how its probes end (`stoker gpu --watch --out`); `None`: this process probes.
    pub probe_file: Option<PathBuf>,
}

impl GpuConfig {
    /// The defaults: every 30 s once ready (each probe wakes the GPUs where persistence mode is off), every 1.5 s
    /// before (that is what a node that waits for its driver loses), and 20 s for a probe (without persistence mode
    /// eight GPUs take seconds each).
    #[must_use]
    pub fn new(exe: impl Into<PathBuf>) -> Self {
        let ProbeTarget { nvml_path, host_root, sysfs_root, expected } = ProbeTarget::default();
        Self {
            exe: exe.into(),
            nvml_path,
            host_root,
            sysfs_root,
            expected,
            interval: Duration::from_secs(30),
            waiting_interval: Duration::from_millis(1500),
            deadline: Duration::from_secs(20),
            was_open: false,
            probe_file: None,
        }
    }
}

/// Starts the gpu task. Until `stop` it probes in child processes, one at a time, or reads how the probes of another
/// container end; it publishes where the GPUs stand, first after the first probe has ended, then on changes only.
/// While `holds` says so the gate is closed and nobody probes. On `stop` it kills the child and ends.
#[must_use]
pub fn spawn(
    config: GpuConfig,
    holds: watch::Receiver<Hold>,
    stop: CancellationToken,
) -> (watch::Receiver<GpuState>, JoinHandle<()>) {
    let (publish, published) = watch::channel(GpuState::unknown());
    let pace = Pace { steady: config.interval, waiting: config.waiting_interval };
    let GpuConfig { exe, nvml_path, host_root, sysfs_root, expected, deadline, was_open, probe_file, .. } =
        config;
    let gate = Gate::new(GateParams::default(), was_open);
    let work = async move {
        if let Some(path) = probe_file {
            let every = longest_silence(pace.middle(), deadline);
            let how = Follow { path, poll: POLL.min(pace.waiting), every };
            follow(how, gate, holds, |state| tell(state, &publish)).await;
        } else {
            let target = ProbeTarget { nvml_path, host_root, sysfs_root, expected };
            let command = &ProbeCommand { exe, target, deadline };
            let ask = |off: CancellationToken| async move { ask_until(command, off.cancelled()).await };
            go_round(pace, gate, holds, ask, |told| tell(told.state, &publish)).await;
        }
    };
    let task = tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            // Dropped with the child that it may be waiting for, which kills that.
            () = work => {}
        }
    });
    (published, task)
}

fn tell(state: GpuState, publish: &watch::Sender<GpuState>) {
    publish.send_if_modified(|last| {
        let changed = *last != state;
        if changed {
            log_change(&state);
            *last = state;
        }
        changed
    });
}

pub(super) fn log_change(state: &GpuState) {
    let GpuState { phase, reason, message, open, devices, expected, .. } = state;
    tracing::info!(?phase, ?reason, open, devices, expected, message, advice = reason.advice(), "GPU gate");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::GpuReason;

    #[test]
    fn an_unchanged_state_is_published_once() {
        let (publish, mut published) = watch::channel(GpuState::unknown());
        let state = GpuState { reason: GpuReason::DriverReady, ..GpuState::unknown() };
        tell(state.clone(), &publish);
        assert_eq!(*published.borrow_and_update(), state);
        tell(state, &publish);
        assert!(!published.has_changed().unwrap());
    }
}
