use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use crate::types::ErrorKind;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a source gave no bytes. No variant ever holds a credential or a URL's query.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum SourceError {
    #[error("cannot reach {origin}")]
    Connect {
        origin: String,
        #[source]
        cause: Cause,
    },
    #[error("{origin} broke off in the middle of an answer")]
    Broken {
        origin: String,
        #[source]
        cause: Cause,
    },
    #[error("{origin} sent nothing for {} s", after.as_secs())]
    Stalled { origin: String, after: Duration },
    #[error("{what} answered {status}")]
    Status { what: String, status: u16, retry_after: Option<Duration> },
    #[error("{what} answered {status}, {says}")]
    Refused { what: String, status: u16, says: String, retry_after: Option<Duration> },
    #[error("{what} changed while it was read")]
    Changed { what: String },
    #[error("{what}: {problem}")]
    Protocol { what: String, problem: String },
    #[error("{what} can't be used: {problem}")]
    Invalid { what: String, problem: String },
    #[error("{what} is corrupt: {problem}")]
    Corrupt { what: String, problem: String },
    #[error("{host} asks for a token, and none can be had")]
    Token {
        host: String,
        #[source]
        cause: Arc<SourceError>,
    },
    #[error("no mirror serves it ({mirrors}), and the registry neither")]
    Mirrors {
        mirrors: String,
        #[source]
        cause: Box<SourceError>,
    },
    #[error("credentials {name:?}: {problem}")]
    Credentials { name: String, problem: String },
    #[error("cannot {doing} {path}{}", next_step(cause))]
    File {
        doing: &'static str,
        path: String,
        #[source]
        cause: io::Error,
    },
}

impl SourceError {
    /// What to make of it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Connect { .. } | Self::Broken { .. } | Self::Stalled { .. } => ErrorKind::Transient,
            Self::Status { status, retry_after, .. } | Self::Refused { status, retry_after, .. } => {
                match status {
                    401 | 403 => ErrorKind::Denied,
                    404 | 410 => ErrorKind::NotFound,
                    412 => ErrorKind::Changed,
                    429 | 503 => ErrorKind::Throttled { retry_after: *retry_after },
                    408 | 425 | 500..=599 => ErrorKind::Transient,
                    _ => ErrorKind::Invalid,
                }
            }
            Self::Changed { .. } => ErrorKind::Changed,
            // A captive portal or a proxy's error page: it passes.
            Self::Protocol { .. } => ErrorKind::Transient,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Token { cause, .. } => cause.kind(),
            Self::Mirrors { cause, .. } => cause.kind(),
            Self::Invalid { .. } => ErrorKind::Invalid,
            Self::Credentials { .. } => ErrorKind::Denied,
            Self::File { cause, .. } => file_kind(cause),
        }
    }
}

fn file_kind(cause: &io::Error) -> ErrorKind {
    match Errno::from_io_error(cause) {
        Some(Errno::NOENT) => ErrorKind::NotFound,
        Some(Errno::ACCESS | Errno::PERM) => ErrorKind::Denied,
        Some(Errno::XDEV | Errno::LOOP | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::ISDIR) => {
            ErrorKind::Invalid
        }
        Some(Errno::NOSYS) => ErrorKind::Unsupported,
        // A file that was replaced on an NFS server.
        Some(Errno::STALE) => ErrorKind::Changed,
        _ => ErrorKind::Transient,
    }
}

/// What somebody who reads it can do, for the causes whose own words don't tell.
fn next_step(cause: &io::Error) -> &'static str {
    match Errno::from_io_error(cause) {
        Some(Errno::NOENT) => " (is the volume mounted into the agent?)",
        Some(Errno::ACCESS) => " (the agent's user may not; make it readable for it)",
        Some(Errno::PERM) => " (a seccomp profile or the file system refuses it)",
        Some(Errno::XDEV) => {
            " (it leads out of --file-root: through .. or a link, and absolute links always do)"
        }
        Some(Errno::LOOP) => " (its links lead in circles, or through /proc)",
        Some(Errno::NOSYS) => " (Linux 5.6 or newer is needed)",
        _ => "",
    }
}
