use std::fmt;

use super::{Crc, Digest, GitOid, PartDigests};

/// What a file's source, or the list, says its bytes are: whoever has them all compares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// Their SHA-256.
    Sha256(Digest),
    /// git's name for them, which is a SHA-1: all that the Hugging Face Hub says of its small files.
    Git(GitOid),
    /// The SHA-256 of each part, as S3 has them of objects that were uploaded in parts with it.
    Parts(PartDigests),
    /// A check that finds accidents, and is no proof: most of what S3 holds has no more.
    Crc(Crc),
}

impl Published {
    /// The SHA-256, where that is what is published: only that names a blob before its bytes are here.
    #[must_use]
    pub fn sha256(&self) -> Option<Digest> {
        match self {
            Self::Sha256(digest) => Some(*digest),
            Self::Git(_) | Self::Parts(_) | Self::Crc(_) => None,
        }
    }

    /// Whether bytes that it fits are the bytes that were meant, also where somebody wants them not to be.
    #[must_use]
    pub fn proves(&self) -> bool {
        match self {
            Self::Sha256(_) | Self::Git(_) | Self::Parts(_) => true,
            Self::Crc(_) => false,
        }
    }
}

impl From<Digest> for Published {
    fn from(digest: Digest) -> Self {
        Self::Sha256(digest)
    }
}

impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(digest) => write!(f, "{digest}"),
            Self::Git(oid) => write!(f, "git:{oid}"),
            Self::Parts(parts) => write!(f, "{} of {} parts", parts.composite(), parts.parts().len()),
            Self::Crc(crc) => write!(f, "{crc}"),
        }
    }
}
