use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::credentials::ProviderError;
use crate::containerd::ContainerdError;
use crate::types::{Digest, ErrorKind};

/// Why an image isn't warm. No variant ever holds a credential.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum ImageError {
    #[error(transparent)]
    Containerd(#[from] ContainerdError),
    #[error("{image}: {advice}")]
    Pull {
        image: String,
        advice: String,
        #[source]
        cause: ContainerdError,
    },
    #[error("credentials {name:?}: {problem}")]
    Credentials { name: String, problem: String },
    #[error("the kubelet's credential provider {name:?} gave no credentials; check it on the node")]
    Provider {
        name: String,
        #[source]
        cause: Arc<ProviderError>,
    },
    #[error(
        "the kubelet's credential providers aren't known: {}: {problem}; correct it, or mount it from the host",
        path.display()
    )]
    ProviderConfig { path: PathBuf, problem: String },
    #[error(
        "the configuration {config} of {image} can't be read; only images with sha256 digests and a rootfs are supported"
    )]
    Configuration {
        image: String,
        config: Digest,
        #[source]
        cause: serde_json::Error,
    },
    #[error("containerd pulled {image}, but CRI does not show it; somebody may have removed it at once")]
    NotShown { image: String },
    #[error(
        "containerd has {image} but did not unpack it; check containerd's log, or remove the image (crictl rmi) so that \
         it is pulled from scratch"
    )]
    NotUnpacked { image: String },
    #[error(
        "cannot sync the unpacked image to the disk through {}; if stoker runs in a pod, mount that directory from the \
         host at the same path (read-only is enough)",
        root.display()
    )]
    NotDurable {
        root: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("stopped")]
    Stopped,
}

impl ImageError {
    /// What to make of it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Containerd(cause) | Self::Pull { cause, .. } => cause.kind(),
            Self::Credentials { .. } => ErrorKind::Denied,
            Self::Provider { cause, .. } => cause.kind(),
            Self::ProviderConfig { .. } => ErrorKind::Local,
            Self::Configuration { .. } => ErrorKind::Unsupported,
            Self::NotShown { .. } => ErrorKind::Transient,
            Self::NotUnpacked { .. } | Self::NotDurable { .. } => ErrorKind::Local,
            Self::Stopped => ErrorKind::Cancelled,
        }
    }

    /// The reason's word for machines: CamelCase, stable, low-cardinality.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Containerd(cause) if cause.is_daemon_away() => "ContainerdUnavailable",
            Self::Containerd(_) => "ContainerdError",
            Self::Pull { cause, .. } => match cause.kind() {
                ErrorKind::NotFound => "NotFound",
                ErrorKind::Denied => "Denied",
                ErrorKind::Throttled { .. } => "Throttled",
                ErrorKind::NoSpace => "NoSpace",
                ErrorKind::Unsupported => "Unsupported",
                ErrorKind::Invalid => "Invalid",
                ErrorKind::Local => "ContainerdUnavailable",
                ErrorKind::Transient | ErrorKind::Changed | ErrorKind::Corrupt | ErrorKind::Cancelled => {
                    "PullFailed"
                }
            },
            Self::Credentials { .. } => "CredentialsMissing",
            Self::Provider { .. } | Self::ProviderConfig { .. } => "CredentialProviderFailed",
            Self::Configuration { .. } => "Unsupported",
            Self::NotShown { .. } => "NotShown",
            Self::NotUnpacked { .. } => "NotUnpacked",
            Self::NotDurable { .. } => "NotDurable",
            Self::Stopped => "Stopped",
        }
    }
}
