//! The `stoker` binary itself, run as its users run it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::time::Duration;

use serde::Deserialize;

use super::containerd::small_disk;
use super::process::Process;
use super::scratch::Scratch;
use super::wait::{START, until};

/// The `stoker` that was built with this test.
pub(super) fn binary() -> PathBuf {
    // Cargo tells a test where the binary is; an example lies in a directory beside it.
    let path = match option_env!("CARGO_BIN_EXE_stoker") {
        Some(stoker) => PathBuf::from(stoker),
        None => {
            let own = std::env::current_exe().expect("a program knows where it is");
            own.parent().and_then(Path::parent).expect("it lies in two directories").join("stoker")
        }
    };
    assert!(path.is_file(), "{} isn't there: build it with the same profile first", path.display());
    path
}

/// A `stoker` command to be run, with an environment that has nothing of the user's own settings.
#[derive(Debug)]
pub(crate) struct Stoker {
    command: Command,
}

impl Stoker {
    /// `stoker ARGS…`
    pub(crate) fn new(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        let mut command = Command::new(binary());
        let foreign = ["STOKER_", "AWS_", "HF_", "AZURE_", "GOOGLE_", "GCE_", "STORAGE_EMULATOR_"];
        for (name, _) in std::env::vars_os() {
            if foreign.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        // No instance metadata service answers here; looking for one takes seconds.
        command.args(args).env("AWS_EC2_METADATA_DISABLED", "true");
        Self { command }
    }

    /// Adds arguments.
    pub(crate) fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable of its environment.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Sets several.
    pub(crate) fn envs(mut self, envs: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        self.command.envs(envs);
        self
    }

    /// The command itself, for one who wants its output elsewhere.
    pub(crate) fn command(self) -> Command {
        self.command
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When it hasn't ended by `deadline`.
    pub(crate) async fn output(self, deadline: Duration) -> Output {
        let shown = format!("{:?}", self.command);
        let mut command = tokio::process::Command::from(self.command);
        let run = command.kill_on_drop(true).output();
        let output = tokio::time::timeout(deadline, run).await;
        output.unwrap_or_else(|_| panic!("{shown} still runs after {deadline:?}")).expect("stoker can be run")
    }
}

/// A running `stoker agent`, with its own cache, state and socket. They outlive the process, so that it can be
/// killed and started again.
#[derive(Debug)]
pub(crate) struct Agent {
    process: Option<Process>,
    args: Vec<OsString>,
    envs: Vec<(String, String)>,
    scratch: Scratch,
}

impl Agent {
    /// An agent that isn't started yet.
    pub(crate) fn new() -> Self {
        let scratch = Scratch::new("agent");
        let mut agent = Self { process: None, args: Vec::new(), envs: Vec::new(), scratch };
        let (cache, state, socket) = (agent.cache(), agent.state(), agent.socket());
        let dirs = [("--cache-dir", cache), ("--state-dir", state), ("--socket", socket)];
        for (flag, dir) in dirs {
            agent = agent.arg(flag).arg(dir);
        }
        // Whoever runs the tests may have a disk that a kubelet would call full.
        let agent = agent.env("STOKER_IMAGE_GC_HIGH_THRESHOLD", "100");
        // Several agents run at once here, so none takes the HTTP port unless `--http` says so.
        agent.arg("--allow-root-fs").env("STOKER_HTTP", "off")
    }

    /// Its cache is a disk of its own with so much room. Its scratch directory takes it down.
    pub(crate) fn with_small_cache(self, mib: u32) -> Self {
        small_disk(&self.scratch.dir("cache"), mib);
        self
    }

    /// Adds an argument.
    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub(crate) fn args(self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    /// Sets a variable of its environment.
    pub(crate) fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.envs.push((name.to_owned(), value.into()));
        self
    }

    /// Sets several.
    pub(crate) fn envs(self, envs: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        envs.into_iter().fold(self, |agent, (name, value)| agent.env(name, value))
    }

    /// Writes the list (by a rename) and gives its path; `--list` is for the caller to add.
    pub(crate) fn write_list(&self, list: &str) -> PathBuf {
        let new = self.scratch.file("list.new", list);
        let path = self.scratch.join("list.yaml");
        std::fs::rename(new, &path).expect("a rename within one directory");
        path
    }

    /// The weights' cache.
    pub(crate) fn cache(&self) -> PathBuf {
        self.scratch.join("cache")
    }

    /// The state directory.
    pub(crate) fn state(&self) -> PathBuf {
        self.scratch.join("state")
    }

    /// The socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.scratch.join("agent.sock")
    }

    /// Its own directory, for more files.
    pub(crate) fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    fn stoker(&self, more: &[&str]) -> Stoker {
        let stoker = Stoker::new(["agent"]).args(&self.args).args(more);
        self.envs.iter().fold(stoker, |stoker, (name, value)| stoker.env(name, value))
    }

    /// Starts it and waits until its socket answers.
    pub(crate) async fn start(&mut self) {
        self.spawn();
        let answers = async || self.status().await.map(drop);
        self.running().wait_ready("an answer on its socket", START, answers).await;
    }

    /// Starts it, and doesn't wait.
    pub(crate) fn spawn(&mut self) {
        self.process = None;
        let command = self.stoker(&[]).command();
        self.process = Some(Process::start("stoker agent", &command, &self.scratch.join("agent.log")));
    }

    /// Runs `stoker agent --once` to its end.
    pub(crate) async fn once(&self, deadline: Duration) -> Output {
        self.stoker(&["--once"]).output(deadline).await
    }

    /// The command of that, for one who wants its output elsewhere.
    pub(crate) fn once_command(&self) -> Command {
        self.stoker(&["--once"]).command()
    }

    /// The process.
    ///
    /// # Panics
    /// When it isn't started.
    pub(crate) fn running(&self) -> &Process {
        self.process.as_ref().expect("the agent was started")
    }

    /// All that it has logged, over its restarts.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.join("agent.log")).unwrap_or_default()
    }

    /// What `stoker status --json` says; `None` while the agent doesn't answer.
    pub(crate) async fn status(&self) -> Option<Status> {
        Status::of_socket(&self.socket()).await
    }

    /// Waits until the status is as `condition` says, and gives it.
    ///
    /// # Panics
    /// When the agent ends or `deadline` passes first; the message has the last status and the log's end.
    pub(crate) async fn wait_for(
        &self,
        what: &str,
        deadline: Duration,
        condition: impl Fn(&Status) -> bool,
    ) -> Status {
        let mut last = None;
        let met = super::wait::within(deadline, async || {
            if let Some(status) = self.running().exit_status() {
                return Some(Err(format!("it ended ({status})")));
            }
            last = self.status().await;
            last.clone().filter(|status| condition(status)).map(Ok)
        });
        let why = match met.await {
            Some(Ok(status)) => return status,
            Some(Err(ended)) => ended,
            None => format!("not within {deadline:?}"),
        };
        panic!(
            "stoker agent: waited for {what}: {why}; last status: {last:#?}{}",
            self.running().last_lines()
        )
    }

    /// Waits until an entry is in a state, and gives it.
    pub(crate) async fn wait_entry(&self, id: &str, state: &str, deadline: Duration) -> Entry {
        let what = format!("{id} to be {state}");
        let is = |status: &Status| status.entry(id).is_some_and(|entry| entry.state == state);
        self.wait_for(&what, deadline, is).await.entry(id).cloned().expect("the condition saw it")
    }

    /// Asks it to stop (SIGTERM) and waits until it has.
    pub(crate) async fn stop(&mut self, deadline: Duration) -> ExitStatus {
        let process = self.process.take().expect("the agent was started");
        process.terminate();
        process.wait(deadline).await
    }

    /// Tells it to read its files again (SIGHUP).
    pub(crate) fn hang_up(&self) {
        self.running().hang_up();
    }

    /// Kills it with SIGKILL. [`Self::start`] starts it again, over the same cache and state.
    pub(crate) fn kill9(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill9();
        }
    }
}

/// What `stoker status --json` prints.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Status {
    /// The GPUs.
    pub(crate) gpu: serde_json::Value,
    /// The list.
    pub(crate) list: serde_json::Value,
    /// Whether the node is ready.
    pub(crate) ready: bool,
    /// Nothing is left to do until something changes.
    #[serde(default)]
    pub(crate) done: bool,
    /// The labels of the Node.
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    /// One for each entry.
    pub(crate) entries: Vec<Entry>,
}

impl Status {
    /// What `stoker status --json` says of the agent at this socket; `None` while it doesn't answer.
    pub(crate) async fn of_socket(socket: &Path) -> Option<Self> {
        let status = Stoker::new(["status", "--json", "--socket"]).args([socket]);
        let output = status.output(Duration::from_secs(20)).await;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            return None;
        }
        Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("status --json: {error}: {text}")))
    }

    /// The entry with this id.
    pub(crate) fn entry(&self, id: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.id == id)
    }

    /// Whether there are entries and all of them are warm.
    pub(crate) fn all_warm(&self) -> bool {
        !self.entries.is_empty() && self.entries.iter().all(|entry| entry.state == "Warm")
    }
}

/// One entry of the status.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Entry {
    /// Its id.
    pub(crate) id: String,
    /// `image` or `weights`.
    pub(crate) kind: Option<String>,
    /// `Pending`, `Fetching`, `Warm`, `Failed`, …
    pub(crate) state: String,
    /// Why.
    pub(crate) reason: Option<Why>,
    /// Bytes that have come.
    #[serde(default)]
    pub(crate) bytes_done: u64,
    /// Bytes in all; 0 where that isn't known.
    #[serde(default)]
    pub(crate) bytes_total: u64,
    /// What is warm.
    pub(crate) revision: Option<String>,
    /// Every byte was checked against a published digest.
    #[serde(default)]
    pub(crate) verified: bool,
}

/// Why an entry is where it is.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Why {
    /// A word.
    pub(crate) code: String,
    /// A sentence.
    pub(crate) message: String,
}
