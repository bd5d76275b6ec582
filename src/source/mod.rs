//! Where bytes come from: one file a kind of server. Each answers two questions: which files are there (at which
//! version, of which size, with which digest), and the bytes of one range of one of them.
//!
//! A source never writes anything, never retries on its own (`fetch/` does) and never shows a secret.

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

use crate::types::{ByteRange, Published, RelPath};

mod answer;
mod body;
mod client;
mod cloud;
mod config;
mod credentials;
mod direct;
mod dns;
mod error;
#[cfg(test)]
mod faulty;
mod files;
mod hf;
mod http;
mod index;
mod listing;
mod memory;
mod oci;
mod patience;
mod ranged;
mod redirects;
pub mod registry;
mod s3;
mod selection;
mod serves_ranges;
mod shown;
mod sources;
mod stored_part;
#[cfg(test)]
mod tests;
mod trust;
mod xml;

pub(crate) use cloud::{azure_listing, google_listing};
pub use config::SourceConfig;
pub use error::SourceError;
#[cfg(test)]
pub(crate) use faulty::{Fault, Faulty};
pub(crate) use hf::hub_tree_page;
pub use hf::{HubCommit, HubEndpoint, HubFile, InvalidHubEndpoint};
pub(crate) use index::index_at;
pub use listing::Listing;
pub use memory::MemorySource;
pub(crate) use oci::artifact_files;
pub(crate) use s3::{s3_listing, s3_listing_runtime, s3_refusal};
pub use sources::Sources;

/// One blob at one version of it: whoever holds it gets those bytes or an error, never a mixture of two versions.
pub trait RangeSource: std::fmt::Debug + Send + Sync {
    /// The bytes of `range`. The answer has been checked already: status 206 (or 200 for the whole blob), an
    /// exact Content-Range, the total, the pinned version. The stream may still end early or fail.
    fn get(&self, range: ByteRange) -> BoxFuture<'_, Result<RangeBody, SourceError>>;

    /// Which server the connections go to (`host:port`), to bound them by.
    fn origin(&self) -> &str;

    /// Whether the server answers a `Range` with that range. False, which may turn up only after a `get`, means
    /// that every `get` reads the blob from its first byte and drops what comes before the range: whoever
    /// reads then should ask once, for all of it, and not in parallel.
    fn serves_ranges(&self) -> bool {
        true
    }

    /// The length of the parts in which the server stores the blob, all but the last, where that shows: a range that
    /// lies in one of them is one read for the server.
    fn stored_part(&self) -> Option<u64> {
        None
    }

    /// The same blob from another server, where there is one that is to be believed more: to be asked once bytes came
    /// wrong.
    fn elsewhere(&self) -> Option<std::sync::Arc<dyn RangeSource>> {
        None
    }

    /// Whether the server may say what the bytes are, and hasn't been asked yet. Its answer to a `get` of all of them says
    /// it, too, so that a small blob needs no request more.
    fn may_tell(&self) -> bool {
        false
    }

    /// What the server has said of the bytes, since it was asked or with an answer to a `get` of all of them.
    fn told(&self) -> Option<Published> {
        None
    }

    /// Asks the server what the bytes are; `None` where it doesn't say.
    fn ask(&self) -> BoxFuture<'_, Result<Option<Published>, SourceError>> {
        Box::pin(std::future::ready(Ok(self.told())))
    }
}

/// What a server sends for a range.
pub struct RangeBody {
    /// The bytes, in order. Never more than the range; fewer is an error that the stream itself doesn't report.
    pub bytes: BoxStream<'static, Result<Bytes, SourceError>>,
}

/// One file of a set of weights, as its source describes it.
#[derive(Debug, Clone)]
pub struct RemoteFile {
    /// Where it will be in the tree.
    pub path: RelPath,
    /// Its length in bytes.
    pub size: u64,
    /// The source's own name for this version of it (a strong ETag, a generation, a version id, git's name), or
    /// `None` where the source gives none.
    pub version: Option<String>,
    /// What its bytes are, as the index, the store, the Hub or the list publishes it.
    pub digest: Option<Published>,
    /// The bytes.
    pub bytes: std::sync::Arc<dyn RangeSource>,
}
