use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::CommitError;
use super::credentials::ProviderError;
use super::layer::LayerError;
use super::manifest::ManifestError;
use crate::containerd::ContainerdError;
use crate::fetch::FetchError;
use crate::source::SourceError;
use crate::types::{Digest, ErrorKind};

/// Why an image isn't warm. No variant ever holds a credential.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum ImageError {
    #[error(transparent)]
    Containerd(#[from] ContainerdError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error("{image}: {advice}")]
    Pull {
        image: String,
        advice: String,
        #[source]
        cause: ContainerdError,
    },
    #[error("{image}: {advice}")]
    Registry {
        image: String,
        advice: String,
        #[source]
        cause: Box<SourceError>,
    },
    #[error("cannot make a client for registries")]
    Client(#[source] SourceError),
    #[error("{image}: what the registry has under this name can't be used")]
    Manifest {
        image: String,
        #[source]
        cause: Box<ManifestError>,
    },
    #[error("{image}: the layer {layer} did not come")]
    Fetch {
        image: String,
        layer: Digest,
        #[source]
        cause: Box<FetchError>,
    },
    #[error("{image}: the layer {layer} can't be used; nothing of it was kept")]
    Layer {
        image: String,
        layer: Digest,
        #[source]
        cause: Box<LayerError>,
    },
    #[error(
        "{image}: it may take {} MiB and {} MiB are free, of which what lies beyond {threshold} % of the disk must stay \
         free, or the kubelet begins to remove images; free space or list less",
        needed >> 20, available >> 20
    )]
    NoSpace { image: String, needed: u64, available: u64, threshold: u8 },
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
            Self::Registry { cause, .. } => cause.kind(),
            Self::Client(cause) => cause.kind(),
            Self::Manifest { cause, .. } => cause.kind(),
            Self::Fetch { cause, .. } => cause.kind(),
            Self::Layer { cause, .. } => cause.kind(),
            Self::NoSpace { .. } => ErrorKind::NoSpace,
            Self::Commit(cause) => cause.kind(),
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
            Self::Containerd(cause) => cause.code(),
            Self::Pull { .. } | Self::Registry { .. } | Self::Fetch { .. } | Self::Client(_) => {
                of_pull(self.kind())
            }
            Self::Manifest { .. } => "BadManifest",
            Self::Layer { .. } => match self.kind() {
                ErrorKind::NoSpace => "NoSpace",
                ErrorKind::Local | ErrorKind::Cancelled => "UnpackFailed",
                _ => "BadLayer",
            },
            Self::NoSpace { .. } => "NoSpace",
            Self::Commit(cause) => cause.code(),
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

/// The word for a pull that ended with an error of this kind.
fn of_pull(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "NotFound",
        ErrorKind::Denied => "Denied",
        ErrorKind::Throttled { .. } => "Throttled",
        ErrorKind::NoSpace => "NoSpace",
        ErrorKind::Unsupported => "Unsupported",
        ErrorKind::Invalid => "Invalid",
        ErrorKind::Local => "ContainerdUnavailable",
        ErrorKind::Transient | ErrorKind::Changed | ErrorKind::Corrupt | ErrorKind::Cancelled => "PullFailed",
    }
}
