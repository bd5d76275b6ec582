//! A mount and a process namespace, held by their first process: when that goes, all that runs inside goes.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Pid;

use super::process::Process;
use super::programs::system;
use super::scratch::Scratch;
use super::wait::START;

/// The namespaces. What is mounted inside shows nowhere else.
#[derive(Debug)]
pub(crate) struct Namespaces {
    inside: Pid,
    _holder: Process,
}

impl Namespaces {
    /// Makes them, and has a shell run `script` inside first. Its log lies in `scratch`.
    pub(crate) async fn hold(scratch: &Scratch, script: &str) -> Self {
        let mut command = Command::new(system("unshare"));
        command
            .args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["--", "sh", "-euc"])
            .arg(format!("{script}\necho held\nexec sleep infinity"));
        let holder = Process::start_holder("the namespaces' holder", &command, &scratch.join("holder.log"));
        let held = async || holder.log().lines().any(|line| line == "held").then_some(());
        holder.wait_ready("the namespaces", START, held).await;
        let inside = holder.child().expect("the holder has one child");
        Self { inside, _holder: holder }
    }

    /// What is `/` inside, as seen from here.
    pub(crate) fn root(&self) -> PathBuf {
        format!("/proc/{}/root", self.inside.as_raw_nonzero()).into()
    }

    /// A command that runs `program` inside.
    pub(crate) fn enter(&self, program: &Path) -> Command {
        let mut command = Command::new(system("nsenter"));
        let inside = self.inside.as_raw_nonzero().to_string();
        command.args(["--target", &inside, "--mount", "--pid", "--"]).arg(program);
        command
    }
}
