use super::Digest;

/// What points at a blob of a registry: its type, digest and size (OCI image spec, descriptor.md).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// What the bytes are, as `application/vnd.oci.image.manifest.v1+json`.
    pub media_type: String,
    /// SHA-256 of the bytes.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
}
