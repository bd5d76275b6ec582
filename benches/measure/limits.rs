//! The limits that the shipped DaemonSet gives the agent, in a cgroup of the race's own.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::parts::{Cgroup, system};

/// The agent's limits, as `deploy/base` has them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Limits {
    /// Bytes of memory.
    pub(crate) memory: u64,
    /// Cores; none means all.
    pub(crate) cpu: Option<f64>,
}

impl Limits {
    /// Reads them from the manifest.
    ///
    /// # Panics
    /// When it isn't as expected.
    pub(crate) fn shipped() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/base/daemonset.yaml");
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // The agent's own container is the first; the probe's comes after it.
        let line =
            text.lines().find_map(|line| line.trim().strip_prefix("limits: {")).expect("it has limits");
        let fields = line.trim_end_matches('}').split(',').filter_map(|field| field.split_once(':'));
        let fields: Vec<(&str, &str)> = fields.map(|(name, value)| (name.trim(), value.trim())).collect();
        let field = |wanted: &str| fields.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
        let memory = field("memory").and_then(|value| value.strip_suffix("Mi")).expect("memory in Mi");
        let cpu = field("cpu").map(|value| match value.strip_suffix('m') {
            Some(milli) => milli.parse::<f64>().expect("a number") / 1000.0,
            None => value.parse().expect("a number"),
        });
        Self { memory: memory.parse::<u64>().expect("a number") << 20, cpu }
    }

    /// What they are, in words.
    pub(crate) fn line(&self) -> String {
        let cpu = self.cpu.map_or_else(|| "no limit on CPU".to_owned(), |cores| format!("{cores} cores"));
        format!("{} MiB of memory, {cpu}", self.memory >> 20)
    }

    /// A cgroup with these limits.
    pub(crate) fn cgroup(&self) -> Cgroup {
        Cgroup::limited(self.memory, self.cpu)
    }
}

/// What a cgroup says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InCgroup {
    /// The largest amount of memory, with the page cache, in bytes.
    pub(crate) peak: u64,
    /// How often the limit was met.
    pub(crate) at_the_limit: u64,
}

impl InCgroup {
    /// What it says now.
    pub(crate) fn of(cgroup: &Cgroup) -> Self {
        Self { peak: cgroup.peak().unwrap_or_default(), at_the_limit: cgroup.at_the_limit() }
    }
}

/// The same command, which first enters the cgroup.
pub(crate) fn inside(cgroup: &Cgroup, command: &Command) -> Command {
    let enter: Vec<PathBuf> = cgroup.doors();
    let mut script = String::new();
    for door in enter {
        script.push_str(&format!("echo $$ > '{}'; ", door.display()));
    }
    let mut inside = Command::new(system("sh"));
    inside.args(["-euc", &format!("{script}exec \"$@\""), "sh"]);
    inside.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => inside.env(name, value),
            None => inside.env_remove(name),
        };
    }
    inside
}
