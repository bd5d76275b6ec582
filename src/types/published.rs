use std::fmt;

use super::{Digest, GitOid};

/// What a file's source, or the list, says its bytes are: whoever has them all compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// Their SHA-256.
    Sha256(Digest),
    /// git's name for them, which is a SHA-1: all that the Hugging Face Hub says of its small files.
    Git(GitOid),
}

impl Published {
    /// The SHA-256, where that is what is published: only that names a blob before its bytes are here.
    #[must_use]
    pub fn sha256(self) -> Option<Digest> {
        match self {
            Self::Sha256(digest) => Some(digest),
            Self::Git(_) => None,
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
        }
    }
}
