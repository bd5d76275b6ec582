use crate::image::layer::Compression;

/// Docker's manifest of before 2016, signed and not.
pub(super) const DOCKER_SCHEMA_1: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
    "application/vnd.docker.distribution.manifest.v1+json",
];

const MANIFESTS: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];

const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];

const CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// What kind of document a media type promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// One image.
    Manifest,
    /// A choice of images.
    Index,
}

impl Class {
    /// `None` for what is neither. Types are compared as containerd does it, letter by letter.
    pub(super) fn of(media_type: &str) -> Option<Self> {
        if MANIFESTS.contains(&media_type) {
            Some(Self::Manifest)
        } else if INDEXES.contains(&media_type) {
            Some(Self::Index)
        } else {
            None
        }
    }

    /// The word for it in messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Index => "index",
        }
    }
}

/// Whether it's a configuration whose rootfs containerd unpacks.
pub(super) fn is_config(media_type: &str) -> bool {
    CONFIGS.contains(&media_type)
}

/// What a layer's media type says of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LayerType {
    /// A tar stream, packed like this.
    Tar(Compression),
    /// A tar stream that may or may not be packed: containerd looks at its first bytes (`DiffCompression` in its
    /// core/images/mediatypes.go).
    Undeclared,
    /// To be had from elsewhere than the registry.
    Foreign,
    /// Encrypted (ocicrypt).
    Encrypted,
    /// Anything else.
    Unknown,
}

impl LayerType {
    pub(super) fn of(media_type: &str) -> Self {
        match media_type {
            "application/vnd.oci.image.layer.v1.tar" => Self::Tar(Compression::Plain),
            "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Self::Tar(Compression::Gzip),
            "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Self::Tar(Compression::Zstd),
            "application/vnd.docker.image.rootfs.diff.tar" => Self::Undeclared,
            other if other.split('+').skip(1).any(|suffix| suffix == "encrypted") => Self::Encrypted,
            other
                if other.starts_with("application/vnd.oci.image.layer.nondistributable.")
                    || other.starts_with("application/vnd.docker.image.rootfs.foreign.") =>
            {
                Self::Foreign
            }
            _ => Self::Unknown,
        }
    }
}
