use super::Unable;
use super::puller::Request;
use crate::containerd::Containerd;
use crate::image::ImageError;
use crate::image::layer::Compression;
use crate::image::manifest::{self, Document, INDEX_DEPTH, ManifestError, Platform};
use crate::types::{Descriptor, Digest, ErrorKind};

/// A configuration is some tens of KiB; containerd itself reads at most this much.
const CONFIG_LIMIT: usize = 8 << 20;

/// All that is to be known of an image before its first layer is fetched. Every document's digest was checked.
#[derive(Debug, Clone)]
pub(super) struct ImagePlan {
    /// What the reference points at: the index's descriptor, where there is one.
    pub(super) target: Descriptor,
    /// From the target to the manifest of this platform, each with its bytes; the last one is the manifest.
    pub(super) documents: Vec<(Descriptor, Vec<u8>)>,
    /// The configuration, and its bytes.
    pub(super) config: (Descriptor, Vec<u8>),
    /// From the bottom up.
    pub(super) layers: Vec<PlannedLayer>,
}

/// One layer, and what it becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlannedLayer {
    pub(super) descriptor: Descriptor,
    pub(super) compression: Compression,
    /// SHA-256 of its tar stream.
    pub(super) diff: Digest,
    /// The snapshot's name.
    pub(super) chain: Digest,
    /// That of the one below.
    pub(super) parent: Option<Digest>,
}

impl ImagePlan {
    /// The manifest of this platform.
    pub(super) fn manifest(&self) -> Digest {
        self.documents.last().map_or(self.target.digest, |(descriptor, _)| descriptor.digest)
    }
}

/// Reads what `target` leads to: from containerd where it has it, else from the registry.
pub(super) async fn plan(
    target: Descriptor,
    request: &Request<'_>,
    containerd: &Containerd,
) -> Result<Result<ImagePlan, Unable>, ImageError> {
    let Request { asked, repository, .. } = *request;
    let unusable =
        |cause| ImageError::Manifest { image: asked.reference.to_string(), cause: Box::new(cause) };
    let platform = Platform::of_this_node();
    let mut documents = Vec::new();
    let mut next = target.clone();
    let manifest = loop {
        let bytes = match containerd.read_blob(next.digest).await? {
            Some(bytes) => bytes,
            None => repository.manifest(&next).await.map_err(|cause| asked.failed(cause))?,
        };
        let document = match manifest::parse(&next, &bytes) {
            Ok(document) => document,
            Err(cause) => return left_or_refused(cause, unusable),
        };
        documents.push((next, bytes));
        match document {
            Document::Manifest(manifest) => break manifest,
            Document::Index(_) if documents.len() > INDEX_DEPTH => {
                let unusual = format!("its indexes lead to others more than {INDEX_DEPTH} times");
                return Ok(Err(Unable::Unusual(unusual)));
            }
            Document::Index(index) => match index.choose(&platform) {
                Ok(descriptor) => next = descriptor,
                Err(cause) => return left_or_refused(cause, unusable),
            },
        }
    };
    if let Some(unusual) = manifest.unusual() {
        return Ok(Err(Unable::Unusual(unusual.to_string())));
    }
    let config = match containerd.read_blob(manifest.config.digest).await? {
        Some(bytes) => bytes,
        None => repository
            .small_blob(&manifest.config, CONFIG_LIMIT)
            .await
            .map_err(|cause| asked.failed(cause))?,
    };
    let read =
        manifest::parse_config(&config).and_then(|read| read.fits(&manifest, &platform).map(|()| read));
    let diffs = match read {
        Ok(read) => read.diff_ids,
        Err(cause) => return left_or_refused(cause, unusable),
    };
    let chains = manifest::chain_ids(&diffs);
    let parents = std::iter::once(None).chain(chains.iter().copied().map(Some));
    let layers = manifest.layers.into_iter().zip(diffs).zip(chains.iter().copied().zip(parents)).map(
        |((layer, diff), (chain, parent))| PlannedLayer {
            descriptor: layer.descriptor,
            compression: layer.compression,
            diff,
            chain,
            parent,
        },
    );
    Ok(Ok(ImagePlan { target, documents, config: (manifest.config, config), layers: layers.collect() }))
}

/// What containerd may still be able to do is left to it; what is no good for anybody is refused.
fn left_or_refused<T>(
    cause: ManifestError,
    refused: impl FnOnce(ManifestError) -> ImageError,
) -> Result<Result<T, Unable>, ImageError> {
    match cause.kind() {
        ErrorKind::Unsupported => Ok(Err(Unable::Unusual(cause.to_string()))),
        _ => Err(refused(cause)),
    }
}
