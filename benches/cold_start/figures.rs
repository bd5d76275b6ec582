//! How figures are made of times, and how they are printed.

use std::time::Duration;

use crate::measure::{self, median};

/// One side of a race: what it does, and how long each round took.
pub(crate) struct Side {
    /// What is done, and by whom.
    pub(crate) name: &'static str,
    /// Each round.
    pub(crate) times: Vec<Duration>,
}

impl Side {
    /// One without a round yet.
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, times: Vec::new() }
    }
}

/// The longest.
pub(crate) fn slowest(times: &[Duration]) -> Duration {
    times.iter().copied().max().unwrap_or_default()
}

/// Prints a race: each side's median, its rounds, and how many times as fast as the first side it is; then what was
/// done before the race, and a note from each line that isn't indented.
pub(crate) fn print_race(what: &str, sides: &[Side], before: &Side, notes: &str) {
    println!("\n{what}; median of {}", sides[0].times.len());
    let first = median(&sides[0].times).as_secs_f64();
    for side in sides {
        print_side(side, &format!("{:>5.1} x", first / median(&side.times).as_secs_f64()));
    }
    print_side(before, "");
    for line in notes.lines() {
        let mark = if line.starts_with(' ') { "  " } else { "  - " };
        println!("{mark}{line}");
    }
}

fn print_side(side: &Side, ratio: &str) {
    let rounds: Vec<String> = side.times.iter().map(|time| format!("{:.2}", time.as_secs_f64())).collect();
    let middle = median(&side.times).as_secs_f64();
    println!("  {:<63} {middle:>6.2} s {ratio:>8}   ({})", side.name, rounds.join(", "));
}

/// What ran here, and what shares it.
pub(crate) fn machine() -> String {
    format!(
        "{}.\nControl plane, node, registry and object store share this machine and its loopback. Stoker is installed on\n\
         the node for both sides of a race.",
        measure::machine(),
    )
}
