use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::evict::Freed;
use crate::fetch::FetchError;
use crate::source::SourceError;
use crate::types::{ErrorKind, RelPath};

/// A file operation that failed: which, on what, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}{}", path.display(), next_step(cause))]
pub struct OpError {
    doing: &'static str,
    path: PathBuf,
    #[source]
    cause: io::Error,
}

impl OpError {
    pub(super) fn new(doing: &'static str, path: &Path, cause: impl Into<io::Error>) -> Self {
        Self { doing, path: path.to_owned(), cause: cause.into() }
    }

    pub(super) fn is_not_found(&self) -> bool {
        self.cause.kind() == io::ErrorKind::NotFound
    }

    /// What to make of it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        io_kind(&self.cause)
    }
}

fn io_kind(cause: &io::Error) -> ErrorKind {
    match Errno::from_io_error(cause) {
        Some(Errno::NOSPC | Errno::DQUOT) => ErrorKind::NoSpace,
        _ => ErrorKind::Local,
    }
}

/// What somebody who reads it can do, for the causes whose own words don't tell.
fn next_step(cause: &io::Error) -> &'static str {
    match Errno::from_io_error(cause) {
        Some(Errno::MLINK) => {
            " (the file has as many names as the file system allows, 65,000 on ext4; take entries that share it off \
             the list)"
        }
        Some(Errno::XDEV) => {
            " (v1/ and weights/ must be one mount: mount the cache's root into the agent, not its parts)"
        }
        Some(Errno::LOOP | Errno::NOTDIR) => {
            " (a link or a file stands where a directory belongs; remove it)"
        }
        Some(Errno::ROFS) => " (the file system is mounted read-only)",
        Some(Errno::NOSPC | Errno::DQUOT) => " (free some space, or give the cache a larger disk)",
        Some(Errno::ACCESS | Errno::PERM) => " (the agent must run as the owner of the cache: root)",
        _ => "",
    }
}

/// Why the cache can't be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum CacheError {
    #[error(transparent)]
    Op(#[from] OpError),
    #[error(
        "another agent{} uses the cache {}; stop it, or give this one its own --cache-dir",
        holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default(),
        root.display()
    )]
    Locked { root: PathBuf, holder: Option<u32> },
    #[error(
        "the cache {} is on the root file system; mount a disk there, or say --allow-root-fs if it may fill",
        root.display()
    )]
    OnRootFs { root: PathBuf },
    #[error("{} can't be part of a cache: {problem}", path.display())]
    Unsafe { path: PathBuf, problem: &'static str },
    #[error(
        "{} is no longer the directory that the cache was opened in: its disk was unmounted, or another one was mounted \
         over it; bring the disk back, or restart the agent to use what is there now",
        root.display()
    )]
    Moved { root: PathBuf },
    #[error("there is no cache at {}; name it with --cache-dir", root.display())]
    Absent { root: PathBuf },
    #[error("the manifest {} can't be written as JSON", path.display())]
    Manifest {
        path: PathBuf,
        #[source]
        cause: serde_json::Error,
    },
}

impl CacheError {
    /// What to make of it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Op(error) => error.kind(),
            Self::Locked { .. } | Self::Absent { .. } | Self::Moved { .. } | Self::Manifest { .. } => {
                ErrorKind::Local
            }
            Self::OnRootFs { .. } | Self::Unsafe { .. } => ErrorKind::Invalid,
        }
    }
}

/// Whoever is refused should know as whom it was asked.
fn as_whom(cause: &SourceError, credentials: Option<&str>) -> String {
    match (cause, credentials) {
        // It names them itself.
        (SourceError::Credentials { .. }, _) => String::new(),
        // Nobody is asked.
        (SourceError::File { .. }, _) => String::new(),
        _ if cause.kind() != ErrorKind::Denied => String::new(),
        (_, Some(name)) => format!(" with the credentials {name:?}; check what their Secret holds"),
        (_, None) => " without named credentials; name a mounted Secret under `credentials`".to_owned(),
    }
}

/// Why weights didn't become warm.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum WeightsError {
    #[error("cannot list the files of {from}{}", as_whom(cause, credentials.as_deref()))]
    Resolve {
        from: String,
        credentials: Option<String>,
        #[source]
        cause: SourceError,
    },
    #[error("cannot fetch {path}")]
    Fetch {
        path: RelPath,
        #[source]
        cause: FetchError,
    },
    #[error(
        "{path} came {tries} times with other bytes than its digest promises (expected {expected}, last got {found}); \
             mend it at the source, or correct the digest"
    )]
    Corrupt { path: RelPath, expected: String, found: String, tries: u32 },
    #[error(
        "the source publishes no digest for {path}, and --verified-only is set; give it one under `sha256`"
    )]
    Unverified { path: RelPath },
    #[error("{problem}")]
    Invalid { problem: String },
    #[error("{}", no_space(root, *needed, *available, *reserve, *max, freed))]
    NoSpace { root: PathBuf, needed: u64, available: u64, reserve: u64, max: Option<u64>, freed: Freed },
    #[error(
        "the disk of {} filled up while {needed} bytes were still to be written there, and has {available} left; it goes \
         on when there is room: free some, or give the cache a larger disk or quota",
        root.display()
    )]
    FilledUp {
        root: PathBuf,
        needed: u64,
        available: u64,
        #[source]
        cause: Box<WeightsError>,
    },
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error("stopped before it was done")]
    Stopped,
    #[error("a worker of the cache ended early")]
    Worker(#[source] tokio::task::JoinError),
    #[error("another `stoker pull` writes into {}; wait for it, or choose another --to", dir.display())]
    Busy { dir: PathBuf },
}

impl WeightsError {
    /// What to make of it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Resolve { cause, .. } => cause.kind(),
            Self::Fetch { cause, .. } => cause.kind(),
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Unverified { .. } | Self::Invalid { .. } => ErrorKind::Invalid,
            Self::NoSpace { .. } | Self::FilledUp { .. } => ErrorKind::NoSpace,
            Self::Cache(error) => error.kind(),
            Self::Stopped => ErrorKind::Cancelled,
            Self::Worker(_) | Self::Busy { .. } => ErrorKind::Local,
        }
    }
}

/// How much room an entry lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    /// Bytes that it has to write.
    pub needed: u64,
    /// Bytes that others would have to give up for it, beyond what no entry needs.
    pub short: u64,
    /// Bytes that there were for it.
    pub had: u64,
}

impl WeightsError {
    /// How much room was missing, if that is what was wrong.
    #[must_use]
    pub fn shortage(&self) -> Option<Shortage> {
        match self {
            Self::NoSpace { needed, available, reserve, freed, .. } => {
                let free = available.saturating_sub(*reserve);
                let coming = freed.left.saturating_add(freed.young);
                let short = needed.saturating_sub(free).saturating_sub(coming);
                Some(Shortage { needed: *needed, short, had: free.saturating_add(freed.left) })
            }
            Self::FilledUp { needed, available, .. } => {
                let short = needed.saturating_sub(*available);
                Some(Shortage { needed: *needed, short, had: *available })
            }
            _ => None,
        }
    }
}

fn no_space(
    root: &Path,
    needed: u64,
    available: u64,
    reserve: u64,
    max: Option<u64>,
    freed: &Freed,
) -> String {
    let max = max.map(|max| format!(", of {max} that the cache may hold (--cache-max)")).unwrap_or_default();
    let of_nobody = |bytes: u64, why: &str| match bytes {
        0 => String::new(),
        bytes => format!("; {bytes} bytes that no entry needs {why}"),
    };
    let in_use = of_nobody(freed.in_use, "stay because a process has them open or mapped");
    let young = of_nobody(freed.young, "were needed a moment ago and go soon");
    format!(
        "{needed} more bytes are needed in {}, where {available} are free{max} and {reserve} stay free{in_use}{young}; it \
         goes on when there is room: retire something, or give the cache a larger disk",
        root.display()
    )
}

impl From<OpError> for WeightsError {
    fn from(error: OpError) -> Self {
        Self::Cache(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_operation_the_file_and_the_next_step() {
        let failed = |errno: Errno| OpError::new("link", Path::new("/cache/weights/a/b"), errno);
        let links = failed(Errno::MLINK);
        assert!(
            links.to_string().starts_with("cannot link /cache/weights/a/b (the file has as many names"),
            "{links}"
        );
        assert!(failed(Errno::XDEV).to_string().contains("mount the cache's root"));
        assert!(
            crate::rt::chain(&links).ends_with("Too many links (os error 31)"),
            "{}",
            crate::rt::chain(&links)
        );
        assert_eq!(failed(Errno::DQUOT).kind(), ErrorKind::NoSpace);
        assert_eq!(WeightsError::from(failed(Errno::NOSPC)).kind(), ErrorKind::NoSpace);
        assert_eq!(failed(Errno::IO).kind(), ErrorKind::Local);
    }

    #[test]
    fn causes_stand_once_in_a_chain() {
        let error = WeightsError::from(OpError::new("fsync", Path::new("/cache"), Errno::IO));
        assert_eq!(crate::rt::chain(&error), "cannot fsync /cache: Input/output error (os error 5)");
    }
}
