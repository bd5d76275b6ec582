//! Probes again and again, one probe at a time, and never while that is held. The agent and the probe container go
//! the same rounds; they differ in whom they tell.

use std::future::{Future, pending};
use std::pin::pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::child::{Asked, Stuck};
use super::gate::{Gate, ProbeResult};
use super::hold::Hold;
use super::pace::Pace;
use crate::types::{GpuReason, GpuState};

/// What came of one round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) came: Came,
    /// How long the probe took; none if there was none.
    pub(super) took: Duration,
    /// Where the GPUs stand after it.
    pub(super) state: GpuState,
    /// How long until the next round.
    pub(super) pause: Duration,
}

/// A probe, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Came {
    Probed(ProbeResult),
    Held(GpuReason),
}

/// Goes round for ever. `ask` gets a token that calls the probe off.
pub(super) async fn go_round<F, A>(
    pace: Pace,
    mut gate: Gate,
    mut holds: watch::Receiver<Hold>,
    mut ask: F,
    mut tell: impl FnMut(Told),
) where
    F: FnMut(CancellationToken) -> A,
    A: Future<Output = Asked>,
{
    let mut stuck = None;
    loop {
        let hold = *holds.borrow_and_update();
        if let Some(reason) = hold.reason() {
            tell(held(&mut gate, reason, pace));
            rest(pace.middle(), hold, &mut holds, &mut stuck).await;
            continue;
        }
        let began = Instant::now();
        let result = if stuck.is_some() {
            // Still no answer: as good as another probe that hung.
            ProbeResult::TimedOut
        } else {
            let called_off = CancellationToken::new();
            let mut asking = pin!(ask(called_off.clone()));
            tokio::select! {
                biased;
                reason = until_held(&mut holds) => {
                    tell(held(&mut gate, reason, pace));
                    called_off.cancel();
                    stuck = asking.await.stuck;
                    continue;
                }
                asked = &mut asking => {
                    stuck = asked.stuck;
                    asked.result
                }
            }
        };
        let took = began.elapsed();
        let state = gate.apply(result.clone());
        let pause = pace.pause(&state);
        tell(Told { came: Came::Probed(result), took, state, pause });
        rest(pause, hold, &mut holds, &mut stuck).await;
    }
}

fn held(gate: &mut Gate, reason: GpuReason, pace: Pace) -> Told {
    let state = gate.hold(reason);
    Told { came: Came::Held(reason), took: Duration::ZERO, state, pause: pace.middle() }
}

/// Until probing is held, and why.
async fn until_held(holds: &mut watch::Receiver<Hold>) -> GpuReason {
    match holds.wait_for(|hold| hold.reason().is_some()).await.map(|hold| hold.reason()) {
        Ok(Some(reason)) => reason,
        // Nobody is left to hold anything.
        _ => pending().await,
    }
}

/// Waits for the pause to end, or for another hold than `hold`. When the stuck child goes, the pause begins anew.
async fn rest(pause: Duration, hold: Hold, holds: &mut watch::Receiver<Hold>, stuck: &mut Option<Stuck>) {
    loop {
        let other = async {
            if holds.wait_for(|now| *now != hold).await.is_err() {
                pending::<()>().await;
            }
        };
        let gone = async {
            match stuck {
                Some(stuck) => stuck.await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = sleep(pause) => return,
            () = other => return,
            () = gone => {}
        }
        *stuck = None;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::pin::Pin;
    use std::sync::{Arc, Mutex};

    use tokio::sync::{mpsc, oneshot};
    use tokio::task::JoinHandle;

    use super::super::answer::ProbeAnswer;
    use super::super::gate::GateParams;
    use super::*;
    use crate::types::GpuPhase;

    const PACE: Pace = Pace { steady: Duration::from_secs(30), waiting: Duration::from_secs(1) };

    fn answer(phase: GpuPhase, reason: GpuReason) -> Asked {
        let answer = ProbeAnswer { module_loaded: true, ..ProbeAnswer::new(phase, reason, "") };
        Asked { result: ProbeResult::Answer(answer), stuck: None }
    }

    fn ready() -> Asked {
        answer(GpuPhase::Ready, GpuReason::DriverReady)
    }

    fn hung(released: oneshot::Receiver<()>) -> Asked {
        let stuck: Stuck = Box::pin(async move {
            let _ = released.await;
        });
        Asked { result: ProbeResult::TimedOut, stuck: Some(stuck) }
    }

    /// The rounds over probes that are played one after the other; after the last one none ends before it's called
    /// off. What is told is always whether the gate is open, and why.
    struct Play {
        asked_at: Arc<Mutex<Vec<Duration>>>,
        told: mpsc::UnboundedReceiver<Told>,
        hold: watch::Sender<Hold>,
        task: JoinHandle<()>,
    }

    impl Play {
        fn of(probes: Vec<Asked>) -> Self {
            let asked_at = Arc::new(Mutex::new(Vec::new()));
            let (note, start) = (Arc::clone(&asked_at), Instant::now());
            let (tell, told) = mpsc::unbounded_channel();
            let (hold, holds) = watch::channel(Hold::No);
            let task = tokio::spawn(async move {
                let mut probes = VecDeque::from(probes);
                let next = |off: CancellationToken| -> Pin<Box<dyn Future<Output = Asked> + Send>> {
                    note.lock().unwrap().push(start.elapsed());
                    match probes.pop_front() {
                        Some(asked) => Box::pin(std::future::ready(asked)),
                        None => Box::pin(async move {
                            off.cancelled().await;
                            Asked { result: ProbeResult::TimedOut, stuck: None }
                        }),
                    }
                };
                let gate = Gate::new(GateParams::default(), false);
                go_round(PACE, gate, holds, next, |told| drop(tell.send(told))).await;
            });
            Self { asked_at, told, hold, task }
        }

        async fn next(&mut self) -> (bool, GpuReason) {
            let told = self.told.recv().await.unwrap();
            (told.state.open, told.state.reason)
        }

        async fn until(&mut self, what: (bool, GpuReason)) {
            while self.next().await != what {}
        }

        fn asked(&self) -> usize {
            self.asked_at.lock().unwrap().len()
        }
    }

    impl Drop for Play {
        fn drop(&mut self) {
            self.task.abort();
        }
    }

    const OPEN: (bool, GpuReason) = (true, GpuReason::DriverReady);
    const UPGRADE: (bool, GpuReason) = (false, GpuReason::DriverUpgrade);

    #[tokio::test(start_paused = true)]
    async fn probes_quickly_while_waiting_and_slowly_once_ready() {
        let waiting = || answer(GpuPhase::Waiting, GpuReason::DriverNotLoaded);
        let play = Play::of(vec![waiting(), waiting(), ready(), ready()]);
        while play.asked() < 5 {
            sleep(Duration::from_secs(1)).await;
        }
        let at = play.asked_at.lock().unwrap().clone();
        let pauses: Vec<f64> = at.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        for (pause, about) in pauses.iter().zip([1.0, 1.0, 30.0, 30.0]) {
            assert!((about * 0.79..about * 1.21).contains(pause), "{pauses:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_child_that_cannot_be_killed_is_never_joined_by_another() {
        let (release, released) = oneshot::channel::<()>();
        let mut play = Play::of(vec![ready(), hung(released), ready()]);
        assert_eq!(play.next().await, OPEN);
        play.until((false, GpuReason::ProbeTimedOut)).await;
        sleep(Duration::from_secs(3600)).await;
        assert_eq!(play.asked(), 2, "a second child was started");
        release.send(()).unwrap();
        play.until(OPEN).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_closes_at_once_and_starts_no_probe_until_it_is_lifted() {
        let mut play = Play::of(vec![ready(), ready()]);
        assert_eq!(play.next().await, OPEN);
        let held_at = Instant::now();
        play.hold.send(Hold::DriverUpgrade).unwrap();
        assert_eq!(play.next().await, UPGRADE);
        assert_eq!(held_at.elapsed(), Duration::ZERO);
        sleep(Duration::from_secs(3600)).await;
        assert_eq!(play.asked(), 1);
        play.hold.send(Hold::MigReconfiguration).unwrap();
        play.until((false, GpuReason::MigReconfiguration)).await;
        let lifted_at = Instant::now();
        play.hold.send(Hold::No).unwrap();
        play.until(OPEN).await;
        assert_eq!((play.asked(), lifted_at.elapsed()), (2, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_calls_off_the_probe_that_is_under_way() {
        let mut play = Play::of(vec![]);
        while play.asked() < 1 {
            tokio::task::yield_now().await;
        }
        play.hold.send(Hold::DriverUpgrade).unwrap();
        assert_eq!(play.next().await, UPGRADE);
        assert_eq!(play.next().await, UPGRADE, "what the killed probe would have said counts for nothing");
        play.hold.send(Hold::No).unwrap();
        while play.asked() < 2 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stuck_child_is_remembered_over_a_hold() {
        let (release, released) = oneshot::channel::<()>();
        let mut play = Play::of(vec![hung(released), ready()]);
        assert_eq!(play.next().await, (false, GpuReason::ProbeTimedOut));
        play.hold.send(Hold::DriverUpgrade).unwrap();
        play.until(UPGRADE).await;
        play.hold.send(Hold::No).unwrap();
        play.until((false, GpuReason::ProbeTimedOut)).await;
        assert_eq!(play.asked(), 1, "a second child was started");
        release.send(()).unwrap();
        play.until(OPEN).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_word_again_hurries_nothing_and_silence_of_the_holder_holds_nothing() {
        let mut play = Play::of(vec![ready(), ready()]);
        assert_eq!(play.next().await, OPEN);
        let since = Instant::now();
        play.hold.send(Hold::No).unwrap();
        drop(std::mem::replace(&mut play.hold, watch::channel(Hold::No).0));
        assert_eq!(play.next().await, OPEN);
        assert!(since.elapsed() > Duration::from_secs(20), "{:?}", since.elapsed());
    }
}
