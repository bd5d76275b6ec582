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

/// A write or a hash panicked, or the runtime is going down.
pub(super) fn blocking_died(error: tokio::task::JoinError) -> FetchError {
    if error.is_cancelled() { FetchError::Cancelled } else { FetchError::Sink(io::Error::other(error)) }
}

/// Bytes are missing and nothing is on its way: a bug, reported and not waited for.
pub(super) fn nothing_moves() -> FetchError {
    FetchError::Sink(io::Error::other("nothing moves any more; please report this as a bug of stoker"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_and_a_used_up_quota_are_no_space() {
        for code in [rustix::io::Errno::NOSPC, rustix::io::Errno::DQUOT] {
            assert_eq!(FetchError::Sink(code.into()).kind(), ErrorKind::NoSpace);
        }
        assert_eq!(FetchError::Sink(rustix::io::Errno::IO.into()).kind(), ErrorKind::Local);
    }

    #[test]
    fn tries_used_up_keep_the_kind_of_the_last_failure() {
        let last = SourceError::Status { what: "x".to_owned(), status: 503, retry_after: None };
        let error = FetchError::TriesExhausted { tries: 7, last };
        assert_eq!(error.kind(), ErrorKind::Throttled { retry_after: None });
        assert_eq!(crate::rt::chain(&error), "gave up after 7 tries: x answered 503");
    }
}
