//! The controller against models of servers: what each would send in a window, given so many connections.

use proptest::prelude::*;

use super::climb::{Climb, SEED};

const MB: f64 = 1e6;
const CAP: usize = 64;

/// What a server does with so many connections: bytes a second, or too many of them.
type Server = fn(usize) -> Result<f64, TooMany>;

struct TooMany;

/// 90 MB/s a connection, up to 32 of them.
fn wide_link(connections: usize) -> Result<f64, TooMany> {
    Ok(90.0 * MB * connections.min(32) as f64)
}

/// The disk takes 600 MB/s, however they come.
fn slow_disk(connections: usize) -> Result<f64, TooMany> {
    Ok((90.0 * MB * connections as f64).min(600.0 * MB))
}

/// Above 8 each further connection costs more than it brings.
fn collapses(connections: usize) -> Result<f64, TooMany> {
    let good = 50.0 * MB * connections.min(8) as f64;
    Ok(good / (1.0 + 0.3 * connections.saturating_sub(8) as f64))
}

/// 503 above 20.
fn refuses(connections: usize) -> Result<f64, TooMany> {
    if connections > 20 { Err(TooMany) } else { Ok(40.0 * MB * connections as f64) }
}

struct Run {
    limits: Vec<usize>,
    bytes: f64,
    refusals: usize,
}

/// So many windows, each rate off by up to `noise` of itself.
fn run(climb: &mut Climb, windows: usize, noise: f64, seed: u64, server: Server) -> Run {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut run = Run { limits: Vec::new(), bytes: 0.0, refusals: 0 };
    for _ in 0..windows {
        match server(climb.limit()) {
            Ok(rate) => {
                let rate = rate * (1.0 + noise * (2.0 * random.f64() - 1.0));
                run.bytes += rate;
                climb.measured(rate);
            }
            Err(TooMany) => {
                run.refusals += 1;
                climb.throttled();
                climb.unused();
            }
        }
        run.limits.push(climb.limit());
    }
    run
}

fn late(run: &Run) -> f64 {
    let last = &run.limits[run.limits.len() / 2..];
    last.iter().sum::<usize>() as f64 / last.len() as f64
}

#[test]
fn a_wide_link_is_filled_within_seconds() {
    for seed in 0..20 {
        let mut climb = Climb::new(SEED, CAP);
        let first = run(&mut climb, 12, 0.03, seed, wide_link);
        assert!(climb.limit() >= 29, "after 3 s: {:?}", first.limits);
        let second = run(&mut climb, 200, 0.03, seed, wide_link);
        let part = second.bytes / (200.0 * 32.0 * 90.0 * MB);
        assert!(part > 0.9, "{part}: {:?}", second.limits);
        assert!(late(&second) < 44.0, "nor does it grow on: {:?}", second.limits);
    }
}

#[test]
fn a_full_disk_does_not_make_it_grow() {
    for seed in 0..20 {
        let run = run(&mut Climb::new(SEED, CAP), 400, 0.05, seed, slow_disk);
        assert!(late(&run) < 24.0, "{:?}", run.limits);
        assert!(run.bytes > 0.9 * 400.0 * 600.0 * MB);
    }
}

#[test]
fn a_server_that_gets_slower_the_more_it_has_is_given_fewer() {
    for seed in 0..20 {
        let mut climb = Climb::new(SEED, CAP);
        run(&mut climb, 60, 0.03, seed, collapses);
        let later = run(&mut climb, 200, 0.03, seed, collapses);
        let part = later.bytes / (200.0 * 8.0 * 50.0 * MB);
        assert!(part > 0.85, "{part}: {:?}", later.limits);
    }
}

#[test]
fn a_server_that_refuses_is_given_half_and_not_asked_for_more_each_moment() {
    for seed in 0..20 {
        let mut climb = Climb::new(SEED, CAP);
        let run = run(&mut climb, 1200, 0.03, seed, refuses);
        assert!(run.refusals <= 12, "{} refusals in 5 minutes: {:?}", run.refusals, run.limits);
        let part = run.bytes / (1200.0 * 20.0 * 40.0 * MB);
        assert!(part > 0.75, "{part}: {:?}", run.limits);
    }
}

#[test]
fn many_refusals_at_once_are_one() {
    let mut climb = Climb::new(16, CAP);
    (0..100).for_each(|_| climb.throttled());
    assert_eq!(climb.limit(), 8);
    climb.measured(1.0);
    climb.throttled();
    assert_eq!(climb.limit(), 4);
}

#[test]
fn a_link_that_gets_worse_and_better_again_is_followed() {
    let mut climb = Climb::new(SEED, CAP);
    run(&mut climb, 100, 0.02, 1, wide_link);
    run(&mut climb, 300, 0.02, 1, collapses);
    assert!(climb.limit() <= 14, "{}", climb.limit());
    let back = run(&mut climb, 600, 0.02, 1, wide_link);
    assert!(climb.limit() >= 26, "{:?}", back.limits);
}

#[test]
fn what_nobody_uses_does_not_grow() {
    let mut climb = Climb::new(SEED, CAP);
    climb.measured(1.0);
    climb.measured(100.0);
    assert!(climb.limit() > SEED, "a trial");
    for _ in 0..100 {
        climb.unused();
        assert_eq!(climb.limit(), SEED);
    }
}

#[derive(Debug, Clone)]
enum Window {
    Measured(f64),
    Unused,
    Throttled,
}

fn window() -> impl Strategy<Value = Window> {
    prop_oneof![
        6 => (0.0_f64..1e10).prop_map(Window::Measured),
        1 => Just(Window::Measured(0.0)),
        1 => Just(Window::Unused),
        1 => Just(Window::Throttled),
    ]
}

proptest! {
    /// Whatever is measured, it stays within its bounds, and steps are never wild.
    #[test]
    fn it_stays_within_its_bounds(
        seed in 0_usize..100,
        cap in 0_usize..100,
        windows in prop::collection::vec(window(), 0..300),
    ) {
        let mut climb = Climb::new(seed, cap);
        for window in windows {
            let before = climb.limit();
            match window {
                Window::Measured(rate) => climb.measured(rate),
                Window::Unused => climb.unused(),
                Window::Throttled => climb.throttled(),
            }
            let after = climb.limit();
            prop_assert!((1..=cap.max(1)).contains(&after), "{after}");
            prop_assert!(after <= before * 3 && after * 3 >= before, "{before} to {after}");
            if matches!(window, Window::Throttled) {
                prop_assert!(after <= before);
            }
        }
    }

    /// More connections that bring nothing are given back.
    #[test]
    fn a_flat_server_never_has_many_more_than_the_seed(rate in 1.0_f64..1e10, windows in 1_usize..2000) {
        let mut climb = Climb::new(SEED, CAP);
        for _ in 0..windows {
            climb.measured(rate);
            prop_assert!(climb.limit() <= SEED + SEED / 2);
        }
    }
}
