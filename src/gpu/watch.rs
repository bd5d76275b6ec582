//! The probe container's task: probes again and again, and writes what came of it for the agent to read. It logs to
//! standard error, needs no network and no API, and never loads NVIDIA's library itself.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::boot_clock::{boot_id, millis};
use super::child::{ProbeCommand, ask_until};
use super::gate::{Gate, GateParams};
use super::hold::Hold;
use super::hold_file::heed;
use super::notice::{Notice, Said, hold_path, try_place};
use super::pace::{Pace, longest_silence};
use super::rounds::{Came, Told, go_round};
use super::task::log_change;
use crate::rt::uptime;
use crate::types::GpuState;

/// Before the driver is there it's asked this often, or as often as once it is, if that is more.
const WAITING: Duration = Duration::from_millis(1500);

/// The watch can't begin, or has ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The file can't be put where it should be.
    #[error("cannot write {}; --out must be in a directory that is there and writable", path.display())]
    Out {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The kernel doesn't say which boot this is.
    #[error("cannot tell which boot this is")]
    Boot(#[source] io::Error),
    /// A fault of this program.
    #[error("the watch has ended")]
    Ended(#[source] tokio::task::JoinError),
}

/// Probes every `interval` until `stop`, more often while the driver isn't ready, and writes each answer to `out`.
/// While the file that the agent may put beside `out` asks for it, no probe is started. On `stop` it returns at once
/// and kills the child.
///
/// # Errors
/// When it can't begin: see [`WatchError`]. Once it has, a file that can't be written is warned of and tried again.
pub async fn watch_into(
    command: ProbeCommand,
    interval: Duration,
    out: PathBuf,
    stop: CancellationToken,
) -> Result<(), WatchError> {
    try_place(&out).map_err(|cause| WatchError::Out { path: out.clone(), cause })?;
    let boot_id = boot_id().map_err(WatchError::Boot)?;
    let pace = Pace { steady: interval, waiting: WAITING.min(interval) };
    let holding = hold_path(&out);
    let mut writer = Writer::new(out, boot_id, pace, command.deadline);
    let rounds = async move {
        let (sender, holds) = watch::channel(Hold::No);
        let gate = Gate::new(GateParams::default(), false);
        let ask = |off: CancellationToken| {
            let command = &command;
            async move { ask_until(command, off.cancelled()).await }
        };
        tokio::select! {
            () = heed(&holding, &sender) => {}
            () = go_round(pace, gate, holds, ask, |told| writer.take(told)) => {}
        }
    };
    // A task of its own: it may hang in a file system, and must not keep this process from ending.
    let mut task = tokio::spawn(rounds);
    tokio::select! {
        () = stop.cancelled() => {
            task.abort();
            Ok(())
        }
        ended = &mut task => ended.map_err(WatchError::Ended),
    }
}

/// Writes the file.
struct Writer {
    out: PathBuf,
    boot_id: String,
    run: u64,
    sequence: u64,
    then_every: Duration,
    deadline: Duration,
    last: GpuState,
    failed: bool,
}

impl Writer {
    fn new(out: PathBuf, boot_id: String, pace: Pace, deadline: Duration) -> Self {
        Self {
            out,
            boot_id,
            run: u64::try_from(uptime().as_nanos()).unwrap_or_default(),
            sequence: 0,
            then_every: longest_silence(pace.middle(), deadline),
            deadline,
            last: GpuState::unknown(),
            failed: false,
        }
    }

    fn take(&mut self, told: Told) {
        if self.last != told.state {
            log_change(&told.state);
            self.last.clone_from(&told.state);
        }
        let written = self.notice(told, uptime()).write(&self.out);
        match &written {
            Err(error) if !self.failed => warn(&self.out, error),
            Ok(()) if self.failed => {
                tracing::info!(path = %self.out.display(), "the answer is written again")
            }
            _ => {}
        }
        self.failed = written.is_err();
    }

    fn notice(&mut self, told: Told, now: Duration) -> Notice {
        self.sequence += 1;
        Notice {
            version: Notice::VERSION,
            boot_id: self.boot_id.clone(),
            run: self.run,
            sequence: self.sequence,
            began_ms: millis(now.saturating_sub(told.took)),
            written_ms: millis(now),
            next_by_ms: millis(now.saturating_add(longest_silence(told.pause, self.deadline))),
            then_every_ms: millis(self.then_every),
            said: match told.came {
                Came::Probed(result) => Said::Probed(result),
                Came::Held(reason) => Said::Held(reason),
            },
        }
    }
}

fn warn(out: &Path, error: &io::Error) {
    tracing::warn!(path = %out.display(), %error, "cannot write the answer; the agent will count it as missing");
}

#[cfg(test)]
mod tests {
    use super::super::gate::ProbeResult;
    use super::*;

    fn told() -> Told {
        Told {
            came: Came::Probed(ProbeResult::TimedOut),
            took: Duration::from_secs(20),
            state: GpuState::unknown(),
            pause: Duration::from_secs(5),
        }
    }

    fn writer(out: PathBuf) -> Writer {
        let pace = Pace { steady: Duration::from_secs(30), waiting: WAITING };
        Writer::new(out, "boot".into(), pace, Duration::from_secs(20))
    }

    #[test]
    fn a_reader_learns_when_the_next_answer_is_due() {
        let mut writer = writer("/nowhere".into());
        let notice = writer.notice(told(), Duration::from_secs(100));
        assert_eq!((notice.began_ms, notice.written_ms), (80_000, 100_000));
        assert_eq!(notice.next_by_ms, 100_000 + 5_000 + 20_000 + 4_000, "pause, deadline, kill and slack");
        assert_eq!(notice.then_every_ms, 29_000);
        assert_eq!((notice.sequence, writer.notice(told(), Duration::from_secs(101)).sequence), (1, 2));
    }

    #[test]
    fn a_disk_that_is_full_for_a_while_is_survived() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("later/gpu.json");
        let mut writer = writer(out.clone());
        writer.take(told());
        assert!(writer.failed);
        std::fs::create_dir(dir.path().join("later")).unwrap();
        writer.take(told());
        assert_eq!(Notice::read(&out).unwrap().sequence, 2);
    }
}
