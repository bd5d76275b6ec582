use std::io;
use std::path::PathBuf;

use crate::types::ErrorKind;

/// Where an uncompressed layer goes, block by block, on one thread.
pub(crate) trait TarSink: Send {
    /// Takes in the next bytes of the tar stream: any number, cut anywhere.
    ///
    /// # Errors
    /// Any ends the layer; the sink isn't used again.
    fn feed(&mut self, block: &[u8]) -> Result<(), UnpackError>;

    /// Ends the layer: an unfinished entry is an error, modification times of directories are set.
    ///
    /// # Errors
    /// When the stream ended too soon, or the file system fails.
    fn finish(&mut self) -> Result<Unpacked, UnpackError>;
}

/// What came of a whole layer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Unpacked {
    /// Directories that the layer uses and doesn't describe, parents first: their metadata is to be copied from the
    /// layers below before the snapshot is committed.
    pub(crate) implied: Vec<ImpliedDir>,
    /// Entries of the tar stream.
    pub(crate) entries: u64,
    /// Bytes of files' content, holes included.
    pub(crate) bytes: u64,
}

/// A directory that a layer uses without describing it, relative to the layer's root.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ImpliedDir(pub(crate) PathBuf);

/// What one layer may be, at most. Generous for real images; what lies beyond is an attack or a mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Entries in the stream, headers that only extend the next one included.
    pub(crate) entries: u64,
    /// Bytes of content, holes included.
    pub(crate) bytes: u64,
    /// Bytes that the disk has room for, holes included: what is more isn't even begun.
    pub(crate) room: u64,
    /// Components of one path.
    pub(crate) depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 10_000_000, bytes: 1 << 40, room: u64::MAX, depth: 256 }
    }
}

/// Why a layer can't be unpacked. Messages name the entry and the problem; nothing outside the directory was touched.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The stream isn't tar, or says something that no layer may.
    #[error("the layer is malformed at {entry:?}: {problem}")]
    Malformed {
        /// The entry's name as the stream has it, cut to something readable.
        entry: String,
        /// What is wrong with it.
        problem: String,
    },
    /// It exceeds a limit.
    #[error("the layer is over a limit at {entry:?}: {problem}")]
    OverLimit {
        /// The entry's name.
        entry: String,
        /// Which limit.
        problem: String,
    },
    /// The file system refused.
    #[error("cannot write {entry:?} of the layer")]
    Write {
        /// The entry's name.
        entry: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

impl UnpackError {
    /// What to make of it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Malformed { .. } | Self::OverLimit { .. } => ErrorKind::Invalid,
            Self::Write { cause, .. } => match cause.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
                io::ErrorKind::Unsupported => ErrorKind::Unsupported,
                _ => ErrorKind::Local,
            },
        }
    }
}
