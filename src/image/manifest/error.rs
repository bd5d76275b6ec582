use crate::types::ErrorKind;

/// Why a document can't be used. Whatever it quotes of the document is cut and escaped.
///
/// Those of the kind [`ErrorKind::Unsupported`] say what containerd may still be able to do; all others, that the image
/// is no good for anybody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It is larger than such a document ever is.
    #[error("the {what} has {bytes} bytes, and no image needs more than {limit}; build the image anew")]
    TooLarge {
        /// Index, manifest or configuration.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// What it may be.
        limit: u64,
    },
    /// It isn't what its type says, or can be read in two ways.
    #[error("the {what} can't be read: {problem}; push the image again")]
    Malformed {
        /// Index, manifest or configuration.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Docker's format of before 2016, whose layers have no digests of their own.
    #[error("the image is in Docker's old format (schema 1); push it again with a newer tool")]
    Schema1,
    /// What the reference points at is no image.
    #[error("{media_type:?} is neither an image nor an index of images")]
    UnknownType {
        /// What the registry, or the document itself, calls it.
        media_type: String,
    },
    /// A manifest that is called an index, or the other way round, or both in one (CVE-2021-41190).
    #[error("a document announced as {announced} has the fields of something else; push the image again")]
    Ambiguous {
        /// The type in the descriptor.
        announced: String,
    },
    /// The index has nothing for this node.
    #[error(
        "no image for {wanted} (there is: {offered}); build it for that too, or keep the entry off such nodes"
    )]
    NoPlatform {
        /// This node's platform.
        wanted: String,
        /// All that there are.
        offered: String,
    },
    /// Old and new versions of containerd don't choose the same image from this index.
    #[error("which image of this index is for {wanted} depends on containerd's version")]
    DependsOnVersion {
        /// This node's platform.
        wanted: String,
    },
    /// The image is for another machine, by its own configuration.
    #[error("the image is for {found}, and this node is {wanted}")]
    OtherPlatform {
        /// This node's platform.
        wanted: String,
        /// What the configuration says.
        found: String,
    },
    /// A digest of another algorithm.
    #[error("the {what} has the digest {digest:?}; only sha256 is supported")]
    OtherDigest {
        /// Index, manifest or configuration.
        what: &'static str,
        /// The digest.
        digest: String,
    },
    /// More layers than can be mounted.
    #[error(
        "the {what} has {count} layers, and overlayfs stacks at most {limit}; build the image with fewer"
    )]
    TooManyLayers {
        /// Manifest or configuration.
        what: &'static str,
        /// How many.
        count: usize,
        /// What it may have.
        limit: usize,
    },
    /// More bytes than any image has.
    #[error("the layers have {bytes} bytes together, and {limit} is the most that is supported")]
    TooManyBytes {
        /// Their sum.
        bytes: u64,
        /// What it may be.
        limit: u64,
    },
    /// Manifest and configuration aren't of the same image.
    #[error("the manifest has {layers} layers, and the configuration names {diff_ids}; push the image again")]
    LayerCount {
        /// In the manifest.
        layers: usize,
        /// In the configuration.
        diff_ids: usize,
    },
    /// A root file system that isn't made of layers.
    #[error("the configuration's rootfs is of the unknown type {found:?}")]
    OtherRootFs {
        /// What the configuration calls it.
        found: String,
    },
}

impl ManifestError {
    /// What to make of it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Schema1
            | Self::UnknownType { .. }
            | Self::NoPlatform { .. }
            | Self::DependsOnVersion { .. }
            | Self::OtherPlatform { .. }
            | Self::OtherDigest { .. }
            | Self::OtherRootFs { .. } => ErrorKind::Unsupported,
            Self::TooLarge { .. }
            | Self::Malformed { .. }
            | Self::Ambiguous { .. }
            | Self::TooManyLayers { .. }
            | Self::TooManyBytes { .. }
            | Self::LayerCount { .. } => ErrorKind::Invalid,
        }
    }
}

/// The longest quote of a document in a message, in characters.
const QUOTE: usize = 120;

/// Text from a document, fit for a message: short and on one line.
pub(super) fn quote(text: &str) -> String {
    let mut quoted: String = text.chars().take(QUOTE).flat_map(char::escape_debug).collect();
    if text.chars().nth(QUOTE).is_some() {
        quoted.push('…');
    }
    quoted
}
