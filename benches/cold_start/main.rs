//! What users feel: how soon a pod runs with its image and its weights cold and warm, and how soon a changed list
//! shows on the Node. On a real cluster on this machine, with Stoker installed as it is shipped.
//!
//! `cargo bench --bench cold_start`, or with some of `-- image weights reaction`. It needs about 8 GB below `TMPDIR`
//! and gives them back. Every figure depends on the machine, its disk and what else it does: quote ratios, and the
//! line about the machine with them. The rounds of two sides are interleaved.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a race that can't go on says why"
)]

mod cluster;
mod figures;
mod image;
#[path = "../measure/mod.rs"]
mod measure;
#[path = "../../tests/real/parts/mod.rs"]
mod parts;
mod reaction;
mod weights;

use std::process::ExitCode;

use cluster::Cluster;

/// What can be run by itself.
const RACES: [&str; 3] = ["image", "weights", "reaction"];

#[tokio::main]
async fn main() -> ExitCode {
    // `cargo test --benches` only wants to know that it can be built; `cargo bench` says that it means it.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let named: Vec<&str> =
        arguments.iter().map(String::as_str).filter(|argument| !argument.starts_with('-')).collect();
    if let Some(unknown) = named.iter().find(|name| !RACES.contains(name)) {
        eprintln!("there is no race '{unknown}': name some of {}, or none for all", RACES.join(", "));
        return ExitCode::FAILURE;
    }
    let wanted = if named.is_empty() { RACES.to_vec() } else { named };
    tokio::select! {
        () = run(&wanted) => ExitCode::SUCCESS,
        _ = tokio::signal::ctrl_c() => {
            eprintln!("\nstopped; everything is taken down");
            ExitCode::from(130)
        }
    }
}

/// All that is wanted. Whatever was started goes when this is dropped.
async fn run(wanted: &[&str]) {
    println!("\n{}", figures::machine());
    let cluster = Cluster::start().await;
    if wanted.contains(&"image") {
        image::race(&cluster).await;
    }
    let weighs = wanted.contains(&"weights");
    let reacts = wanted.contains(&"reaction");
    if weighs || reacts {
        let shards = weights::publish(&cluster).await;
        if weighs {
            weights::race(&cluster, &shards).await;
        }
        if reacts {
            reaction::rounds(&cluster).await;
        }
    }
}
