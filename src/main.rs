//! The program `stoker`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use stoker::cli::gpu::{self, GpuArgs, GpuExit};

/// Warms a GPU node before the pods land
#[derive(Parser)]
#[command(name = "stoker", version)]
struct Stoker {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Gpu(GpuArgs),
}

fn main() -> ExitCode {
    let Command::Gpu(args) = Stoker::parse().command;
    match gpu::run(&args, &mut std::io::stdout().lock()) {
        Ok(GpuExit::Usable) => ExitCode::SUCCESS,
        Ok(GpuExit::NotUsable) => ExitCode::from(1),
        Err(error) => {
            eprintln!("stoker: {error}");
            ExitCode::from(2)
        }
    }
}
