//! What a registry's answer means: an artifact with its layers, or an index of several (OCI image spec, manifest.md and
//! image-index.md). Pure.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::index::Index;
use super::layer::{Layer, RawDescriptor};
use super::quote::quote;
use crate::source::index::MOST_FILES;
use crate::types::RelPath;

const MANIFESTS: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];

const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];

/// The configurations of images.
const IMAGES: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// A document that could be read.
#[derive(Debug)]
pub(super) enum Document {
    /// One artifact.
    Artifact(Artifact),
    /// A choice of several.
    Index(Index),
}

/// An artifact.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Artifact {
    /// In the manifest's order; no two have one name.
    pub(super) layers: Vec<Layer>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawDocument {
    schema_version: Option<u64>,
    media_type: Option<String>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    manifests: Option<Vec<RawDescriptor>>,
    fs_layers: Option<IgnoredAny>,
}

/// Reads what was announced as a document of type `media_type`. A document that calls itself something else, or could
/// be read as a manifest and as an index, is refused (CVE-2021-41190). The error says what is wrong and what to do.
pub(super) fn parse(media_type: &str, bytes: &[u8]) -> Result<Document, String> {
    let is_manifest = MANIFESTS.contains(&media_type);
    if !is_manifest && !INDEXES.contains(&media_type) {
        return Err(format!(
            "it is of the type {}, which is neither an artifact nor an index of them; push it as an OCI 1.1 artifact",
            quote(media_type)
        ));
    }
    let raw: RawDocument = serde_json::from_slice(bytes).map_err(|error| {
        format!("its manifest can't be understood: {}; push it again", quote(&error.to_string()))
    })?;
    if raw.schema_version == Some(1) || raw.fs_layers.is_some() {
        return Err(
            "its manifest is in Docker's old format (schema 1); push it again with a newer tool".to_owned()
        );
    }
    let kinds = if is_manifest { MANIFESTS } else { INDEXES };
    let is_other = match &raw.media_type {
        Some(own) if !own.is_empty() => !kinds.contains(&own.as_str()),
        _ => false,
    };
    let has_other =
        if is_manifest { raw.manifests.is_some() } else { raw.layers.is_some() || raw.config.is_some() };
    if is_other || has_other {
        return Err(format!("what was announced as {media_type} is something else too; push it again"));
    }
    if is_manifest {
        return artifact(raw).map(Document::Artifact);
    }
    Index::new(raw.manifests.unwrap_or_default()).map(Document::Index)
}

fn artifact(raw: RawDocument) -> Result<Artifact, String> {
    let is_image = raw.config.is_some_and(|config| IMAGES.contains(&config.media_type.as_str()));
    let layers = raw.layers.unwrap_or_default();
    if layers.len() > MOST_FILES {
        return Err(format!("it has more than {MOST_FILES} layers"));
    }
    let layers: Vec<Layer> = layers.iter().map(|layer| layer.layer(is_image)).collect::<Result<_, _>>()?;
    let mut names = BTreeSet::new();
    if let Some(twice) =
        layers.iter().filter_map(|layer| layer.content.name()).find(|name| !names.insert(*name))
    {
        return Err(format!("two of its layers are called {twice}; give each file a path of its own"));
    }
    Ok(Artifact { layers })
}

/// The files and sizes of the artifact that `bytes` are, for those who try any bytes as one. Of an index, those that
/// could be chosen are none.
///
/// # Errors
/// What is wrong with it, in one line.
pub(crate) fn artifact_files(media_type: &str, bytes: &[u8]) -> Result<Vec<(RelPath, u64)>, String> {
    let artifact = match parse(media_type, bytes)? {
        Document::Artifact(artifact) => artifact,
        Document::Index(index) => return index.choose("registry.example/any").map(|_| Vec::new()),
    };
    let mut files = Vec::new();
    for Layer { descriptor, content } in artifact.layers {
        match content {
            super::layer::Content::File(path) => files.push((path, descriptor.size)),
            super::layer::Content::Nothing => {}
            super::layer::Content::Unfit { problem, .. } => return Err(problem),
        }
    }
    Ok(files)
}
