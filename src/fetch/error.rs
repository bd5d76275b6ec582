use std::io;

use crate::source::SourceError;
use crate::types::ErrorKind;

/// Why a blob isn't there.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The source failed in a way that another try doesn't mend.
    #[error("the source gave no bytes")]
    Source(#[source] SourceError),
    /// The source failed too often.
    #[error("gave up after {tries} tries")]
    TriesExhausted {
        /// How many were made in a row for one range.
        tries: u32,
        /// What the last one failed with.
        #[source]
        last: SourceError,
    },
    /// The bytes can't be written.
    #[error("cannot write the bytes")]
    Sink(#[source] io::Error),
    /// We were told to stop.
    #[error("stopped")]
    Cancelled,
}

impl FetchError {
    /// What to make of it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Source(error) | Self::TriesExhausted { last: error, .. } => error.kind(),
            Self::Sink(error) => match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
                _ => ErrorKind::Local,
            },
            Self::Cancelled => ErrorKind::Cancelled,
        }
    }
}
