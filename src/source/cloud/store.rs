use futures::future::BoxFuture;
use http::HeaderMap;
use reqwest::Request;

use crate::source::SourceError;
use crate::types::Digest;

/// What differs between the clouds: how a request looks, and what its answer means. Sends nothing itself, but for
/// tokens.
pub(super) trait Store: std::fmt::Debug + Send + Sync {
    /// An object for people. Never with a signature.
    fn shown(&self, key: &str) -> String;

    /// `host:port`.
    fn origin(&self) -> &str;

    /// Asks for one page of what is under `prefix`: the first, or that which `next` leads to.
    fn page(&self, prefix: &str, next: Option<&str>) -> Request;

    /// Reads that page. The error says what is wrong with it.
    fn read_page(&self, document: &[u8]) -> Result<Page, String>;

    /// Asks for what is known about one object.
    fn about(&self, key: &str) -> Request;

    /// Reads that. The error says what is wrong with it.
    fn read_about(&self, key: &str, headers: &HeaderMap, document: &[u8]) -> Result<Seen, String>;

    /// Asks for the bytes of one object at this version, and for no other version.
    fn object(&self, key: &str, version: &str) -> Request;

    /// Whether the head of an answer is that of another version than `version`.
    fn is_other(&self, version: &str, headers: &HeaderMap) -> bool;

    /// Says as whom it's asked. Nothing of the request may change afterwards.
    fn sign(&self, request: Request) -> BoxFuture<'_, Result<Request, SourceError>>;

    /// The store's own words in a refusal.
    fn words(&self, headers: &HeaderMap, document: &[u8]) -> Option<Words>;

    /// What a refusal means.
    fn meaning(&self, status: u16, code: &str) -> Meaning;
}

/// An object as the store describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) key: String,
    pub(super) size: u64,
    /// A generation or an ETag.
    pub(super) version: String,
    /// Its custom metadata `sha256`, as it stands there.
    pub(super) sha256: Option<String>,
    /// Its `Content-Encoding`, where it has one.
    pub(super) encoding: Option<String>,
    /// Whether it only stands for a directory.
    pub(super) is_directory: bool,
}

impl Seen {
    /// The digest that its publisher gave it.
    ///
    /// # Errors
    /// What is wrong with it: a digest that can't be read is one that can't be checked.
    pub(super) fn digest(&self) -> Result<Option<Digest>, String> {
        let Some(hex) = self.sha256.as_deref() else { return Ok(None) };
        let digest = hex.trim().to_ascii_lowercase().parse();
        digest
            .map(Some)
            .map_err(|_| "its metadata sha256 is not 64 hex digits; correct or remove it".to_owned())
    }
}

/// One page of a listing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) objects: Vec<Seen>,
    pub(super) next: Option<String>,
}

/// What a store says about why it refuses. Only these are passed on: the rest of such a document may repeat the
/// signature that was sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) code: String,
    pub(super) message: String,
}

/// What is made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meaning {
    /// The status that says what the code says, where the store itself sends a vaguer one.
    pub(super) status: u16,
    /// What to do next.
    pub(super) hint: Option<&'static str>,
}
