use std::io;
use std::path::PathBuf;

use crate::types::ErrorKind;

/// Why it isn't known which servers to ask. No variant ever holds a header's value or a URL. Paths are the host's.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum HostsError {
    #[error("{domain:?} can't be the host of a registry")]
    Domain { domain: String },
    #[error(
        "cannot read {}, where containerd's registry hosts are configured; if stoker runs in a pod, mount that directory \
         from the host (read-only is enough)",
        path.display()
    )]
    Unreadable {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("{} is over 1 MiB, and not read", path.display())]
    TooLarge { path: PathBuf },
    #[error("{}, line {line}: {problem}; correct it (see containerd's docs/hosts.md)", path.display())]
    Malformed { path: PathBuf, line: usize, problem: String },
}

impl HostsError {
    /// What to make of it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Domain { .. } => ErrorKind::Invalid,
            Self::Unreadable { .. } | Self::TooLarge { .. } | Self::Malformed { .. } => ErrorKind::Local,
        }
    }
}
