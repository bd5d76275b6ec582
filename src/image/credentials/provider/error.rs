use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::types::ErrorKind;

/// Why a credential provider gave no credentials. No variant ever holds what a plugin wrote to its standard output.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum ProviderError {
    #[error("it can't be used: {reason}")]
    Unusable { reason: &'static str },
    #[error(
        "cannot start {}; it must be an executable, and what it needs (an interpreter, libraries) must be where stoker \
         runs",
        program.display()
    )]
    Start {
        program: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("it did not end within {} s{says}", after.as_secs_f64())]
    TimedOut { after: Duration, says: String },
    #[error("it failed ({status}){says}")]
    Failed { status: String, says: String },
    #[error("it wrote more than {limit} bytes")]
    TooMuch { limit: u64 },
    #[error("the pipes to it broke")]
    Pipe {
        #[source]
        cause: io::Error,
    },
    #[error("its answer can't be used: {problem}")]
    Answer { problem: String },
}

impl ProviderError {
    /// What to make of it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unusable { .. } => ErrorKind::Unsupported,
            // It may have asked somebody who wasn't there just now.
            Self::TimedOut { .. } | Self::Failed { .. } => ErrorKind::Transient,
            Self::Start { .. } | Self::TooMuch { .. } | Self::Pipe { .. } | Self::Answer { .. } => {
                ErrorKind::Local
            }
        }
    }
}
