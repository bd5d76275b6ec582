use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::child::{Asked, ProbeCommand, ask};
use super::gate::{Gate, GateParams, ProbeResult};
use super::probe::ProbeTarget;
use crate::types::{GpuPhase, GpuReason, GpuState};

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
        }
    }
}

/// Starts the gpu task. It probes in child processes until `stop`, one at a time, and publishes where the GPUs
/// stand, first after the first probe has ended, then on changes only. On `stop` it kills the child and ends.
#[must_use]
pub fn spawn(config: GpuConfig, stop: CancellationToken) -> (watch::Receiver<GpuState>, JoinHandle<()>) {
    let (publish, published) = watch::channel(GpuState::unknown());
    let pace = Pace { steady: config.interval, waiting: config.waiting_interval };
    let GpuConfig { exe, nvml_path, host_root, sysfs_root, expected, deadline, was_open, .. } = config;
    let target = ProbeTarget { nvml_path, host_root, sysfs_root, expected };
    let command = ProbeCommand { exe, target, deadline };
    let gate = Gate::new(GateParams::default(), was_open);
    let task = tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            // Dropped with the child that it may be waiting for, which kills that.
            () = watch_over(pace, gate, || ask(&command), &publish) => {}
        }
    });
    (published, task)
}

/// How often is asked.
#[derive(Debug, Clone, Copy)]
struct Pace {
    steady: Duration,
    waiting: Duration,
}

impl Pace {
    /// How long to wait after this state, before jitter. What costs the driver nothing (nothing was loaded, or init
    /// refused) is asked often; doubt about an open gate is settled within three of the shorter steps in the middle;
    /// what is as it should be is left alone.
    fn after(&self, state: &GpuState) -> Duration {
        let middle = (self.steady / 6).max(self.waiting);
        match (state.phase, state.reason) {
            (GpuPhase::Ready | GpuPhase::NotApplicable, _) => self.steady,
            _ if state.open => middle,
            (
                GpuPhase::Waiting,
                GpuReason::LibraryNotFound
                | GpuReason::LibraryLoadError
                | GpuReason::DriverNotLoaded
                | GpuReason::DriverBusy,
            ) => self.waiting,
            _ => middle,
        }
    }

    /// With a fifth of it more or less: a fleet that started together doesn't probe together.
    fn pause(&self, state: &GpuState) -> Duration {
        self.after(state).mul_f64(0.8 + 0.4 * fastrand::f64())
    }
}

/// Probes for ever, one probe at a time.
async fn watch_over<F, A>(pace: Pace, mut gate: Gate, mut ask: F, publish: &watch::Sender<GpuState>)
where
    F: FnMut() -> A,
    A: Future<Output = Asked>,
{
    loop {
        let asked = ask().await;
        let mut state = tell(gate.apply(asked.result), publish);
        if let Some(mut gone) = asked.stuck {
            loop {
                tokio::select! {
                    () = &mut gone => break,
                    // Still no answer: as good as another probe that hung.
                    () = sleep(pace.pause(&state)) => state = tell(gate.apply(ProbeResult::TimedOut), publish),
                }
            }
        }
        sleep(pace.pause(&state)).await;
    }
}

fn tell(state: GpuState, publish: &watch::Sender<GpuState>) -> GpuState {
    let changed = publish.send_if_modified(|last| {
        let changed = *last != state;
        last.clone_from(&state);
        changed
    });
    if changed {
        let GpuState { phase, reason, message, open, devices, expected, .. } = &state;
        tracing::info!(
            ?phase,
            ?reason,
            open,
            devices,
            expected,
            message,
            advice = reason.advice(),
            "GPU gate"
        );
    }
    state
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::pin::Pin;
    use std::sync::{Arc, Mutex};

    use tokio::sync::oneshot;
    use tokio::time::Instant;

    use super::super::answer::ProbeAnswer;
    use super::*;

    const PACE: Pace = Pace { steady: Duration::from_secs(30), waiting: Duration::from_secs(1) };

    fn answer(phase: GpuPhase, reason: GpuReason) -> Asked {
        let answer = ProbeAnswer { module_loaded: true, ..ProbeAnswer::new(phase, reason, "") };
        Asked { result: ProbeResult::Answer(answer), stuck: None }
    }

    fn ready() -> Asked {
        answer(GpuPhase::Ready, GpuReason::DriverReady)
    }

    /// Plays the probes one after the other, and notes when each was asked for; after the last one none ever ends.
    fn play(probes: Vec<Asked>) -> (watch::Receiver<GpuState>, Arc<Mutex<Vec<Duration>>>, JoinHandle<()>) {
        let (publish, published) = watch::channel(GpuState::unknown());
        let asked_at = Arc::new(Mutex::new(Vec::new()));
        let (note, start) = (Arc::clone(&asked_at), Instant::now());
        let task = tokio::spawn(async move {
            let mut probes = VecDeque::from(probes);
            let next = || -> Pin<Box<dyn Future<Output = Asked> + Send>> {
                note.lock().unwrap().push(start.elapsed());
                match probes.pop_front() {
                    Some(asked) => Box::pin(std::future::ready(asked)),
                    None => Box::pin(std::future::pending()),
                }
            };
            watch_over(PACE, Gate::new(GateParams::default(), false), next, &publish).await;
        });
        (published, asked_at, task)
    }

    #[tokio::test(start_paused = true)]
    async fn probes_quickly_while_waiting_and_slowly_once_ready() {
        let waiting = || answer(GpuPhase::Waiting, GpuReason::DriverNotLoaded);
        let (mut published, asked_at, task) = play(vec![waiting(), waiting(), ready(), ready()]);
        published.wait_for(|state| state.open).await.unwrap();
        while asked_at.lock().unwrap().len() < 5 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        task.abort();
        let at = asked_at.lock().unwrap().clone();
        let pauses: Vec<f64> = at.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        for (pause, about) in pauses.iter().zip([1.0, 1.0, 30.0, 30.0]) {
            assert!((about * 0.79..about * 1.21).contains(pause), "{pauses:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_unchanged_state_is_published_once() {
        let (mut published, asked_at, task) = play(vec![ready(), ready(), ready()]);
        published.changed().await.unwrap();
        while asked_at.lock().unwrap().len() < 4 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!(!published.has_changed().unwrap());
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_that_cannot_be_killed_is_never_joined_by_another() {
        let (release, released) = oneshot::channel::<()>();
        let stuck: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
            let _ = released.await;
        });
        let hung = Asked { result: ProbeResult::TimedOut, stuck: Some(stuck) };
        let (mut published, asked_at, task) = play(vec![ready(), hung, ready()]);
        published.wait_for(|state| state.open).await.unwrap();
        let closed = published.wait_for(|state| !state.open).await.unwrap().clone();
        assert_eq!(closed.reason, GpuReason::ProbeTimedOut);
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(asked_at.lock().unwrap().len(), 2, "a second child was started");
        release.send(()).unwrap();
        published.wait_for(|state| state.open).await.unwrap();
        task.abort();
    }

    #[test]
    fn doubt_is_settled_sooner_than_readiness_is_checked() {
        let state = |phase, reason, open| GpuState { phase, reason, open, ..GpuState::unknown() };
        let after = |phase, reason, open| PACE.after(&state(phase, reason, open)).as_secs();
        assert_eq!(after(GpuPhase::Ready, GpuReason::DriverReady, true), 30);
        assert_eq!(after(GpuPhase::Waiting, GpuReason::DriverNotLoaded, true), 5);
        assert_eq!(after(GpuPhase::Waiting, GpuReason::DriverNotLoaded, false), 1);
        assert_eq!(after(GpuPhase::Waiting, GpuReason::FabricInProgress, false), 5);
        assert_eq!(after(GpuPhase::Failed, GpuReason::GpuLost, false), 5);
        assert_eq!(after(GpuPhase::NotApplicable, GpuReason::NoNvidiaDevice, false), 30);
    }
}
