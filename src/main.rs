//! The `stoker` command. All of it is in the library.

use std::process::ExitCode;

use clap::Parser as _;
use stoker::cli::{Cli, Exit};

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("stoker: {error:#}");
            Exit::Broken.into()
        }
    }
}
