//! The sides of the race: `stoker`, and the programs that people use for the same today, each with its best flags.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::made::{BUCKET, Set};
use crate::parts::{Stoker, find_system, parts_dir, system};
use crate::peers;
use crate::servers::Server;

/// Who fetches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// `stoker pull --to DIR`.
    Pull,
    /// `stoker agent --once`, into a cache.
    Agent,
    /// `stoker pull` within the limits that the DaemonSet has.
    Limited,
    Rclone,
    S5cmd,
    Aria2,
    Curl,
    Hf,
}

/// What a side is started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To be fast.
    Race,
    /// The same, after it was killed at it.
    Again,
    /// To be careful: with whatever check it has by default.
    Check,
}

/// Where a side fetches from: what stands before its server may change the address.
pub(crate) struct Course<'a> {
    pub(crate) server: Server,
    /// `127.0.0.1:PORT`.
    pub(crate) host: String,
    pub(crate) set: &'a Set,
    /// What S3 clients find in their environment.
    pub(crate) s3: Vec<(&'static str, String)>,
    /// A directory for lists and logs.
    pub(crate) desk: PathBuf,
}

impl Course<'_> {
    /// Where it is by HTTP.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.host)
    }

    /// What its clients find in their environment.
    pub(crate) fn env(&self) -> Vec<(&'static str, String)> {
        match self.server {
            Server::S3 => {
                let endpoint = [("AWS_ENDPOINT_URL", format!("http://{}", self.host))];
                self.s3
                    .iter()
                    .filter(|(name, _)| *name != "AWS_ENDPOINT_URL")
                    .cloned()
                    .chain(endpoint)
                    .collect()
            }
            Server::Nginx => Vec::new(),
            Server::Hub => vec![("HF_ENDPOINT", format!("http://{}", self.host))],
        }
    }

    /// How many files at once are best: few large ones, many small ones.
    pub(crate) fn files_at_once(&self) -> usize {
        if self.is_small() { 64 } else { 4 }
    }

    /// Whether it is the many.
    pub(crate) fn is_small(&self) -> bool {
        self.set.files.len() > 100
    }
}

impl Side {
    /// Who fetches from this server, ours first.
    pub(crate) fn of(server: Server) -> &'static [Self] {
        match server {
            Server::S3 => &[Self::Pull, Self::Agent, Self::Limited, Self::Rclone, Self::S5cmd],
            Server::Nginx => &[Self::Pull, Self::Rclone, Self::Aria2, Self::Curl],
            Server::Hub => &[Self::Pull, Self::Hf],
        }
    }

    /// How the settings name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Agent => "agent",
            Self::Limited => "limited",
            Self::Rclone => "rclone",
            Self::S5cmd => "s5cmd",
            Self::Aria2 => "aria2",
            Self::Curl => "curl",
            Self::Hf => "hf",
        }
    }

    /// How the table names it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Pull => "stoker pull --to",
            Self::Agent => "stoker agent --once",
            Self::Limited => "stoker pull, limited",
            Self::Rclone => "rclone 1.76.0",
            Self::S5cmd => "s5cmd 2.3.0",
            Self::Aria2 => "aria2c",
            Self::Curl => "curl --parallel",
            Self::Hf => "hf download 2.4.0",
        }
    }

    /// Whether somebody else's.
    pub(crate) fn is_peer(self) -> bool {
        !matches!(self, Self::Pull | Self::Agent | Self::Limited)
    }

    /// Why it can't run here, if so.
    pub(crate) fn missing(self, server: Server) -> Option<String> {
        match self {
            Self::Pull if server == Server::Hub && !knows_the_hub() => {
                Some("this stoker doesn't know hf:// yet".to_owned())
            }
            Self::Pull | Self::Agent | Self::Limited => None,
            peer if peer.program().is_some() => None,
            peer => Some(format!("{} isn't here: tests/setup/bring-parts.sh --bench brings it", peer.name())),
        }
    }

    /// Its program.
    fn program(self) -> Option<PathBuf> {
        let part = |path: &str| Some(parts_dir().join(path)).filter(|path| path.is_file());
        match self {
            Self::Pull | Self::Agent | Self::Limited => None,
            Self::Rclone => part("rclone-1.76.0/rclone"),
            Self::S5cmd => part("s5cmd-2.3.0/s5cmd"),
            Self::Hf => part("hf-2.4.0/bin/hf"),
            Self::Aria2 => find_system("aria2c"),
            Self::Curl => find_system("curl"),
        }
    }

    /// The command that fetches everything into `to`. The agent has its own.
    pub(crate) fn command(self, course: &Course<'_>, to: &Path, purpose: Purpose) -> Command {
        let program = self.program().unwrap_or_default();
        let mut command = match self {
            Self::Pull | Self::Limited | Self::Agent => pull(course, to),
            Self::Rclone => peers::rclone(&program, course, to, purpose),
            Self::S5cmd => peers::s5cmd(&program, course, to),
            Self::Aria2 => peers::aria2(&program, course, to),
            Self::Curl => peers::curl(&program, course, to, purpose),
            Self::Hf => peers::hf(&program, course, to),
        };
        command.envs(course.env());
        command
    }

    /// Its flags, without what is the place's own.
    pub(crate) fn flags(self, course: &Course<'_>) -> String {
        if self == Self::Agent {
            return format!("agent --once, whose list has s3://{BUCKET}/{}/", course.set.name);
        }
        let command = self.command(course, Path::new("DIR"), Purpose::Race);
        let desk = course.desk.display().to_string();
        let words: Vec<String> =
            command.get_args().map(|word| word.to_string_lossy().replace(&desk, "…")).collect();
        words.join(" ").replace(&course.host, "SERVER")
    }
}

fn pull(course: &Course<'_>, to: &Path) -> Command {
    let set = &course.set.name;
    let from = match course.server {
        Server::S3 => vec![format!("s3://{BUCKET}/{set}/")],
        Server::Nginx => vec!["--index".to_owned(), course.url(&course.set.index())],
        Server::Hub => vec![format!("hf://bench/{set}")],
    };
    Stoker::new(["pull"]).args(from).args(["--to"]).args([to]).command()
}

/// The help names what `pull` takes.
fn knows_the_hub() -> bool {
    let help = Stoker::new(["pull", "--help"]).command().output().expect("stoker can be run");
    String::from_utf8_lossy(&help.stdout).contains("hf://")
}

/// SHA-256 of files, by OpenSSL on all cores: what a peer's user does to be sure.
pub(crate) fn sums(dir: &Path, set: &Set) -> Command {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // What one prints must fit into one write to a pipe, or two would mix.
    let each = set.files.len().div_ceil(cores * 4).clamp(1, 40);
    let mut command = Command::new(system("sh"));
    let script = format!(
        "cd \"$1\" && find -L . -type f -not -path './.cache/*' -print0 | xargs -0 -P {cores} -n {each} '{}' dgst -sha256 -r",
        system("openssl").display()
    );
    command.args(["-euc", &script, "sh"]).arg(dir);
    command
}
