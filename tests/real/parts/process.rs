//! A child process that can't outlive the test run.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use super::programs::system;
use super::scratch::parent;
use super::wait::within;

/// How long a part may take to stop before it is killed.
const STOP: Duration = Duration::from_secs(10);
/// How many log lines a failure shows.
const SHOWN: usize = 30;

/// A child process with its log in a file. Dropped, it is stopped: SIGTERM, a bounded wait, SIGKILL for its whole
/// process group. The kernel kills it when the test run dies: the parent-death signal comes when the *thread* that
/// started it ends, so each child has its own thread, which starts it and then waits for it.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    pid: Pid,
    log: PathBuf,
    exit: Arc<Exit>,
    keeper: Option<JoinHandle<()>>,
    kind: Kind,
}

/// How a process is asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// SIGTERM.
    Plain,
    /// It only waits for a child that it forked, as `nsenter` does: SIGTERM for that child.
    Wrapper,
    /// Its child is the first process of a namespace: SIGKILL for that child. The kernel then kills all others
    /// inside, and only then does the child's end show.
    Holder,
}

#[derive(Debug, Default)]
struct Exit {
    status: Mutex<Option<ExitStatus>>,
    changed: Condvar,
}

impl Exit {
    fn lock(&self) -> MutexGuard<'_, Option<ExitStatus>> {
        self.status.lock().expect("no keeper panics with the lock")
    }
}

impl Process {
    /// Starts `command`; its output is appended to the file `log`.
    ///
    /// # Panics
    /// When it can't be started.
    pub(crate) fn start(name: &str, command: &Command, log: &Path) -> Self {
        let mut command = dying_with_us(command);
        let output = File::options().create(true).append(true).open(log).expect("the log can be opened");
        command.stdin(Stdio::null()).stdout(output.try_clone().expect("a second handle")).stderr(output);
        let exit = Arc::new(Exit::default());
        let (started, start) = mpsc::sync_channel(1);
        let keeper = {
            let exit = Arc::clone(&exit);
            std::thread::spawn(move || keep(&mut command, &started, &exit))
        };
        let pid = match start.recv().expect("the keeper reports the start") {
            Ok(pid) => pid,
            Err(error) => panic!("{name} can't be started: {error}"),
        };
        Self {
            name: name.to_owned(),
            pid,
            log: log.to_owned(),
            exit,
            keeper: Some(keeper),
            kind: Kind::Plain,
        }
    }

    /// The same for a command that forks its real work and ends when that ends, as `nsenter` does.
    pub(crate) fn start_wrapped(name: &str, command: &Command, log: &Path) -> Self {
        let mut process = Self::start(name, command, log);
        process.kind = Kind::Wrapper;
        process
    }

    /// The same for a command whose child holds a process namespace: stopping it ends all that runs inside.
    pub(crate) fn start_holder(name: &str, command: &Command, log: &Path) -> Self {
        let mut process = Self::start(name, command, log);
        process.kind = Kind::Holder;
        process
    }

    /// Its pid. It may be gone by now.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// All that it has logged.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// How it ended; `None` while it runs.
    pub(crate) fn exit_status(&self) -> Option<ExitStatus> {
        *self.exit.lock()
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// When it hasn't by `deadline`.
    pub(crate) async fn wait(&self, deadline: Duration) -> ExitStatus {
        match within(deadline, async || self.exit_status()).await {
            Some(status) => status,
            None => panic!("{} still runs after {deadline:?}{}", self.name, self.last_lines()),
        }
    }

    /// Asks `condition` until it gives something.
    ///
    /// # Panics
    /// When the process ends or `deadline` passes first; the message shows the end of its log.
    pub(crate) async fn wait_ready<T>(
        &self,
        what: &str,
        deadline: Duration,
        mut condition: impl AsyncFnMut() -> Option<T>,
    ) -> T {
        let answer = within(deadline, async || match self.exit_status() {
            Some(status) => Some(Err(status)),
            None => condition().await.map(Ok),
        });
        match answer.await {
            Some(Ok(value)) => value,
            Some(Err(status)) => panic!("{} ended ({status}) before {what}{}", self.name, self.last_lines()),
            None => panic!("{}: {what} didn't come within {deadline:?}{}", self.name, self.last_lines()),
        }
    }

    /// Asks it to stop, and doesn't wait.
    pub(crate) fn terminate(&self) {
        let status = self.exit.lock();
        // Not reaped yet, so that the pid is still its own.
        if status.is_none() {
            let (pid, signal) = match self.kind {
                Kind::Plain => (self.pid, Signal::TERM),
                Kind::Wrapper => (self.child().unwrap_or(self.pid), Signal::TERM),
                Kind::Holder => (self.child().unwrap_or(self.pid), Signal::KILL),
            };
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Sends it SIGHUP.
    pub(crate) fn hang_up(&self) {
        let status = self.exit.lock();
        if status.is_none() {
            let _ = rustix::process::kill_process(self.pid, Signal::HUP);
        }
    }

    /// Its first child.
    pub(crate) fn child(&self) -> Option<Pid> {
        let own = self.pid();
        let pids = std::fs::read_dir("/proc").ok()?;
        let mut pids = pids.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        Pid::from_raw(pids.find(|pid| parent(*pid) == Some(own))?.cast_signed())
    }

    /// Kills it and its process group at once (SIGKILL), and waits until it is gone.
    pub(crate) fn kill9(&self) {
        {
            let status = self.exit.lock();
            if status.is_none() {
                let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
            }
        }
        assert!(self.gone_within(STOP), "{} survived SIGKILL{}", self.name, self.last_lines());
    }

    /// Whether it has ended, or ends within `time`.
    pub(crate) fn gone_within(&self, time: Duration) -> bool {
        let (status, _) = self
            .exit
            .changed
            .wait_timeout_while(self.exit.lock(), time, |status| status.is_none())
            .expect("lock");
        status.is_some()
    }

    /// The end of the log, as an appendix to a failure's message.
    pub(crate) fn last_lines(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let shown = lines.get(lines.len().saturating_sub(SHOWN)..).unwrap_or_default();
        format!("\n--- end of {}'s log ---\n{}\n---", self.name, shown.join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.last_lines());
        }
        self.terminate();
        if !self.gone_within(STOP) {
            let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
        }
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

/// Starts the child, tells its pid, waits for its end, ends what is left of its process group, reaps it.
fn keep(command: &mut Command, started: &mpsc::SyncSender<std::io::Result<Pid>>, exit: &Exit) {
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    let pid = Pid::from_child(&child);
    let _ = started.send(Ok(pid));
    // Not reaped yet, so that its pid and its group's id are still its own.
    while rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).is_err() {}
    let mut status = exit.lock();
    let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    *status = child.wait().ok();
    exit.changed.notify_all();
}

/// The same command, in a process group of its own and with the parent-death signal set.
fn dying_with_us(command: &Command) -> Command {
    use std::os::unix::process::CommandExt as _;
    let mut wrapped = Command::new(system("setpriv"));
    wrapped.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        wrapped.current_dir(dir);
    }
    wrapped.process_group(0);
    wrapped
}
