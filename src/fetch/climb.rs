/// How many connections one server gets: found, not configured. Pure: rates in, a limit out.
///
/// It climbs while more connections bring more bytes, and goes back to where it was when they don't: a server that is
/// full without saying so isn't given more, and one that gets slower the more are open is given fewer. Then it probes
/// now and then, a few connections up or down, more and more seldom while nothing comes of it. A server that says
/// that it's asked too much is given half, at once, and for a while no more than it bore.
#[derive(Debug, Clone)]
pub(super) struct Climb {
    seed: usize,
    cap: usize,
    limit: usize,
    /// The rate at `limit` outside of trials, in bytes a second.
    base: Option<f64>,
    trial: Option<Trial>,
    /// Windows that still show what was before the last change.
    unsettled: u32,
    /// Rates since then.
    rates: Vec<f64>,
    /// It climbs in long steps until one of them brings nothing.
    is_steep: bool,
    /// The next trial goes down.
    downward: bool,
    /// Windows until the next trial, and how many lie between two of them.
    rest: u32,
    pause: u32,
    /// Windows in a row that were far below `base`.
    low: u32,
    throttle: Throttle,
}

/// Another limit is tried.
#[derive(Debug, Clone, Copy)]
struct Trial {
    /// What was before, and at which rate.
    from: usize,
    rate: f64,
    /// Because of a collapse: only a clear gain counts.
    is_rescue: bool,
}

/// What a server that asked for fewer can bear.
#[derive(Debug, Clone, Copy)]
struct Throttle {
    most: usize,
    /// Windows for which that holds, and for how many it will the next time.
    left: u32,
    hold: u32,
    /// All that is said within one window is about the same overload.
    heard: bool,
}

/// Of `cap` connections all may be in use before a server is known.
pub(super) const SEED: usize = 16;

/// Of each doubling of the connections so much must be gained in the rate, or they aren't worth it.
const ELASTICITY: f64 = 0.4;
/// Below the seed a gain must be clear: there, fewer connections are no end in themselves.
const CLEAR_GAIN: f64 = 1.05;
/// A rate that falls by so much is a collapse.
const COLLAPSE: f64 = 0.6;
const LOW_WINDOWS: u32 = 2;

const SETTLING: u32 = 1;
/// Rates of one steep trial, and of a probe, whose gain is as small as the noise.
const STEEP_RATES: usize = 1;
const PROBE_RATES: usize = 2;

const SHORTEST_PAUSE: u32 = 8;
const LONGEST_PAUSE: u32 = 64;
const SHORTEST_HOLD: u32 = 40;
const LONGEST_HOLD: u32 = 2400;

impl Climb {
    /// Begins with `seed` connections, and never exceeds `cap`, which is at least 1.
    pub(super) fn new(seed: usize, cap: usize) -> Self {
        let cap = cap.max(1);
        let seed = seed.clamp(1, cap);
        Self {
            seed,
            cap,
            limit: seed,
            base: None,
            trial: None,
            unsettled: SETTLING,
            rates: Vec::new(),
            is_steep: true,
            downward: false,
            rest: 0,
            pause: SHORTEST_PAUSE,
            low: 0,
            throttle: Throttle { most: cap, left: 0, hold: SHORTEST_HOLD, heard: false },
        }
    }

    /// How many connections there may be now.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// A window has ended in which somebody waited for a connection all others had; `rate` bytes a second came by all
    /// of them.
    pub(super) fn measured(&mut self, rate: f64) {
        self.ticked();
        if self.unsettled > 0 {
            self.unsettled -= 1;
            return;
        }
        self.rates.push(rate);
        let needed = if self.is_steep { STEEP_RATES } else { PROBE_RATES };
        if self.trial.is_none() && self.notices_collapse(rate) {
            return;
        }
        if self.rates.len() < needed {
            return;
        }
        let rate = self.rates.drain(..).sum::<f64>() / needed as f64;
        match self.trial.take() {
            Some(trial) => self.judge(trial, rate),
            None => {
                self.base = Some(self.base.map_or(rate, |base| (base + rate) / 2.0));
                self.rest = self.rest.saturating_sub(needed as u32);
            }
        }
        if self.rest == 0 && self.trial.is_none() {
            self.try_another();
        }
    }

    /// A window has ended in which fewer connections were wanted than there may be: nothing can be learnt from it, and
    /// more would be for nothing.
    pub(super) fn unused(&mut self) {
        self.ticked();
        self.rates.clear();
        if let Some(trial) = self.trial.take().filter(|trial| trial.from < self.limit) {
            self.go_to(trial.from);
            self.rest = self.pause;
        }
    }

    /// The server has asked to be left alone (429, 503).
    pub(super) fn throttled(&mut self) {
        if std::mem::replace(&mut self.throttle.heard, true) {
            return;
        }
        let Throttle { hold, .. } = self.throttle;
        self.throttle.most = (self.limit * 7 / 8).max(1);
        self.throttle.left = hold;
        self.throttle.hold = hold.saturating_mul(2).min(LONGEST_HOLD);
        self.trial = None;
        self.base = None;
        self.is_steep = false;
        self.downward = false;
        self.pause = SHORTEST_PAUSE;
        self.rest = self.pause;
        self.go_to((self.limit / 2).max(1));
    }

    fn ticked(&mut self) {
        let throttle = &mut self.throttle;
        throttle.heard = false;
        throttle.left = throttle.left.saturating_sub(1);
        if throttle.left == 0 {
            throttle.most = self.cap;
        }
    }

    fn go_to(&mut self, limit: usize) {
        self.limit = limit;
        self.unsettled = SETTLING;
        self.rates.clear();
        self.low = 0;
    }

    fn judge(&mut self, trial: Trial, rate: f64) {
        let (from, to) = (trial.from, self.limit);
        let is_up = to > from;
        let worth = if trial.is_rescue || (!is_up && to < self.seed) {
            rate >= trial.rate * CLEAR_GAIN
        } else {
            rate >= trial.rate * (to as f64 / from as f64).powf(ELASTICITY)
        };
        if worth {
            self.base = Some(rate);
            self.pause = SHORTEST_PAUSE;
            // What brought something is done again; a steep climb goes on at once.
            self.downward = !is_up;
            self.rest = if self.is_steep || trial.is_rescue { 0 } else { self.pause };
            return;
        }
        // After a collapse that fewer connections didn't mend, the new rate is what there is.
        self.base = Some(trial.rate);
        self.go_to(from);
        self.downward = is_up;
        // At the seed the first step up may have brought nothing because the seed is too many already.
        self.rest = if self.is_steep && is_up && from == self.seed { 0 } else { self.pause };
        self.is_steep = self.is_steep && self.rest == 0;
        if self.rest > 0 {
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Half as many, at once, when the rate has fallen far: too many connections may be the reason.
    fn notices_collapse(&mut self, rate: f64) -> bool {
        let Some(base) = self.base else { return false };
        if rate >= base * COLLAPSE {
            self.low = 0;
            return false;
        }
        self.low += 1;
        if self.low < LOW_WINDOWS || self.limit == 1 {
            return false;
        }
        self.trial = Some(Trial { from: self.limit, rate, is_rescue: true });
        self.go_to((self.limit / 2).max(1));
        true
    }

    fn try_another(&mut self) {
        let Some(rate) = self.base else { return };
        let most = self.cap.min(self.throttle.most);
        let from = self.limit;
        let step = if self.is_steep { (from / 2).max(1) } else { (from / 8).max(1) };
        let to = if self.downward { from.saturating_sub(step).max(1) } else { (from + step).min(most) };
        if to == from || (to < from && !self.downward) {
            // It can't go on this way: the next trial goes the other.
            self.downward = !self.downward;
            self.is_steep = false;
            self.rest = self.pause;
            return;
        }
        self.trial = Some(Trial { from, rate, is_rescue: false });
        self.go_to(to);
    }
}
