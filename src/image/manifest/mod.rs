//! What a registry's documents mean: indexes, manifests and configurations, of the OCI's and Docker's kinds. Pure.
//!
//! Bytes in, meaning out: nothing here fetches or checks a digest. Where two readers could understand a document in two
//! ways, it's refused: what we unpack must be what containerd and the kubelet see in the same bytes.

mod chain;
mod config;
mod document;
mod error;
mod index;
mod limits;
mod media_type;
mod platform;
#[cfg(test)]
mod tests;
mod unusual;
mod wire;

pub(crate) use chain::chain_ids;
pub(crate) use config::parse_config;
pub(crate) use document::{Document, Manifest, parse};
pub use error::ManifestError;
pub(crate) use index::INDEX_DEPTH;
pub(crate) use platform::Platform;
