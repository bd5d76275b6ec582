//! `stoker gpu`: one probe of the driver, for people, scripts, and the agent.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use crate::gpu::{Asked, ProbeAnswer, ProbeCommand, ProbeTarget, ask, hold_lifeline, probe};
use crate::types::GpuPhase;

/// Ask the NVIDIA driver once whether its GPUs are usable
///
/// Exits 0 when they are, or when this host has none; else 1, with the reason and what to do next. NVML is loaded in
/// a child process, so that a driver that hangs or crashes takes only that one with it.
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

fn in_a_child(args: &GpuArgs) -> io::Result<ProbeAnswer> {
    let command = ProbeCommand {
        exe: "/proc/self/exe".into(),
        target: target(args),
        deadline: Duration::from_secs(args.deadline),
    };
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
