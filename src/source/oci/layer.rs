//! What a layer of an artifact is: a file, nothing, or something that is no file as it is. Pure.

use serde::Deserialize;

use super::quote::quote;
use crate::types::{Descriptor, Digest, RelPath};

/// What a layer without content has (OCI image spec, manifest.md, "Guidance for an Empty Descriptor").
pub(super) const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// What all of ModelPack's own types begin with (model-spec, `specs-go/v1/mediatype.go`).
const MODEL_PACK: &str = "application/vnd.cncf.model.";

/// A descriptor as documents have it (OCI image spec, descriptor.md).
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct RawDescriptor {
    pub(super) media_type: String,
    pub(super) artifact_type: Option<String>,
    digest: String,
    size: Option<u64>,
    urls: Option<Vec<String>>,
    pub(super) annotations: Option<Annotations>,
    pub(super) platform: Option<RawPlatform>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawPlatform {
    pub(super) os: String,
    pub(super) architecture: String,
}

/// The annotations that mean something here; of others not even the type is looked at.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Annotations {
    /// The file's path (model-spec, `specs-go/v1/annotations.go`).
    #[serde(rename = "org.cncf.model.filepath")]
    model_path: Option<String>,
    /// The same for ORAS (oras-go, `content/file/file.go`).
    #[serde(rename = "org.opencontainers.image.title")]
    title: Option<String>,
    /// "true": a directory that ORAS has packed (ibid.).
    #[serde(rename = "io.deis.oras.content.unpack")]
    unpack: Option<String>,
    /// What buildkit calls its attestations by.
    #[serde(rename = "vnd.docker.reference.type")]
    pub(super) reference_type: Option<String>,
}

/// One layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layer {
    pub(super) descriptor: Descriptor,
    pub(super) content: Content,
}

/// What is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// A file, as it is.
    File(RelPath),
    /// No file.
    Nothing,
    /// Something that can't be placed as it is.
    Unfit {
        /// What it's called, if it is.
        path: Option<RelPath>,
        /// Why, and what to do.
        problem: String,
    },
}

impl Content {
    /// The file's path.
    pub(super) fn file(&self) -> Option<&RelPath> {
        match self {
            Self::File(path) => Some(path),
            Self::Nothing | Self::Unfit { .. } => None,
        }
    }

    /// What it's called, a file or not.
    pub(super) fn name(&self) -> Option<&RelPath> {
        match self {
            Self::File(path) => Some(path),
            Self::Unfit { path, .. } => path.as_ref(),
            Self::Nothing => None,
        }
    }
}

impl RawDescriptor {
    /// The digest and the size are as they should be, or what is wrong with them.
    pub(super) fn descriptor(&self) -> Result<Descriptor, String> {
        let digest = self.digest.strip_prefix("sha256:").filter(|hex| {
            hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        });
        let digest: Digest = digest.and_then(|hex| hex.parse().ok()).ok_or_else(|| {
            format!("its manifest has the digest \"{}\", and only sha256 is supported", quote(&self.digest))
        })?;
        let size = self.size.ok_or_else(|| format!("its manifest tells no size of {digest}"))?;
        Ok(Descriptor { media_type: self.media_type.clone(), digest, size })
    }

    /// What the layer is; `image` where the configuration is that of an image.
    pub(super) fn layer(&self, image: bool) -> Result<Layer, String> {
        let descriptor = self.descriptor()?;
        if self.media_type == EMPTY {
            return Ok(Layer { descriptor, content: Content::Nothing });
        }
        let none = Annotations::default();
        let annotations = self.annotations.as_ref().unwrap_or(&none);
        let name = [&annotations.model_path, &annotations.title]
            .into_iter()
            .find_map(|name| name.as_deref().filter(|name| !name.is_empty()));
        let path = name.map(|name| {
            name.parse::<RelPath>().map_err(|_| {
                format!("its layer {} is called \"{}\", which no file can be", descriptor.digest, quote(name))
            })
        });
        let path = path.transpose()?;
        let shown = match &path {
            Some(path) => format!("{} ({path}, {})", descriptor.digest, quote(&self.media_type)),
            None => format!("{} ({})", descriptor.digest, quote(&self.media_type)),
        };
        let content = match (self.objection(annotations, &shown, image), path) {
            (Some(problem), path) => Content::Unfit { path, problem },
            (None, Some(path)) => Content::File(path),
            (None, None) => Content::Unfit {
                path: None,
                problem: format!(
                    "its layer {shown} has no name; publish it with the annotation org.cncf.model.filepath or \
                     org.opencontainers.image.title"
                ),
            },
        };
        Ok(Layer { descriptor, content })
    }

    /// Why its bytes aren't those of a file.
    fn objection(&self, annotations: &Annotations, shown: &str, image: bool) -> Option<String> {
        if self.urls.as_ref().is_some_and(|urls| !urls.is_empty()) {
            return Some(format!(
                "its layer {shown} is to come from URLs, and no host is asked that only a manifest names; push its \
                 bytes to the registry"
            ));
        }
        if self.media_type.split('+').skip(1).any(|suffix| suffix == "encrypted") {
            return Some(format!("its layer {shown} is encrypted; publish it unencrypted"));
        }
        let is_directory = annotations.unpack.as_deref() == Some("true");
        // ORAS calls a plain file a tar layer where nobody says what it is, and writes its bytes as they are. In an image
        // it's a tar, whatever it's called.
        let is_file_of_oras = !image
            && annotations.model_path.is_none()
            && annotations.title.is_some()
            && !self.media_type.starts_with(MODEL_PACK);
        if !is_directory && (is_file_of_oras || !is_packed(&self.media_type)) {
            return None;
        }
        Some(match image {
            true => format!(
                "it is an image, and its layer {shown} a packed file system; list it under `image:`, or publish each \
                 file as a layer of its own (ModelPack's .raw types, or oras push FILE)"
            ),
            false => format!(
                "its layer {shown} is packed, and files are placed as they are; publish each file as a layer of its \
                 own (ModelPack's .raw types, or oras push FILE), or leave it out by `exclude`"
            ),
        })
    }
}

/// Whether a media type says that the bytes are an archive, or compressed.
fn is_packed(media_type: &str) -> bool {
    let mut parts = media_type.split('+');
    let stem = parts.next().unwrap_or_default();
    stem.split(['.', '/', '-']).any(|part| part == "tar")
        || parts.any(|suffix| matches!(suffix, "gzip" | "zstd"))
}
