//! The connections to each server: how many there may be, which follows from what they bring.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::climb::{Climb, SEED};
use super::late::Late;

/// Every server that anybody is connected to.
#[derive(Debug, Clone)]
pub(super) struct Origins {
    cap: usize,
    known: Arc<Mutex<HashMap<String, Arc<Origin>>>>,
}

/// From here on, servers that nobody is connected to are forgotten, and what was learnt of them.
const REMEMBERED: usize = 64;

/// Long enough for the bytes of many answers, short enough to climb within seconds.
const WINDOW: Duration = Duration::from_millis(250);

/// Of all connections that a server may ever have, one in so many is for one that lies beside the limit: a second one for a
/// range that is late, and those that have all but ended.
const BESIDE: usize = 4;

impl Origins {
    /// At most `cap` connections to each server, whatever it can bear.
    pub(super) fn new(cap: usize) -> Self {
        Self { cap: cap.clamp(1, Semaphore::MAX_PERMITS), known: Arc::default() }
    }

    /// The server of this name.
    pub(super) fn of(&self, name: &str) -> Arc<Origin> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.retain(|_, origin| Arc::strong_count(origin) > 1);
        }
        Arc::clone(known.entry(name.to_owned()).or_insert_with(|| Arc::new(Origin::new(self.cap))))
    }
}

/// One server.
#[derive(Debug)]
pub(super) struct Origin {
    /// As many permits as the limit says; whoever waits is served in turn.
    lanes: Arc<Semaphore>,
    beside: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    climb: Climb,
    late: Late,
    /// Permits that there are, in use or not.
    permits: usize,
    /// Permits that are to be taken away as soon as they come back.
    owed: usize,
    in_use: usize,
    /// Connections beside the permits.
    extra: usize,
    waiting: usize,
    window: Window,
    /// From a request to the head of its answer, as a rule.
    first_byte: Option<Duration>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    bytes: u64,
    /// Whether somebody waited for a connection.
    was_full: bool,
}

impl Window {
    fn new(now: Instant) -> Self {
        Self { began: now, bytes: 0, was_full: false }
    }
}

impl Origin {
    fn new(cap: usize) -> Self {
        let beside = cap / BESIDE;
        let climb = Climb::new(SEED, cap - beside);
        let permits = climb.limit();
        let state = State {
            climb,
            late: Late::default(),
            permits,
            owed: 0,
            in_use: 0,
            extra: 0,
            waiting: 0,
            window: Window::new(Instant::now()),
            first_byte: None,
        };
        Self { lanes: Arc::new(Semaphore::new(permits)), beside, state: Mutex::new(state) }
    }

    /// How many connections there may be, as of now.
    pub(super) fn limit(&self) -> usize {
        self.state().permits
    }

    /// The right to one more connection, for as long as it's held.
    pub(super) async fn lane(self: &Arc<Self>) -> Lane {
        let permit = match Arc::clone(&self.lanes).try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) => {
                let _waiting = Waiting::new(self);
                // It fails only when the semaphore is closed, which nobody does.
                Arc::clone(&self.lanes).acquire_owned().await.ok()
            }
        };
        let mut state = self.state();
        if state.in_use == 0 {
            // What lies before is nobody's work.
            state.window = Window::new(Instant::now());
        }
        state.in_use += 1;
        drop(state);
        Lane { origin: Arc::clone(self), permit, is_extra: false }
    }

    /// The right to a second connection for a range of which `rest` bytes haven't come after so long, if that is late,
    /// and second ones are rare enough.
    pub(super) fn second_lane(self: &Arc<Self>, rest: u64, got: u64, after: Duration) -> Option<Lane> {
        let mut state = self.state();
        if state.extra >= self.beside || !state.late.may_ask_again(rest, got, after) {
            return None;
        }
        state.extra += 1;
        drop(state);
        Some(Lane { origin: Arc::clone(self), permit: None, is_extra: true })
    }

    /// After how long a range of so many bytes may be late; `None` while nobody knows what is usual.
    pub(super) fn patience(&self, bytes: u64) -> Option<Duration> {
        self.state().late.patience(bytes)
    }

    /// A whole range came, by one connection.
    pub(super) fn came(&self, bytes: u64, time: Duration) {
        self.state().late.came(bytes, time);
    }

    /// The head of an answer came so long after its request.
    pub(super) fn answered(&self, time: Duration) {
        let mut state = self.state();
        state.first_byte = Some(state.first_byte.map_or(time, |known| (known * 7 + time) / 8));
    }

    /// How long before its end a connection may be counted as free, so that the next request's answer begins when the
    /// last one's bytes end.
    pub(super) fn lead(&self) -> Duration {
        self.state().first_byte.unwrap_or_default()
    }

    /// Bytes came.
    pub(super) fn moved(&self, bytes: u64) {
        let mut state = self.state();
        state.window.bytes += bytes;
        let now = Instant::now();
        let time = now.duration_since(state.window.began);
        if time < WINDOW {
            return;
        }
        if state.window.was_full || state.waiting > 0 {
            let rate = state.window.bytes as f64 / time.as_secs_f64();
            state.climb.measured(rate);
        } else {
            state.climb.unused();
        }
        state.window = Window::new(now);
        self.follow(&mut state);
    }

    /// The server has asked to be left alone.
    pub(super) fn throttled(&self) {
        let mut state = self.state();
        // While more are open than the limit allows, what it was lowered for is being heard of still.
        if state.owed == 0 {
            state.climb.throttled();
            self.follow(&mut state);
        }
    }

    /// Makes the permits as many as the limit.
    fn follow(&self, state: &mut State) {
        let limit = state.climb.limit();
        if limit > state.permits {
            let more = limit - state.permits;
            let kept = more.min(state.owed);
            state.owed -= kept;
            self.lanes.add_permits(more - kept);
        } else {
            let fewer = state.permits - limit;
            state.owed += fewer - self.lanes.forget_permits(fewer);
        }
        if limit != state.permits {
            tracing::trace!(limit, before = state.permits, "another number of connections");
        }
        state.permits = limit;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody waits for a connection.
struct Waiting<'a>(&'a Origin);

impl<'a> Waiting<'a> {
    fn new(origin: &'a Origin) -> Self {
        let mut state = origin.state();
        state.waiting += 1;
        state.window.was_full = true;
        drop(state);
        Self(origin)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
    }
}

/// The right to one connection.
#[derive(Debug)]
pub(super) struct Lane {
    origin: Arc<Origin>,
    permit: Option<OwnedSemaphorePermit>,
    is_extra: bool,
}

impl Lane {
    /// Lets the next one have its turn already, if there is room for the two: this connection has all but ended.
    pub(super) fn hand_over(&mut self) {
        let beside = self.origin.beside;
        let mut state = self.origin.state();
        // The last one is for a range that is late.
        if self.is_extra || state.extra + usize::from(beside > 1) >= beside {
            return;
        }
        state.extra += 1;
        state.in_use -= 1;
        self.is_extra = true;
        give_back(&mut state, self.permit.take());
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let mut state = self.origin.state();
        if self.is_extra {
            state.extra -= 1;
        } else {
            state.in_use -= 1;
            give_back(&mut state, self.permit.take());
        }
    }
}

fn give_back(state: &mut State, permit: Option<OwnedSemaphorePermit>) {
    let Some(permit) = permit else { return };
    if state.owed > 0 {
        state.owed -= 1;
        permit.forget();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn lanes(origin: &Arc<Origin>) -> Vec<Lane> {
        std::iter::from_fn(|| origin.lane().now_or_never()).collect()
    }

    #[tokio::test]
    async fn each_server_has_its_own_connections_and_old_ones_are_forgotten() {
        let origins = Origins::new(1);
        let held = origins.of("a:443").lane().await;
        assert!(origins.of("a:443").lane().now_or_never().is_none());
        assert!(origins.of("b:443").lane().now_or_never().is_some());
        for number in 0..200 {
            drop(origins.of(&format!("{number}:443")).lane().await);
        }
        assert!(origins.known.lock().unwrap().len() <= REMEMBERED + 1);
        assert!(origins.of("a:443").lane().now_or_never().is_none(), "the one in use is remembered");
        drop(held);
        assert!(origins.of("a:443").lane().now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_server_that_says_so_has_half_as_soon_as_they_come_back() {
        let origin = Origins::new(64).of("a:443");
        let mut held = lanes(&origin);
        assert_eq!(held.len(), SEED);
        origin.throttled();
        origin.moved(1);
        origin.throttled();
        assert_eq!(origin.limit(), SEED / 2, "while the others end, it's the same overload");
        for _ in 0..SEED / 2 {
            drop(held.pop());
            assert!(origin.lane().now_or_never().is_none());
        }
        drop(held.pop());
        let last = origin.lane().now_or_never();
        assert!(last.is_some() && origin.lane().now_or_never().is_none());
        drop((held, last));
        assert_eq!(lanes(&origin).len(), SEED / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_brings_more_gets_more_but_only_where_somebody_waits() {
        for is_wanted in [true, false] {
            let origin = Origins::new(64).of("a:443");
            let mut held = vec![origin.lane().await];
            for _ in 0..20 {
                if is_wanted {
                    held.extend(lanes(&origin));
                }
                tokio::time::advance(WINDOW).await;
                origin.moved(1_000_000 * origin.limit() as u64);
            }
            // It may be trying fewer just now.
            let (least, most) = if is_wanted { (40, 64 - 64 / BESIDE) } else { (SEED, SEED) };
            assert!((least..=most).contains(&origin.limit()), "{}", origin.limit());
        }
    }

    #[tokio::test]
    async fn one_that_has_all_but_ended_lets_the_next_one_begin_within_the_cap() {
        let origin = Origins::new(16).of("a:443");
        let mut held = lanes(&origin);
        assert_eq!(held.len(), 12);
        for lane in &mut held {
            lane.hand_over();
            lane.hand_over();
        }
        let more = lanes(&origin);
        assert_eq!(held.len() + more.len(), 15, "never more than the cap, and one is for what is late");
        drop(held);
        assert_eq!(lanes(&origin).len() + more.len(), 12);
    }
}
