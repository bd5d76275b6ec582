//! A command run to its end, and what it used.

use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use tokio::time::Instant;

use super::usage;
use crate::parts::Process;

/// Often enough: a process's peak only grows, and the last one asked for counts. A time is right to this.
const LOOK: Duration = Duration::from_millis(2);

/// What a command used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Used {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// From its start to its end.
    pub(crate) wall: Duration,
    /// Its processor time, and that of the children that it waited for.
    pub(crate) cpu: Duration,
    /// Its largest resident size, in bytes.
    pub(crate) peak: u64,
}

/// Runs it to its end, whatever that is. No other child of this process may end meanwhile. Dropped, it ends the command.
pub(crate) async fn to_its_end(name: &str, command: &Command, log: &Path) -> Used {
    let before = usage::cpu_of_children();
    let begun = Instant::now();
    let process = Process::start(name, command, log);
    let mut peak = 0;
    let status = loop {
        if let Some(status) = process.exit_status() {
            break status;
        }
        peak = peak.max(usage::peak(process.pid()));
        tokio::time::sleep(LOOK).await;
    };
    let wall = begun.elapsed();
    Used { status, wall, cpu: usage::cpu_of_children().saturating_sub(before), peak }
}

/// The same for one that must do it.
///
/// # Panics
/// When it fails; the message has the end of its log.
pub(crate) async fn must_do(name: &str, command: &Command, log: &Path) -> Used {
    let used = to_its_end(name, command, log).await;
    if !used.status.success() {
        let log = std::fs::read(log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        let lines: Vec<&str> = log.lines().collect();
        panic!("{name}: {}\n{}", used.status, lines[lines.len().saturating_sub(30)..].join("\n"));
    }
    used
}
