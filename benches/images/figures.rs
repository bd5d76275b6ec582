//! How figures are made of runs, and how they are printed.

use std::time::Duration;

use crate::floor::Floor;
use crate::measure::median;
use crate::race::{Race, Run};
use crate::sides::Side;

const MIB: u64 = 1 << 20;
/// Above this a core or the disk counts as what limits a run.
const FULL: f64 = 0.85;

/// A note from each line that isn't indented.
const NOTES: &str = "\
each run begins with a containerd that has nothing, and an empty page cache; the registry (distribution 3.1.2)
  reads its blobs from the same disk, unless BENCH_REGISTRY=warm; everything shares these cores and this disk
all sides keep the layers' blobs, as containerd does by default
stoker pull has synced when it ends; containerd hasn't: \"+ sync\" is what that would have taken it
CPU s: of the pull; containerd's with the children that it has waited for. The kernel's own writing isn't in it
\"CPU, disk\" are the whole machine's, whoever uses them
";

fn median_of<T: PartialOrd + Copy>(runs: &[Run], field: impl Fn(&Run) -> T) -> T {
    median(&runs.iter().map(field).collect::<Vec<T>>())
}

/// One run, while the race goes on.
pub(crate) fn run_line(side: Side, run: &Run) -> String {
    let within = run.own.in_cgroup.map_or_else(String::new, |said| {
        format!(
            ", cgroup's peak {} MiB with page cache, at its limit {} times",
            said.peak / MIB,
            said.at_the_limit
        )
    });
    format!(
        "{:<40} {:>6.2} s, then syncfs {:.2} s; CPU {:.1} s own, {:.1} s containerd, {:.1} s registry; \
         {} and {} MiB; busy: CPU {:.0} %, disk {:.0} % ({} MB written, {} MB read){within}",
        side.label(),
        run.wall.as_secs_f64(),
        run.sync.as_secs_f64(),
        run.own.cpu.as_secs_f64(),
        run.containerd_cpu.as_secs_f64(),
        run.registry_cpu.as_secs_f64(),
        run.own.peak / MIB,
        run.containerd_peak / MIB,
        run.busy.cpu * 100.0,
        run.busy.disk * 100.0,
        run.busy.written / 1_000_000,
        run.busy.read / 1_000_000,
    )
}

/// Prints all races, the ratios first.
pub(crate) fn print_all(races: &[Race], floors: &[Floor]) {
    println!("\n================ ratios ================");
    for race in races {
        let floor = floors.iter().find(|floor| floor.image == race.image.name);
        println!("{}", ratios(race, floor));
    }
    for race in races {
        print_race(race, floors.iter().find(|floor| floor.image == race.image.name));
    }
    println!();
    for line in NOTES.lines() {
        println!("{}{line}", if line.starts_with(' ') { "  " } else { "  - " });
    }
}

/// The one line that counts.
fn ratios(race: &Race, floor: Option<&Floor>) -> String {
    let name = &race.image.name;
    let Some((_, ours)) = race.sides.iter().find(|(side, _)| *side == Side::Ours) else {
        return format!("{name}: ours did not run");
    };
    let ours_wall = wall(ours);
    let to_floor = floor.map_or_else(String::new, |floor| {
        format!(", {:.2} x the floor of {:.2} s", ours_wall / floor.seconds(), floor.seconds())
    });
    let peer = race.sides.iter().filter(|(side, _)| side.is_peer());
    let Some((side, peer)) = peer.min_by(|a, b| wall(&a.1).total_cmp(&wall(&b.1))) else {
        return format!("{name}: {ours_wall:.2} s{to_floor}");
    };
    let own = median_of(ours, |run| run.own.peak) / MIB;
    format!(
        "{name}: {:.2} of the faster peer's time ({:.2} s against {:.2} s, {}){to_floor}; {:.2} of its CPU seconds; \
         peak {own} MiB; limited by {}",
        ours_wall / wall(peer),
        ours_wall,
        wall(peer),
        side.label(),
        median_of(ours, Run::cpu).as_secs_f64() / median_of(peer, Run::cpu).as_secs_f64(),
        bottleneck(ours),
    )
}

/// Prints one race: each side's figures.
fn print_race(race: &Race, floor: Option<&Floor>) {
    println!("\n{}; median of {}", race.image.line().trim_start(), race.sides[0].1.len());
    println!(
        "  {:<40} {:>22} {:>7} {:>7} {:>6} {:>15} {:>8} {:>11} {:>9}  limited by",
        "",
        "wall s (min–max)",
        "+ sync",
        "GB/s",
        "x best",
        "CPU s own + c'd",
        "registry",
        "peak MiB",
        "CPU, disk"
    );
    let best = race.sides.iter().filter(|(side, _)| side.is_peer()).map(|(_, runs)| wall(runs));
    let best = best.min_by(f64::total_cmp);
    for (side, runs) in &race.sides {
        println!("  {:<40} {}", side.label(), columns(race, runs, best));
    }
    if let Some(floor) = floor {
        println!("  {:<40} {:>8.2}", "the floor", floor.seconds());
    }
}

fn columns(race: &Race, runs: &[Run], best: Option<f64>) -> String {
    let walls: Vec<f64> = runs.iter().map(|run| run.wall.as_secs_f64()).collect();
    let (least, most) = walls.iter().fold((f64::MAX, 0.0_f64), |(l, m), wall| (l.min(*wall), m.max(*wall)));
    let middle = median(&walls);
    let seconds = |field: fn(&Run) -> Duration| median_of(runs, |run| field(run).as_secs_f64());
    format!(
        "{:>8.2} ({:>5.2}–{:>5.2}) {:>7.2} {:>7.2} {:>6} {:>6.1} + {:>6.1} {:>8.1} {:>5}/{:<5} {:>3.0} %,{:>3.0} %  {}",
        middle,
        least,
        most,
        seconds(|run| run.sync),
        race.image.unpacked() as f64 / 1e9 / middle,
        best.map_or_else(String::new, |best| format!("{:.2}", middle / best)),
        seconds(|run| run.own.cpu),
        seconds(|run| run.containerd_cpu),
        seconds(|run| run.registry_cpu),
        median_of(runs, |run| run.own.peak) / MIB,
        median_of(runs, |run| run.containerd_peak) / MIB,
        median_of(runs, |run| run.busy.cpu) * 100.0,
        median_of(runs, |run| run.busy.disk) * 100.0,
        bottleneck(runs),
    )
}

fn wall(runs: &[Run]) -> f64 {
    median_of(runs, |run| run.wall.as_secs_f64())
}

/// What was used up. Over loopback the network costs processor time, and has no limit of its own.
fn bottleneck(runs: &[Run]) -> &'static str {
    let (cpu, disk) = (median_of(runs, |run| run.busy.cpu), median_of(runs, |run| run.busy.disk));
    match (cpu >= FULL, disk >= FULL) {
        (true, true) => "CPU and disk",
        (true, false) => "CPU",
        (false, true) => "disk",
        (false, false) => "neither: it waits for itself",
    }
}
