//! How long a model's files take from a server onto this disk: by `stoker`, verified and durable, and by the programs
//! that people use for it today. Same server, same bytes; rounds interleaved.
//!
//! `cargo bench --bench weights`, or with some of `-- floor model small shaped killed flipped faults idle`; about an hour. The
//! environment narrows it: `BENCH_GIB=1` (the model's size, 8 if not given; 0.1 only shows that it works),
//! `BENCH_ROUNDS=3`, `BENCH_SIDES=pull,rclone`, `BENCH_LINK=90,20` (MB/s of a connection for `shaped`, 90 if not given),
//! `BENCH_MAKE=1` (only make the files).
//!
//! `tests/setup/bring-parts.sh --bench` brings the peers; one that isn't there is left out, and named. The files are
//! made once and kept beside the other parts (`STOKER_PARTS`): the model's size and a quarter while they are made. A run
//! needs the model's size more below `TMPDIR`, which must be on the disk that is meant. Every figure depends on the
//! machine, its disk and what else it does: quote ratios, and the lines about the machine and the floor with them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a race that can't go on says why"
)]

mod faults;
mod figures;
mod flipped;
mod floor;
mod idle;
mod killed;
mod made;
#[path = "../measure/mod.rs"]
mod measure;
#[path = "../../tests/real/parts/mod.rs"]
mod parts;
mod peers;
mod place;
mod race;
mod safetensors;
mod servers;
mod settings;
mod shaped;
mod sides;

use std::process::ExitCode;

use made::Made;
use servers::Servers;
use settings::{PARTS, Settings};

fn main() -> ExitCode {
    // `cargo test --benches` only wants to know that it can be built; `cargo bench` says that it means it.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let named = arguments.into_iter().filter(|argument| !argument.starts_with('-')).collect();
    let settings = match Settings::read(named) {
        Ok(settings) => settings,
        Err(problem) => {
            eprintln!("{problem}; what can be run: {}", PARTS.join(", "));
            return ExitCode::FAILURE;
        }
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be made");
    runtime.block_on(async {
        tokio::select! {
            () = run(&settings) => ExitCode::SUCCESS,
            _ = tokio::signal::ctrl_c() => {
                eprintln!("\nstopped; everything is taken down");
                ExitCode::from(130)
            }
        }
    })
}

/// All that is wanted. Whatever was started goes when this is dropped.
async fn run(settings: &Settings) {
    println!("\n{}", measure::machine());
    let made = made::bring(settings.mib).await;
    for set in [&made.model, &made.small] {
        println!("  {}", set.line());
    }
    if settings.only_make {
        return;
    }
    println!("  {}", memory(&made));
    let servers = Servers::start(&made).await;
    let floor = if settings.wants("floor") { Some(floor::measure(&made, &servers).await) } else { None };
    let mut races = Vec::new();
    for set in [&made.model, &made.small] {
        if settings.wants(&set.name) {
            races.push(race::run(settings, &made, set, &servers).await);
        }
    }
    if !races.is_empty() {
        figures::print_all(&races, floor.as_ref());
    }
    if settings.wants("shaped") {
        shaped::run(settings, &made).await;
    }
    if settings.wants("killed") {
        killed::run(settings, &made, &servers).await;
    }
    if settings.wants("flipped") {
        flipped::run(settings, &made, &servers).await;
    }
    if settings.wants("faults") {
        faults::run(settings, &made, &servers).await;
    }
    if settings.wants("idle") {
        idle::run().await;
    }
}

/// Whether the servers can have the model in memory beside what a side writes.
fn memory(made: &Made) -> String {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: u64 = line.and_then(|line| line.trim().split(' ').next()?.parse().ok()).unwrap_or_default();
    if kib << 10 > made.model.bytes() * 2 {
        "the servers have their files in memory: there is room for them and for what is written".to_owned()
    } else {
        "NOT enough memory for the servers' files and for what is written: they are read from this disk too"
            .to_owned()
    }
}
