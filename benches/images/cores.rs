//! The one large layer with one core, two, and so on up to all that are here: how far its time falls.

use std::process::Command;
use std::time::Duration;

use tokio::time::Instant;

use crate::made::Made;
use crate::measure::{median, usage};
use crate::parts::{Registry, system};
use crate::settings::Settings;
use crate::sides::{Side, pull_by_stoker, stoker, verify};

/// Runs it.
pub(crate) async fn run(settings: &Settings, made: &Made, registry: &Registry) {
    let image = made.image("C");
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    println!("\none layer of {} MB by the cores that stoker may use", image.compressed() / 1_000_000);
    let mut first = None;
    for cores in steps(all) {
        let mut times: Vec<Duration> = Vec::new();
        for _ in 0..settings.rounds {
            let containerd = Side::Ours.containerd().await;
            containerd.trust(&registry.host(), &registry.url());
            usage::drop_page_cache();
            Side::Ours.warm_up(&containerd, image).await;
            let reference = image.reference(&registry.host());
            let command = on_cores(cores, &stoker(&containerd, &reference));
            let begun = Instant::now();
            pull_by_stoker(command, containerd.directory()).await;
            times.push(begun.elapsed());
            verify(&containerd, image, &reference).await;
        }
        let time = median(&times).as_secs_f64();
        let one = *first.get_or_insert(time);
        println!("  {cores:>3} cores: {time:>6.2} s, {:.2} x as fast as with one", one / time);
    }
    println!("  - containerd and the registry have all {all} cores each time");
}

/// 1, 2, 4, … and all.
fn steps(all: usize) -> Vec<usize> {
    let mut steps: Vec<usize> =
        std::iter::successors(Some(1), |cores| Some(cores * 2)).take_while(|cores| *cores < all).collect();
    steps.push(all);
    steps
}

fn on_cores(cores: usize, command: &Command) -> Command {
    let mut bound = Command::new(system("taskset"));
    bound.args(["--cpu-list", &format!("0-{}", cores - 1)]);
    bound.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bound.env(name, value),
            None => bound.env_remove(name),
        };
    }
    bound
}
