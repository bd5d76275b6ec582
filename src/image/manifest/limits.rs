//! What a document may be, at most. Beyond it lies an attack or a mistake.

use super::error::ManifestError;

/// Bytes of a manifest or an index: what registries must take (OCI distribution spec, "Pushing Manifests"), and about
/// what containerd takes (`MaxManifestSize` in its core/remotes/docker/resolver.go).
pub(super) const DOCUMENT: u64 = 4 << 20;

/// Bytes of a configuration: what is read back from the content store later.
pub(super) const CONFIG: u64 = 8 << 20;

/// Bytes of all layers of an image.
pub(super) const IMAGE: u64 = 1 << 40;

/// Layers of an image: overlayfs takes no more lower directories (`OVL_MAX_STACK` in Linux), and a container's own
/// directory comes on top of all layers.
pub(super) const LAYERS: usize = 500;

/// Images of an index: what containerd 2.4 follows (`maxReferences` in its core/images/handlers.go).
pub(super) const IMAGES: usize = 10_000;

/// Holds a document's size against its limit.
pub(super) fn check_size(what: &'static str, bytes: u64, limit: u64) -> Result<(), ManifestError> {
    if bytes > limit { Err(ManifestError::TooLarge { what, bytes, limit }) } else { Ok(()) }
}

/// Holds a number of layers against its limit.
pub(super) fn check_layers(what: &'static str, count: usize) -> Result<(), ManifestError> {
    if count > LAYERS { Err(ManifestError::TooManyLayers { what, count, limit: LAYERS }) } else { Ok(()) }
}
