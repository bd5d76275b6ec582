//! `stoker gpu`: one probe of the driver, for people, scripts, and the agent; or, in the probe container, one after
//! the other.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;

use super::Exit;
use super::flags::seconds;
use crate::gpu::{Asked, ProbeAnswer, ProbeCommand, ProbeTarget, ask, hold_lifeline, probe, watch_into};
use crate::rt::Shutdown;
use crate::types::GpuPhase;

/// Ask the NVIDIA driver once whether its GPUs are usable
///
/// Exits 0 when they are, or when this host has none; else 1, with the reason and what to do next. NVML is loaded in
/// a child process, so that a driver that hangs or crashes takes only that one with it.
///
/// With --watch it asks again and again and writes each answer to a file, which `stoker agent --gpu-probe-file` reads: the
/// privileged half of a pod whose other half needs no privilege. It begins by leaving the network.
#[derive(Debug, Clone, clap::Args)]
pub struct GpuArgs {
    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,

    /// Load this libnvidia-ml.so.1, instead of looking in the places where drivers are installed
    #[arg(long, value_name = "FILE", env = "STOKER_NVML_PATH")]
    pub nvml_path: Option<PathBuf>,

    /// Where the host's root is mounted; the library is looked for under it
    #[arg(long, value_name = "DIR", env = "STOKER_HOST_ROOT", default_value = "/")]
    pub host_root: PathBuf,

    /// Where sysfs is mounted; it tells how many GPUs there are
    #[arg(long, value_name = "DIR", env = "STOKER_SYSFS_ROOT", default_value = "/sys")]
    pub sysfs_root: PathBuf,

    /// How many GPUs there must be, instead of as many as the PCI bus shows
    #[arg(long, value_name = "N", env = "STOKER_GPU_EXPECTED")]
    pub expected: Option<u32>,

    /// Give up after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub deadline: u64,

    /// Go on asking, in a network namespace of its own, until a signal comes
    #[arg(long, requires = "out", conflicts_with_all = ["json", "child"])]
    pub watch: bool,

    /// With --watch: the file for the answers
    #[arg(long, value_name = "FILE", requires = "watch")]
    pub out: Option<PathBuf>,

    /// With --watch: seconds between two probes of GPUs that are ready; others are asked more often
    #[arg(long, env = "STOKER_GPU_INTERVAL", default_value = "30", value_name = "SECONDS", value_parser = seconds)]
    pub interval: Duration,

    /// Load NVML into this very process, and die when standard input ends; how the probe is started
    #[arg(long, hide = true, requires = "json")]
    pub child: bool,
}

/// What to tell the caller by the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GpuExit {
    /// Ready, or nothing to be ready: 0.
    Usable,
    /// 1.
    NotUsable,
}

/// Probes and prints. Blocks for the deadline and two seconds at most (in the child: for as long as NVML does).
///
/// # Errors
/// When the answer can't be printed, or no thread or runtime started.
pub fn run(args: &GpuArgs, out: &mut impl Write) -> io::Result<GpuExit> {
    let answer = if args.child {
        hold_lifeline()?;
        probe(&target(args))
    } else {
        in_a_child(args)?
    };
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&answer)?)?;
    } else {
        write!(out, "{}", for_people(&answer))?;
    }
    out.flush()?;
    Ok(exit(&answer))
}

fn target(args: &GpuArgs) -> ProbeTarget {
    ProbeTarget {
        nvml_path: args.nvml_path.clone(),
        host_root: args.host_root.clone(),
        sysfs_root: args.sysfs_root.clone(),
        expected: args.expected,
    }
}

fn command(args: &GpuArgs) -> ProbeCommand {
    ProbeCommand {
        exe: "/proc/self/exe".into(),
        target: target(args),
        deadline: Duration::from_secs(args.deadline),
    }
}

/// Probes until a signal comes, and writes each answer to `out`. The caller has left the network.
///
/// # Errors
/// When `out` can't be written.
pub(super) async fn watch(args: &GpuArgs, out: PathBuf) -> anyhow::Result<Exit> {
    let stop = Shutdown::new().context("cannot take over SIGTERM and SIGINT")?.token();
    watch_into(command(args), args.interval, out, stop).await?;
    Ok(Exit::Done)
}

fn in_a_child(args: &GpuArgs) -> io::Result<ProbeAnswer> {
    let command = command(args);
    // On a thread of its own, so that it may be called from inside a runtime as well.
    let asked = std::thread::scope(|threads| {
        let asking = std::thread::Builder::new().spawn_scoped(threads, || -> io::Result<Asked> {
            Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(ask(&command)))
        })?;
        asking.join().map_err(|_| io::Error::other("the thread that runs the probe panicked"))?
    })?;
    Ok(asked.result.into())
}

fn exit(answer: &ProbeAnswer) -> GpuExit {
    match answer.phase {
        GpuPhase::Ready | GpuPhase::NotApplicable => GpuExit::Usable,
        GpuPhase::Unknown | GpuPhase::Waiting | GpuPhase::Degraded | GpuPhase::Failed => GpuExit::NotUsable,
    }
}

fn for_people(answer: &ProbeAnswer) -> String {
    let mut text = format!("{:?} ({:?}): {}\n", answer.phase, answer.reason, answer.reason.advice());
    let mut line = |name: &str, value: &str| text.push_str(&format!("  {name:<8} {value}\n"));
    if answer.expected > 0 {
        line("GPUs", &format!("{} of {}", answer.devices, answer.expected));
    }
    if let Some(version) = &answer.driver_version {
        line("driver", version);
    }
    if let Some(library) = &answer.library {
        line("library", &library.display().to_string());
    }
    if !answer.message.is_empty() {
        line("details", &answer.message);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::GpuReason;

    #[test]
    fn people_read_the_next_step_first() {
        let answer = ProbeAnswer {
            devices: 7,
            expected: 8,
            driver_version: Some("550.54.15".into()),
            library: Some("/usr/lib64/libnvidia-ml.so.1".into()),
            ..ProbeAnswer::new(GpuPhase::Degraded, GpuReason::GpuCountMismatch, "7 of 8 GPUs answer")
        };
        let expected = "\
Degraded (GpuCountMismatch): fewer GPUs answer than are expected; look for Xid errors in dmesg
  GPUs     7 of 8
  driver   550.54.15
  library  /usr/lib64/libnvidia-ml.so.1
  details  7 of 8 GPUs answer
";
        assert_eq!(for_people(&answer), expected);
        assert_eq!(exit(&answer), GpuExit::NotUsable);
    }

    #[test]
    fn a_host_without_gpus_is_not_a_failure() {
        let answer = ProbeAnswer::new(GpuPhase::NotApplicable, GpuReason::NoNvidiaDevice, "");
        assert_eq!(exit(&answer), GpuExit::Usable);
    }
}
