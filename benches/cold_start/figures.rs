//! How figures are made of times, and how they are printed.

use std::time::Duration;

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

/// The middle one; of an even number the later of the two.
pub(crate) fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[times.len() / 2]
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

/// What ran here, in one line.
pub(crate) fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let model = field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "CPU".to_owned());
    let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
    let kib: u64 = memory.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or_default();
    let load = read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ");
    let build = if cfg!(debug_assertions) { "a debug build, whose figures tell nothing" } else { "release" };
    format!(
        "stoker {} ({build}); {cores} cores of {model}, {} GB of memory, load before {load}.\n\
         Control plane, node, registry and object store share this machine and its loopback. Stoker is installed on\n\
         the node for both sides of a race.",
        env!("CARGO_PKG_VERSION"),
        kib * 1024 / 1_000_000_000,
    )
}
