//! The commands. Each file has one command's flags and what it prints; none decides anything about entries.

use std::io;

use clap::{Parser, Subcommand};

mod affinity;
mod agent;
mod bandwidth;
mod cache;
pub mod check;
mod client;
mod document;
mod exit;
mod flags;
mod format;
pub mod gpu;
mod progress;
mod proto;
mod pull;
mod rate;
pub mod status;
mod summary;
mod table;
mod terminal;
mod tracker;
mod uninstall;
pub mod wait;

pub use agent::{AgentArgs, FlagsError, ListSource};
pub(crate) use bandwidth::Followed;
pub use bandwidth::Rate;
pub use client::{Client, ClientError, DEFAULT_SOCKET};
pub use document::Status;
pub use exit::Exit;
pub use flags::{
    CacheFlags, CapacityFlags, ClusterFlags, ContainerdFlags, GateFlags, HttpAddress, ListFlags, NodeFlags,
    SocketFlags, SourceFlags,
};
pub use progress::{Job, ProgressDisplay};
pub use status::{StatusArgs, StatusError};
pub use summary::print_summary;
pub use terminal::{Look, unless_closed};

use flags::LogFlags;

/// Keeps a GPU node warm: container images in containerd, model weights in a local cache, and labels that say so.
#[derive(Debug, Parser)]
#[command(name = "stoker", version, after_help = exit::TABLE, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    logs: LogFlags,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Agent(Box<AgentArgs>),
    Check(check::CheckArgs),
    Gpu(gpu::GpuArgs),
    Status(StatusArgs),
    Pull(Box<pull::PullArgs>),
    Cache(cache::CacheArgs),
    Uninstall(uninstall::UninstallArgs),
    Wait(wait::WaitArgs),
    Affinity(affinity::AffinityArgs),
}

impl Cli {
    /// Runs the command and says how it ended.
    ///
    /// # Errors
    /// With what stood in its way; the caller prints the whole chain.
    pub fn run(self) -> anyhow::Result<Exit> {
        match self.command {
            // The child that loads NVML prints its answer and nothing else: no logs, no runtime.
            Command::Gpu(args) => match args.out.clone() {
                None => Ok(gpu::run(&args, &mut io::stdout().lock())?.into()),
                Some(out) => {
                    // While there is one thread only: a namespace is left by each thread for itself.
                    crate::gpu::leave_network()?;
                    self.logs.init(false)?;
                    block_on(gpu::watch(&args, out))
                }
            },
            Command::Check(args) => Ok(check::check(&args, &mut io::stdout().lock())?.into()),
            Command::Cache(args) => cache::run(&args),
            Command::Affinity(args) => block_on(affinity::run(args)),
            Command::Wait(args) => block_on(interruptible(async move { wait::run(&args).await })),
            Command::Status(args) => block_on(async { status_exit(status::run(&args).await) }),
            Command::Uninstall(args) => {
                self.logs.init(true)?;
                block_on(async move { uninstall::run(&args).await })
            }
            Command::Agent(args) => {
                let list = match args.list_source() {
                    Ok(list) => list,
                    Err(error) => {
                        eprintln!("stoker: {error}");
                        return Ok(Exit::Usage);
                    }
                };
                self.logs.init(args.once)?;
                block_on(crate::run::agent(*args, list))
            }
            Command::Pull(args) => {
                self.logs.init(true)?;
                block_on(pull::run(*args))
            }
        }
    }
}

/// For a command that waits: as the first process of a container it gets no SIGTERM that it doesn't take over.
async fn interruptible(command: impl Future<Output = Exit>) -> anyhow::Result<Exit> {
    let stop = crate::rt::Shutdown::new()?.token();
    tokio::select! {
        exit = command => Ok(exit),
        () = stop.cancelled() => Ok(Exit::Interrupted),
    }
}

/// An agent that can't be reached is an answer of its own.
fn status_exit(ended: Result<(), StatusError>) -> anyhow::Result<Exit> {
    match ended {
        Ok(()) => Ok(Exit::Done),
        Err(StatusError::Agent(error)) => {
            eprintln!("stoker: {}", crate::rt::chain(&error));
            Ok(Exit::Unreachable)
        }
        Err(error @ StatusError::Output(_)) => Err(error.into()),
    }
}

/// A runtime for the commands that wait for something. Few threads: an agent beside paying workloads is small.
fn block_on(command: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<Exit> {
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.clamp(2, 4))
        .max_blocking_threads(64)
        .thread_keep_alive(std::time::Duration::from_secs(5))
        .enable_all()
        .build()?;
    let ended = runtime.block_on(command);
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    ended
}
