use std::fmt;

use super::error::quote;

/// What makes an image one that only containerd itself can bring in. Each holds the media type that says so, cut and
/// escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unusual {
    /// An encrypted layer: containerd's stream processors have the keys.
    Encrypted(String),
    /// A layer that is to be had from URLs in the manifest. We go to no host that only an image names (CVE-2020-15157).
    Foreign(String),
    /// A layer of a type that we don't know.
    UnknownLayerType(String),
    /// A layer whose type leaves open whether it's packed.
    UndeclaredCompression(String),
    /// A configuration of a type that we don't know: an artifact rather than an image.
    UnknownConfigType(String),
}

impl fmt::Display for Unusual {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encrypted(media_type) => write!(f, "a layer is encrypted ({media_type})"),
            Self::Foreign(media_type) => write!(f, "a layer is to come from elsewhere ({media_type})"),
            Self::UnknownLayerType(media_type) => write!(f, "a layer is of an unknown type ({media_type})"),
            Self::UndeclaredCompression(media_type) => {
                write!(f, "a layer's type doesn't say how it's packed ({media_type})")
            }
            Self::UnknownConfigType(media_type) => {
                write!(f, "its configuration is of an unknown type ({media_type})")
            }
        }
    }
}

impl Unusual {
    /// With the media type made fit for a message.
    pub(super) fn with(make: fn(String) -> Self, media_type: &str) -> Self {
        make(quote(media_type))
    }
}
