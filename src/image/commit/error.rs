use std::io;
use std::path::PathBuf;

use crate::containerd::ContainerdError;
use crate::types::{Digest, ErrorKind};

/// Why unpacked layers didn't become an image.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum CommitError {
    #[error(transparent)]
    Containerd(#[from] ContainerdError),
    #[error(
        "cannot write layers into {}; stoker must run as root in the host's user namespace, and in a pod that directory \
         must be mounted from the host at the same path, writable and as one mount",
        root.display()
    )]
    NoAccess {
        root: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("layers can't be put into the snapshotter {snapshotter} from outside: only overlayfs takes them")]
    Snapshotter { snapshotter: String },
    #[error(
        "the snapshotter {snapshotter} mounts its snapshots in a way that can't be filled from outside: {mounts}"
    )]
    Mounts { snapshotter: String, mounts: String },
    #[error("cannot put the layer {chain} in its place")]
    Place {
        chain: Digest,
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("containerd says that the layer {chain} is there, and then that it isn't; it is tried again")]
    Vanishing { chain: Digest },
    #[error(
        "{image} has its records, but CRI shows {}; check containerd's log",
        shown.map_or("none".to_owned(), |shown| format!("the image {shown} there"))
    )]
    NotShown { image: String, shown: Option<Digest> },
}

impl CommitError {
    /// What to make of it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Containerd(cause) => cause.kind(),
            Self::NoAccess { .. } | Self::Snapshotter { .. } | Self::Mounts { .. } => ErrorKind::Unsupported,
            Self::Place { cause, .. } => match cause.downcast_ref::<io::Error>().map(io::Error::kind) {
                Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => ErrorKind::NoSpace,
                _ => ErrorKind::Local,
            },
            Self::Vanishing { .. } | Self::NotShown { .. } => ErrorKind::Transient,
        }
    }
    /// The reason's word for machines: CamelCase, stable, low-cardinality.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Containerd(cause) => cause.code(),
            Self::NoAccess { .. } => "NoAccess",
            Self::Snapshotter { .. } | Self::Mounts { .. } => "Unsupported",
            Self::Place { .. } if self.kind() == ErrorKind::NoSpace => "NoSpace",
            Self::Place { .. } | Self::Vanishing { .. } => "CommitFailed",
            Self::NotShown { .. } => "NotShown",
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn a_disk_that_containerd_finds_full_is_no_space() {
        let call = |message: &str| {
            let (what, message) = ("commit the snapshot x".to_owned(), message.to_owned());
            CommitError::from(ContainerdError::Call { what, code: Code::Unknown, message })
        };
        let full = call("write meta.db: no space left on device");
        assert_eq!((full.kind(), full.code()), (ErrorKind::NoSpace, "NoSpace"));
        assert_eq!(call("write meta.db: input/output error").code(), "ContainerdError");
    }
}
