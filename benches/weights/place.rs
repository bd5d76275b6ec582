//! Where a side's files go: a directory of its own on the disk that is measured, or an agent's cache there.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use stoker::types::Digest;
use tokio::time::Instant;

use crate::made::{BUCKET, Set};
use crate::measure::limits::{InCgroup, Limits, inside};
use crate::parts::{Agent, Cgroup, Gpus, Scratch};
use crate::sides::{Course, Purpose, Side, sums};

/// The list's id of the weights.
const ID: &str = "raced";

/// Such a place. It goes when dropped.
pub(crate) struct Place {
    side: Side,
    cgroup: Option<Cgroup>,
    agent: Option<(Agent, Gpus)>,
    scratch: Scratch,
}

impl Place {
    /// An empty one.
    pub(crate) fn new(side: Side, course: &Course<'_>) -> Self {
        let cgroup = (side == Side::Limited).then(|| Limits::shipped().cgroup());
        let agent = (side == Side::Agent).then(|| agent(course));
        let scratch = Scratch::new("weights");
        scratch.dir("to");
        Self { side, cgroup, agent, scratch }
    }

    /// The command that fills it.
    pub(crate) fn command(&self, course: &Course<'_>, purpose: Purpose) -> Command {
        if let Some((agent, _)) = &self.agent {
            return agent.once_command();
        }
        let command = self.side.command(course, &self.scratch.join("to"), purpose);
        match &self.cgroup {
            Some(cgroup) => inside(cgroup, &command),
            None => command,
        }
    }

    /// Where the log goes.
    pub(crate) fn log(&self) -> PathBuf {
        self.scratch.join("log")
    }

    /// The directory that all of it is below.
    pub(crate) fn root(&self) -> &Path {
        self.agent.as_ref().map_or(self.scratch.path(), |(agent, _)| agent.scratch().path())
    }

    /// Where a user finds the files.
    pub(crate) fn files(&self) -> PathBuf {
        match &self.agent {
            Some((agent, _)) => agent.cache().join("weights").join(ID).join("current"),
            None => self.scratch.join("to"),
        }
    }

    /// What its cgroup says, if it has one.
    pub(crate) fn in_cgroup(&self) -> Option<InCgroup> {
        self.cgroup.as_ref().map(InCgroup::of)
    }

    /// Has all of it on the disk, and tells how long that took.
    pub(crate) fn sync(&self) -> Duration {
        let root = File::open(self.root()).expect("it is there");
        let begun = Instant::now();
        rustix::fs::syncfs(&root).expect("the file system can be synced");
        begun.elapsed()
    }

    /// Hashes all files by OpenSSL: how long that took, and which aren't as they should be.
    pub(crate) fn check(&self, set: &Set) -> (Duration, Vec<String>) {
        let begun = Instant::now();
        let output = sums(&self.files(), set).output().expect("openssl can be run");
        let time = begun.elapsed();
        let text = String::from_utf8_lossy(&output.stdout);
        let lines = text.lines().filter_map(|line| line.split_once(" *./"));
        let found: HashMap<&str, &str> = lines.map(|(sum, path)| (path, sum)).collect();
        let right = |path: &str, sum: Digest| found.get(path).is_some_and(|found| *found == sum.hex());
        let wrong = set.files.iter().filter(|file| !right(&file.path, file.sha256));
        (time, wrong.map(|file| file.path.clone()).collect())
    }

    /// Empties all files and leaves them in `graveyard`. ext4 gives no file the inode of one that was deleted within
    /// some minutes (`recently_deleted` in `fs/ext4/ialloc.c`), and looks at each: a run after one whose files were
    /// deleted would measure that.
    pub(crate) fn bury(self, graveyard: &Path) {
        empty(self.root());
        let plot = graveyard.join(format!("{:016x}", fastrand::u64(..)));
        std::fs::rename(self.root(), plot).expect("a rename within one file system");
    }
}

fn empty(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            empty(&entry.path());
        } else if let (true, Ok(file)) = (kind.is_file(), File::options().write(true).open(entry.path())) {
            file.set_len(0).expect("a file can be emptied");
        }
    }
}

/// An agent whose list has the set, on a node whose GPUs answer at once.
fn agent(course: &Course<'_>) -> (Agent, Gpus) {
    let gpus = Gpus::healthy(1);
    let agent = Agent::new().args(gpus.args());
    let list = agent.write_list(&format!(
        "apiVersion: stoker.dev/v1\nkind: PrefetchList\nentries:\n- id: {ID}\n  weights: \"s3://{BUCKET}/{}/\"\n",
        course.set.name
    ));
    let nobody = agent.scratch().join("no-containerd.sock");
    let agent = agent
        .env("STOKER_LIST", list.display().to_string())
        .env("STOKER_CONTAINERD_ADDRESS", nobody.display().to_string())
        .env("STOKER_ALLOW_SCHEMES", "https,http,s3")
        .envs(course.env());
    (agent, gpus)
}
