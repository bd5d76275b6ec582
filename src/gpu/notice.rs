//! The file through which the probe container tells the agent: its format, how it's written and read.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::gate::ProbeResult;
use crate::types::GpuReason;

/// An answer is well under 4 KiB; NVML's own words in it are bounded by the child's pipes.
const LONGEST: u64 = 256 * 1024;

/// One answer. Moments are milliseconds since boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Notice {
    /// Of this format; [`Notice::VERSION`].
    pub(super) version: u32,
    /// The boot in which it was written.
    pub(super) boot_id: String,
    /// Which run of the writer this is: the moment of its start, in nanoseconds.
    pub(super) run: u64,
    /// One more with each answer of that run.
    pub(super) sequence: u64,
    /// When the probe was started.
    pub(super) began_ms: u64,
    /// When this was written.
    pub(super) written_ms: u64,
    /// When the next answer is there at the latest, if all is well with the writer.
    pub(super) next_by_ms: u64,
    /// How much longer each further answer may be missing before that is as bad as a failed probe.
    pub(super) then_every_ms: u64,
    /// What it says.
    pub(super) said: Said,
}

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Said {
    /// How a probe ended.
    Probed(ProbeResult),
    /// No probe is started, because of the file that [`hold_path`] names.
    Held(GpuReason),
}

/// A file that says nothing, and why.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("{} is not there", .0.display())]
    Missing(PathBuf),
    #[error("cannot read {}", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("{} is not a file of at most {LONGEST} bytes", .0.display())]
    NotAFile(PathBuf),
    #[error("{} is in version {version} of its format; this agent reads version {}", path.display(), Notice::VERSION)]
    Version { path: PathBuf, version: u32 },
    #[error("{} is not an answer of the probe", path.display())]
    Garbage {
        path: PathBuf,
        #[source]
        cause: serde_json::Error,
    },
}

impl Unusable {
    pub(super) fn reason(&self) -> GpuReason {
        match self {
            Self::Missing(_) => GpuReason::ProbeMissing,
            Self::Unreadable { .. } | Self::NotAFile(_) | Self::Version { .. } | Self::Garbage { .. } => {
                GpuReason::ProbeUnreadable
            }
        }
    }
}

impl Notice {
    /// The version that this program writes and reads. It covers [`ProbeResult`] and all in it.
    pub(super) const VERSION: u32 = 1;

    /// Puts it at `path`, whole at every moment. Nothing is synced: after a power cut it counts for nothing anyway.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec(self)?;
        text.push(b'\n');
        let aside = beside(path, ".new");
        fs::File::create(&aside)?.write_all(&text)?;
        fs::rename(aside, path)
    }

    /// Reads what is at `path`.
    pub(super) fn read(path: &Path) -> Result<Self, Unusable> {
        let unreadable = |cause: io::Error| match cause.kind() {
            io::ErrorKind::NotFound => Unusable::Missing(path.to_owned()),
            _ => Unusable::Unreadable { path: path.to_owned(), cause },
        };
        // A pipe in its place must not block.
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(unreadable)?;
        let about = file.metadata().map_err(unreadable)?;
        if !about.is_file() || about.len() > LONGEST {
            return Err(Unusable::NotAFile(path.to_owned()));
        }
        let mut text = Vec::new();
        file.take(LONGEST).read_to_end(&mut text).map_err(unreadable)?;
        Self::parse(&text, path)
    }

    fn parse(text: &[u8], path: &Path) -> Result<Self, Unusable> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let garbage = |cause| Unusable::Garbage { path: path.to_owned(), cause };
        let Versioned { version } = serde_json::from_slice(text).map_err(garbage)?;
        if version != Self::VERSION {
            return Err(Unusable::Version { path: path.to_owned(), version });
        }
        serde_json::from_slice(text).map_err(garbage)
    }
}

/// Whether a file can be put at `path`.
pub(super) fn try_place(path: &Path) -> io::Result<()> {
    let aside = beside(path, ".new");
    fs::File::create(&aside)?;
    fs::remove_file(aside)
}

/// The file beside an answer by which the agent asks the probe container not to probe.
pub(super) fn hold_path(path: &Path) -> PathBuf {
    beside(path, ".hold")
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::super::answer::ProbeAnswer;
    use super::*;
    use crate::types::GpuPhase;

    fn notice(said: Said) -> Notice {
        Notice {
            version: Notice::VERSION,
            boot_id: "boot".into(),
            run: 7,
            sequence: 1,
            began_ms: 1,
            written_ms: 2,
            next_by_ms: 3,
            then_every_ms: 4,
            said,
        }
    }

    #[test]
    fn every_end_of_a_probe_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gpu.json");
        let ready = ProbeAnswer::new(GpuPhase::Ready, GpuReason::DriverReady, "");
        for said in [
            Said::Probed(ProbeResult::Answer(ready)),
            Said::Probed(ProbeResult::TimedOut),
            Said::Probed(ProbeResult::Crashed { signal: 6 }),
            Said::Probed(ProbeResult::Failed("fork".into())),
            Said::Held(GpuReason::DriverUpgrade),
        ] {
            notice(said.clone()).write(&path).unwrap();
            assert_eq!(Notice::read(&path).unwrap(), notice(said));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing unfinished is left");
    }

    #[test]
    fn what_is_no_answer_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gpu.json");
        let whole = serde_json::to_string(&notice(Said::Held(GpuReason::DriverUpgrade))).unwrap();
        let said = |text: &[u8]| {
            fs::write(&path, text).unwrap();
            let error = Notice::read(&path).unwrap_err();
            (error.reason(), error.to_string())
        };
        for damage in
            [&b""[..], b"{", b"[]", b"\xff", b"{\"version\":1}", &whole.as_bytes()[..whole.len() / 2]]
        {
            let (reason, words) = said(damage);
            assert_eq!(reason, GpuReason::ProbeUnreadable);
            assert!(words.ends_with("gpu.json is not an answer of the probe"), "{words}");
        }
        let (_, words) = said(b"{\"version\":2,\"other\":true}");
        assert!(words.ends_with("is in version 2 of its format; this agent reads version 1"), "{words}");
        let (_, words) = said(&vec![b' '; 300 * 1024]);
        assert!(words.contains("is not a file of at most"), "{words}");
        fs::remove_file(&path).unwrap();
        assert_eq!(Notice::read(&path).unwrap_err().reason(), GpuReason::ProbeMissing);
        fs::create_dir(&path).unwrap();
        assert_eq!(Notice::read(&path).unwrap_err().reason(), GpuReason::ProbeUnreadable);
    }

    #[test]
    fn a_pipe_in_its_place_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gpu.json");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(matches!(Notice::read(&path), Err(Unusable::NotAFile(_))));
    }

    #[test]
    fn a_place_that_cannot_be_written_is_found_out() {
        let dir = tempfile::tempdir().unwrap();
        try_place(&dir.path().join("gpu.json")).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        try_place(&dir.path().join("missing/gpu.json")).unwrap_err();
        assert!(hold_path(Path::new("/a/gpu.json")).ends_with("gpu.json.hold"));
    }
}
