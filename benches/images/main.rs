//! How long an image takes from a registry into containerd: by containerd itself as it comes, by containerd tuned as
//! well as it goes, and by `stoker pull`. Same registry, same bytes, the page cache dropped before each run.
//!
//! `cargo bench --bench images`, or with some of `-- floor race cores shaped`. The environment narrows it:
//! `BENCH_IMAGES=A,C`, `BENCH_ROUNDS=3`, `BENCH_SIDES=tuned,ours`, `BENCH_LIMITED=1` (ours once more, within the limits
//! that the DaemonSet has), `BENCH_REGISTRY=warm` (the registry has its blobs in memory), `BENCH_LINK=90,20` (MB/s of a
//! connection for `shaped`), `BENCH_MAKE=1` (only make the images).
//!
//! The images are made once, out of packages of PyPI, and kept beside the other parts (`STOKER_PARTS`): 8 GB. A run
//! needs 8 GB more below `TMPDIR`. Every figure depends on the machine, its disk and what else it does: quote ratios,
//! and the lines about the machine and the floor with them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a race that can't go on says why"
)]

mod cores;
mod figures;
mod floor;
mod layers;
mod made;
#[path = "../measure/mod.rs"]
mod measure;
#[path = "../../tests/real/parts/mod.rs"]
mod parts;
mod race;
mod settings;
mod shaped;
mod sides;
mod slow_registry;
mod store;
mod wheels;

use std::process::ExitCode;

use parts::{Registry, Scratch};
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
    let store = made::bring().await;
    let images: Vec<&made::Image> =
        store.images.iter().filter(|image| settings.wants_image(&image.name)).collect();
    for image in &images {
        println!("{}", image.line());
    }
    if settings.only_make {
        return;
    }
    let mut floors = Vec::new();
    let scratch = Scratch::new("floor");
    if settings.wants("floor") {
        let registry = Registry::start_over(&store.directory).await;
        floors = floor::measure(&store, &images, &registry, &scratch).await;
    }
    if settings.wants("race") {
        let registry = Registry::start_over(&store.directory).await;
        let races = race::all(settings, &store, &images, &registry).await;
        figures::print_all(&races, &floors);
    }
    if settings.wants("cores") {
        let registry = Registry::start_over(&store.directory).await;
        cores::run(settings, &store, &registry).await;
    }
    if settings.wants("shaped") {
        shaped::run(settings, &store).await;
    }
}
