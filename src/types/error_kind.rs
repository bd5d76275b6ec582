use std::time::Duration;

/// What an error means for whoever has to decide what to do next. Each room's error has a `kind()`
/// that maps to this, exhaustively; the one retry policy (`rt::retry`) is a function of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// It may go away by itself: a reset, a stall, a 5xx, a name that doesn't resolve just now.
    Transient,
    /// The other side asks for less (429, 503); `retry_after` is its own word on when.
    Throttled {
        /// How long the server asked to be left alone.
        retry_after: Option<Duration>,
    },
    /// The bytes at the source changed while they were read (If-Match failed, other ETag or length).
    Changed,
    /// The bytes are not those that the digest promises.
    Corrupt,
    /// The source says that the thing isn't there.
    NotFound,
    /// The source says no: 401, 403, missing or wrong credentials.
    Denied,
    /// The request can't be right, whatever the source answers: a malformed index, an unsafe path.
    Invalid,
    /// It can be asked for, but this version or this node can't do it.
    Unsupported,
    /// There is no room on the disk.
    NoSpace,
    /// We were told to stop.
    Cancelled,
    /// The local system failed us: an I/O error on the cache, a daemon that isn't there.
    Local,
}

impl ErrorKind {
    /// The word for it in metrics and reasons; stable, low-cardinality.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Throttled { .. } => "throttled",
            Self::Changed => "changed",
            Self::Corrupt => "corrupt",
            Self::NotFound => "not_found",
            Self::Denied => "denied",
            Self::Invalid => "invalid",
            Self::Unsupported => "unsupported",
            Self::NoSpace => "no_space",
            Self::Cancelled => "cancelled",
            Self::Local => "local",
        }
    }

    /// The CamelCase word for it in an entry's reason, where nothing more exact is known.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Transient => "Unreachable",
            Self::Throttled { .. } => "Throttled",
            Self::Changed => "SourceChanged",
            Self::Corrupt => "Corrupt",
            Self::NotFound => "NotFound",
            Self::Denied => "Denied",
            Self::Invalid => "Invalid",
            Self::Unsupported => "Unsupported",
            Self::NoSpace => "NoSpace",
            Self::Cancelled => "Cancelled",
            Self::Local => "LocalError",
        }
    }
}
