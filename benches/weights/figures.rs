//! How figures are made of runs, and how they are printed.

use std::time::Duration;

use crate::floor::Floor;
use crate::measure::median;
use crate::race::{Entrant, Race, Run};
use crate::servers::Server;
use crate::sides::Side;

const MIB: u64 = 1 << 20;
/// Above this the cores, the disk or a server of one thread count as what limits a run.
const FULL: f64 = 0.85;

/// A note from each line that isn't indented.
const NOTES: &str = "\
each run begins with an empty directory on the same disk, whose page cache went with the files before; the servers
  have their files in memory where there is enough of it, and share these cores with the sides
stoker: SHA-256 of every file checked against what the server publishes (S3: x-amz-checksum-sha256; http: the index),
  and all of it on the disk (fsync) when it ends. Its \"+ sync\" and \"+ SHA-256\" are only shown, not counted
peers: \"bare\" is until they end, neither durable nor verified; \"whole\" has syncfs, then openssl dgst -sha256 of all
  files on all cores, added
every side's files were found right by openssl after each run
CPU s: the side's own, and the server's; the kernel's own writing isn't in it
RSS: the largest resident size (VmHWM), asked for every 2 ms
\"limited by\": disk or CPU at 85 % or more of the run; server: nginx's one process at 85 % of a core. Loopback is CPU
";

fn median_of<T: PartialOrd + Copy>(runs: &[Run], field: impl Fn(&Run) -> T) -> T {
    median(&runs.iter().map(field).collect::<Vec<T>>())
}

fn seconds(runs: &[Run], field: impl Fn(&Run) -> Duration) -> f64 {
    median_of(runs, |run| field(run).as_secs_f64())
}

/// One run, while the race goes on.
pub(crate) fn run_line(entrant: &Entrant, run: &Run) -> String {
    let within = run.in_cgroup.map_or_else(String::new, |said| {
        format!(
            ", cgroup's peak {} MiB with page cache, at its limit {} times",
            said.peak / MIB,
            said.at_the_limit
        )
    });
    format!(
        "{:<22} {:<36} {:>6.2} s, then sync {:.2} s, SHA-256 {:.2} s; CPU {:.1} s own, {:.1} s server; RSS {} MiB; \
         busy: CPU {:.0} %, disk {:.0} %{within}",
        entrant.side.label(),
        entrant.server.label(),
        run.wall.as_secs_f64(),
        run.sync.as_secs_f64(),
        run.sums.as_secs_f64(),
        run.cpu.as_secs_f64(),
        run.server_cpu.as_secs_f64(),
        run.peak / MIB,
        run.busy.cpu * 100.0,
        run.busy.disk * 100.0,
    )
}

/// Prints all races, the ratios first.
pub(crate) fn print_all(races: &[Race], floor: Option<&Floor>) {
    println!("\n================ ratios ================");
    for race in races {
        for server in Server::ALL {
            if let Some(line) = ratios(race, server, floor) {
                println!("{line}");
            }
        }
    }
    for race in races {
        print_race(race, floor);
    }
    println!();
    for line in NOTES.lines() {
        println!("{}{line}", if line.starts_with(' ') { "  " } else { "  - " });
    }
}

/// A peer's median by some measure, the best one.
fn best<'a>(peers: &[&'a Entrant], measure: impl Fn(&Entrant) -> f64) -> Option<(&'a Entrant, f64)> {
    let all = peers.iter().map(|peer| (*peer, measure(peer)));
    all.min_by(|a, b| a.1.total_cmp(&b.1))
}

fn bare(entrant: &Entrant) -> f64 {
    seconds(&entrant.runs, |run| run.wall)
}

fn whole(entrant: &Entrant) -> f64 {
    seconds(&entrant.runs, |run| run.whole(entrant.side))
}

/// The lines that count: ours at one server against its best peer, and against the floor.
fn ratios(race: &Race, server: Server, floor: Option<&Floor>) -> Option<String> {
    let here: Vec<&Entrant> =
        race.entrants.iter().filter(|entrant| entrant.server == server && !entrant.runs.is_empty()).collect();
    let peers: Vec<&Entrant> = here.iter().copied().filter(|entrant| entrant.side.is_peer()).collect();
    let bytes = race.set.bytes();
    let lines = here.iter().filter(|entrant| !entrant.side.is_peer()).map(|ours| {
        let time = bare(ours);
        let mut line = format!("{}, {}: {}: {time:.2} s", race.set.name, server.label(), ours.side.label());
        if let Some((peer, theirs)) = best(&peers, bare) {
            line += &format!(
                "; {:.2} of the best peer's bare {theirs:.2} s ({})",
                time / theirs,
                peer.side.label()
            );
        }
        if let Some((peer, theirs)) = best(&peers, whole) {
            line += &format!(
                "; {:.2} of the best durable, verified {theirs:.2} s ({})",
                time / theirs,
                peer.side.label()
            );
        }
        if let Some(floor) = floor {
            let least = floor.seconds(server, bytes);
            line +=
                &format!("; {:.2} x the floor of {least:.2} s ({})", time / least, floor.term(server, bytes));
        }
        line += &format!(
            "; {:.2} GB/s, limited by {}; RSS {} MiB",
            bytes as f64 / 1e9 / time,
            bottleneck(ours),
            median_of(&ours.runs, |run| run.peak) / MIB,
        );
        line
    });
    let lines: Vec<String> = lines.collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// Prints one race: each side's figures.
fn print_race(race: &Race, floor: Option<&Floor>) {
    let rounds = race.entrants.first().map_or(0, |entrant| entrant.runs.len());
    println!("\n{}; median of {rounds}", race.set.line());
    for server in Server::ALL {
        let here: Vec<&Entrant> = race
            .entrants
            .iter()
            .filter(|entrant| entrant.server == server && !entrant.runs.is_empty())
            .collect();
        if here.is_empty() {
            continue;
        }
        println!(
            "  {:<36} {:>22} {:>7} {:>9} {:>7} {:>6} {:>14} {:>8} {:>10}  limited by",
            server.label(),
            "bare s (min–max)",
            "+ sync",
            "+ SHA-256",
            "whole",
            "GB/s",
            "CPU s + server",
            "RSS MiB",
            "CPU, disk"
        );
        for entrant in &here {
            println!("    {:<34} {}", entrant.side.label(), columns(race, entrant));
        }
        if let Some(floor) = floor {
            println!("    {:<34} {:>6.2}", "the floor", floor.seconds(server, race.set.bytes()));
        }
        for entrant in here {
            println!("    {}: {}", entrant.side.label(), entrant.flags);
        }
    }
}

fn columns(race: &Race, entrant: &Entrant) -> String {
    let runs = &entrant.runs;
    let walls: Vec<f64> = runs.iter().map(|run| run.wall.as_secs_f64()).collect();
    let (least, most) = walls.iter().fold((f64::MAX, 0.0_f64), |(l, m), wall| (l.min(*wall), m.max(*wall)));
    let middle = median(&walls);
    let cgroup = median_of(runs, |run| run.in_cgroup.map_or(0, |said| said.peak)) / MIB;
    let cgroup = if cgroup > 0 {
        format!("; its cgroup's peak {cgroup} MiB, page cache and all")
    } else {
        String::new()
    };
    format!(
        "{middle:>8.2} ({least:>5.2}–{most:>5.2}) {:>7.2} {:>9.2} {:>7.2} {:>6.2} {:>6.1} + {:>5.1} {:>8} {:>3.0} %,{:>3.0} %  {}{cgroup}",
        seconds(runs, |run| run.sync),
        seconds(runs, |run| run.sums),
        seconds(runs, |run| run.whole(entrant.side)),
        race.set.bytes() as f64 / 1e9 / middle,
        seconds(runs, |run| run.cpu),
        seconds(runs, |run| run.server_cpu),
        median_of(runs, |run| run.peak) / MIB,
        median_of(runs, |run| run.busy.cpu) * 100.0,
        median_of(runs, |run| run.busy.disk) * 100.0,
        bottleneck(entrant),
    )
}

/// What was used up. Over loopback the network costs processor time, and has no limit of its own.
fn bottleneck(entrant: &Entrant) -> String {
    let runs = &entrant.runs;
    let of_a_core = seconds(runs, |run| run.server_cpu) / seconds(runs, |run| run.wall);
    let used_up = [
        ("CPU", median_of(runs, |run| run.busy.cpu) >= FULL),
        ("disk", median_of(runs, |run| run.busy.disk) >= FULL),
        ("server", entrant.server.is_one_thread() && of_a_core >= FULL),
    ];
    let names: Vec<&str> = used_up.into_iter().filter(|(_, used)| *used).map(|(name, _)| name).collect();
    if names.is_empty() { "none: it waits for itself".to_owned() } else { names.join(" and ") }
}

/// What a side is called in a line of its own.
pub(crate) fn named(side: Side, server: Server) -> String {
    format!("{:<22} {:<36}", side.label(), server.label())
}
