//! One probe in a process of its own, with a deadline.

use std::ffi::OsString;
use std::future::Future;
use std::io::{self, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

use super::answer::ProbeAnswer;
use super::gate::ProbeResult;
use super::probe::ProbeTarget;

/// An answer is well under 4 KiB; more is a library that talks.
const LONGEST_ANSWER: usize = 64 * 1024;
/// How much of what it complains of is kept.
const LONGEST_COMPLAINT: usize = 2 * 1024;
/// How long a killed child may take to go; one that sits in the kernel takes as long as the driver likes.
pub(super) const KILL_GRACE: Duration = Duration::from_secs(2);
/// How long its pipes may stay open after it has ended, in the hands of a process that the library started.
const PIPE_GRACE: Duration = Duration::from_millis(500);

/// How to run one probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeCommand {
    /// This program: `/proc/self/exe`, which stays the same through an upgrade of the file.
    pub exe: PathBuf,
    /// What is probed.
    pub target: ProbeTarget,
    /// How long it may take before it's killed.
    pub deadline: Duration,
}

/// How a probe ended for whoever asked.
pub struct Asked {
    /// What came of it.
    pub result: ProbeResult,
    /// Its process, when even SIGKILL didn't end it within two seconds: resolves once it's gone. Until then nobody
    /// should start another one, or a wedged driver gathers processes.
    pub stuck: Option<Stuck>,
}

/// See [`Asked::stuck`].
pub type Stuck = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs one probe, and returns within its deadline and two seconds. Dropping the future kills the child.
pub async fn ask(command: &ProbeCommand) -> Asked {
    ask_until(command, std::future::pending()).await
}

/// As [`ask`], but kills the child as soon as `called_off` ends; what came of it then is [`ProbeResult::TimedOut`].
pub(super) async fn ask_until(command: &ProbeCommand, called_off: impl Future<Output = ()>) -> Asked {
    let mut running = match Running::start(command) {
        Ok(running) => running,
        Err(error) => {
            let what = format!("cannot run {}: {error}", command.exe.display());
            return Asked { result: ProbeResult::Failed(what), stuck: None };
        }
    };
    let end = tokio::select! {
        end = timeout(command.deadline, running.end()) => end.ok(),
        () = called_off => None,
    };
    if let Some(end) = end {
        return Asked { result: end.map_or_else(|error| unreadable(&error), End::result), stuck: None };
    }
    running.kill();
    // An error here means that it's no longer ours to wait for: gone.
    let gone = timeout(KILL_GRACE, running.child.wait()).await.is_ok();
    let stuck = (!gone).then(|| -> Stuck {
        tracing::warn!(
            pid = running.child.id(),
            "the GPU probe can't be killed; no other is started until it ends"
        );
        Box::pin(async move {
            let _ = running.child.wait().await;
        })
    });
    Asked { result: ProbeResult::TimedOut, stuck }
}

fn unreadable(error: &io::Error) -> ProbeResult {
    ProbeResult::Failed(format!("cannot wait for the probe: {error}"))
}

/// Ends this process by SIGKILL as soon as standard input ends. A probe calls it first: whoever started it holds
/// the other end of that pipe, so that a probe never outlives an agent that was killed. (`PR_SET_PDEATHSIG` would
/// follow the death of the parent's *thread*, and come too late for a parent that is already dead.)
///
/// # Errors
/// When the thread that watches can't be started.
pub fn hold_lifeline() -> io::Result<()> {
    let watch = || {
        let mut ignored = [0; 64];
        while matches!(io::stdin().read(&mut ignored), Ok(count) if count > 0) {}
        let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
    };
    std::thread::Builder::new().name("lifeline".into()).spawn(watch).map(drop)
}

struct Running {
    child: Child,
    /// Closed when this is dropped, which ends the child even if no signal reaches it.
    _lifeline: Option<ChildStdin>,
}

/// How a child ended.
struct End {
    status: ExitStatus,
    answer: Vec<u8>,
    complaint: Vec<u8>,
}

impl Running {
    fn start(command: &ProbeCommand) -> io::Result<Self> {
        let mut child = Command::new(&command.exe)
            .args(arguments(&command.target))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        // Taken, because waiting closes what is left in the child.
        let lifeline = child.stdin.take();
        Ok(Self { child, _lifeline: lifeline })
    }

    async fn end(&mut self) -> io::Result<End> {
        let (mut answer, mut complaint) = (Vec::new(), Vec::new());
        let (stdout, stderr) = (self.child.stdout.take(), self.child.stderr.take());
        let status = {
            let read = async {
                tokio::join!(
                    keep(stdout, LONGEST_ANSWER, &mut answer),
                    keep(stderr, LONGEST_COMPLAINT, &mut complaint)
                )
            };
            let mut read = pin!(read);
            tokio::select! {
                status = self.child.wait() => {
                    let _ = timeout(PIPE_GRACE, &mut read).await;
                    status
                }
                _ = &mut read => self.child.wait().await,
            }?
        };
        Ok(End { status, answer, complaint })
    }

    /// Kills the child and whatever the library started. Does nothing once it's reaped: the number may be another's.
    fn kill(&self) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(group) = pid {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

impl End {
    fn result(self) -> ProbeResult {
        if let Some(signal) = self.status.signal() {
            return ProbeResult::Crashed { signal };
        }
        match serde_json::from_slice::<ProbeAnswer>(&self.answer) {
            Ok(answer) if answer.version == ProbeAnswer::VERSION => ProbeResult::Answer(answer),
            Ok(answer) => ProbeResult::Failed(format!(
                "the probe answers in version {} of its format, not {}",
                answer.version,
                ProbeAnswer::VERSION
            )),
            Err(error) => {
                let complaint = String::from_utf8_lossy(&self.complaint);
                let complaint = complaint.split_whitespace().collect::<Vec<_>>().join(" ");
                let status = self.status;
                ProbeResult::Failed(format!(
                    "the probe ended ({status}) without an answer: {error} {complaint}"
                ))
            }
        }
    }
}

fn arguments(target: &ProbeTarget) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = ["gpu", "--json", "--child"].map(OsString::from).into();
    let mut flag = |name: &str, value: OsString| arguments.extend([name.into(), value]);
    flag("--host-root", target.host_root.clone().into());
    flag("--sysfs-root", target.sysfs_root.clone().into());
    if let Some(path) = &target.nvml_path {
        flag("--nvml-path", path.clone().into());
    }
    if let Some(expected) = target.expected {
        flag("--expected", expected.to_string().into());
    }
    arguments
}

/// Reads to the end, and keeps the first `limit` bytes: a child must never wait for us to read.
async fn keep(stream: Option<impl AsyncRead + Unpin>, limit: usize, kept: &mut Vec<u8>) {
    let Some(mut stream) = stream else { return };
    let mut buffer = [0; 4096];
    while let Ok(count) = stream.read(&mut buffer).await {
        let Some(read) = buffer.get(..count).filter(|read| !read.is_empty()) else { return };
        let room = limit.saturating_sub(kept.len()).min(read.len());
        kept.extend(read.iter().take(room));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keeps_the_head_and_reads_on() {
        let (mut writer, reader) = tokio::io::duplex(16);
        let write = async move {
            use tokio::io::AsyncWriteExt as _;
            writer.write_all(&[7; 10_000]).await.unwrap();
        };
        let mut kept = Vec::new();
        tokio::join!(write, keep(Some(reader), 100, &mut kept));
        assert_eq!(kept, [7; 100]);
    }

    fn ended(status: i32, answer: &str) -> ProbeResult {
        End { status: ExitStatus::from_raw(status), answer: answer.into(), complaint: "oh\nno".into() }
            .result()
    }

    #[test]
    fn an_end_without_a_whole_answer_is_a_failure() {
        let ProbeResult::Failed(why) = ended(101 << 8, "") else { panic!() };
        assert!(why.contains("exit status: 101") && why.ends_with("oh no"), "{why}");
        let ProbeResult::Failed(why) = ended(0, r#"{"version":1,"phase":"Ready""#) else { panic!() };
        assert!(why.contains("EOF"), "{why}");
    }

    #[test]
    fn a_crash_is_a_crash_whatever_was_said_before() {
        let ready = ProbeAnswer::new(crate::types::GpuPhase::Ready, crate::types::GpuReason::DriverReady, "");
        let line = serde_json::to_string(&ready).unwrap();
        assert_eq!(ended(0, &line), ProbeResult::Answer(ready.clone()));
        assert_eq!(ended(11, &line), ProbeResult::Crashed { signal: 11 });
        let newer = serde_json::to_string(&ProbeAnswer { version: 2, ..ready }).unwrap();
        let ProbeResult::Failed(why) = ended(0, &newer) else { panic!() };
        assert!(why.contains("version 2"), "{why}");
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let command = ProbeCommand {
            exe: "/nowhere/stoker".into(),
            target: ProbeTarget::default(),
            deadline: Duration::from_secs(5),
        };
        let asked = ask(&command).await;
        let ProbeResult::Failed(why) = asked.result else { panic!() };
        assert!(why.starts_with("cannot run /nowhere/stoker: "), "{why}");
        assert!(asked.stuck.is_none());
    }
}
