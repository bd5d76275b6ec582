//! `gs://` and `az://`: one object, or all under a prefix, from Google Cloud Storage, Azure Blob Storage, or anything
//! that speaks their protocols.
//!
//! Who we are to them (keys, tokens, instance metadata, signatures) is the crate object_store's business. The requests
//! for listings and bytes are made here: the crate's own answers hide what must be seen, such as generations and custom
//! metadata in a listing, names exactly as they are, and `Retry-After`.
//!
//! Neither store publishes a SHA-256. Their MD5 and CRC32C are no digests that prove a file, so files without a digest
//! in the list are recorded, not verified; whoever publishes can say one by the custom metadata `sha256` of an object.

mod azure;
mod bucket;
mod endpoint;
mod google;
mod names;
mod object;
mod store;
mod tokens;
mod wire;

use std::sync::Arc;

use self::bucket::{Bucket, place};
use self::store::{Page, Words};
use self::tokens::Tokens;
use self::wire::Wire;
use super::credentials::Credentials;
use super::shown::shown;
use super::{SourceConfig, SourceError};
use crate::types::RelPath;

/// The files on a page of Google's listing of everything, and what is said where it's none: for those who try any bytes
/// as one.
pub(crate) fn google_listing(document: &[u8]) -> Result<Vec<RelPath>, String> {
    let _ = google::listing::object(document).map(|seen| seen.digest());
    files(google::listing::page(document), google::listing::words(document))
}

/// The same of Azure's.
pub(crate) fn azure_listing(document: &[u8]) -> Result<Vec<RelPath>, String> {
    files(azure::listing::page(document), azure::listing::words(document))
}

fn files(page: Result<Page, String>, words: Option<Words>) -> Result<Vec<RelPath>, String> {
    let page = page.map_err(|problem| wire::says(words, None).unwrap_or(problem))?;
    let files = page.objects.iter().map(|seen| {
        seen.digest()?;
        place("", seen).map_err(|problem| format!("{}: {problem}", shown(&seen.key)))
    });
    files.filter_map(Result::transpose).collect()
}

/// One connection pool for bytes and one for tokens.
#[derive(Debug)]
pub(super) struct Clients {
    wire: Wire,
    tokens: Tokens,
}

impl Clients {
    pub(super) fn new(config: &SourceConfig) -> Result<Self, SourceError> {
        Ok(Self { wire: Wire::new(config)?, tokens: Tokens::new(config)? })
    }

    /// A bucket of Google Cloud Storage, as somebody with these credentials sees it.
    pub(super) async fn google(
        &self,
        bucket: &str,
        credentials: Option<&Credentials>,
    ) -> Result<Bucket, SourceError> {
        let store = google::Store::new(bucket, credentials, &self.tokens).await?;
        Ok(Bucket::new(self.wire.clone(), Arc::new(store)))
    }

    /// The same for a container of Azure Blob Storage; `account` is the one that the list names.
    pub(super) async fn azure(
        &self,
        account: Option<&str>,
        container: &str,
        credentials: Option<&Credentials>,
    ) -> Result<Bucket, SourceError> {
        let store = azure::Store::new(account, container, credentials, &self.tokens).await?;
        Ok(Bucket::new(self.wire.clone(), Arc::new(store)))
    }
}
