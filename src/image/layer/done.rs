use std::io;
use std::time::Duration;

use crate::image::unpack::{UnpackError, Unpacked};
use crate::types::{Digest, ErrorKind};

/// How a layer's tar stream is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    /// Not at all.
    Plain,
    /// RFC 1952, one member or several.
    Gzip,
    /// RFC 8878, one frame or several.
    Zstd,
}

/// A layer whose two digests were right and whose tree is complete. It may not be on the disk yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LayerDone {
    pub(crate) unpacked: Unpacked,
    /// Bytes of the tar stream.
    pub(crate) inflated: u64,
    pub(crate) times: LayerTimes,
}

/// Processor time, nearly: how long each part was at work. They overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LayerTimes {
    /// Hashing the compressed bytes.
    pub(crate) blob_hash: Duration,
    /// Inflating.
    pub(crate) inflate: Duration,
    /// Hashing the tar stream.
    pub(crate) diff_hash: Duration,
    /// Unpacking it.
    pub(crate) unpack: Duration,
    /// Waiting for compressed bytes.
    pub(crate) starved: Duration,
}

/// Why a layer didn't make it.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// Another blob came than was asked for.
    #[error("the blob's digest is {found}, not {wanted}")]
    BlobDigest {
        /// What the manifest says.
        wanted: Digest,
        /// What came.
        found: Digest,
    },
    /// It inflates to something else than the configuration says.
    #[error("the unpacked layer's digest is {found}, and {wanted} in the image's configuration")]
    DiffDigest {
        /// What the configuration says.
        wanted: Digest,
        /// What came.
        found: Digest,
    },
    /// It can't be inflated.
    #[error("the layer can't be inflated: {problem}")]
    Inflate {
        /// What is wrong with it.
        problem: String,
    },
    /// It can't be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// The compressed bytes can't be kept.
    #[error("cannot keep the layer's blob for containerd's content store")]
    Keep {
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// More bytes came than were promised.
    #[error("more bytes came than the {size} that the manifest says")]
    TooLong {
        /// What the manifest says.
        size: u64,
    },
    /// Fewer bytes came than were promised, because whoever fetches them gave up: their error says why.
    #[error("the layer's bytes ended too soon")]
    Cut,
    /// We were told to stop.
    #[error("stopped")]
    Stopped,
    /// A thread can't be started, or has died.
    #[error("a thread for unpacking failed: {problem}")]
    Thread {
        /// What happened.
        problem: String,
    },
}

impl LayerError {
    /// What to make of it. What came isn't told from what was made wrong until the blob's digest is known: a stream that
    /// can't be inflated counts as one that got damaged on its way.
    #[must_use]
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::BlobDigest { .. } | Self::Inflate { .. } | Self::TooLong { .. } => ErrorKind::Corrupt,
            Self::DiffDigest { .. } => ErrorKind::Invalid,
            Self::Unpack(UnpackError::Write { cause, .. }) | Self::Keep { cause } => match cause.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
                _ => ErrorKind::Local,
            },
            Self::Unpack(_) => ErrorKind::Corrupt,
            Self::Cut => ErrorKind::Transient,
            Self::Stopped => ErrorKind::Cancelled,
            Self::Thread { .. } => ErrorKind::Local,
        }
    }
}
