//! Google Cloud Storage by its JSON API, whose listings tell the generation of each object.

mod identity;
pub(super) mod listing;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, Request};

use self::identity::Identity;
use super::endpoint::Endpoint;
use super::names::as_part;
use super::store::{Meaning, Page, Seen, Words};
use super::tokens::Tokens;
use crate::source::SourceError;
use crate::source::credentials::Credentials;
use crate::source::shown::shown;

/// Tells the generation in the answer to a download.
const GENERATION: &str = "x-goog-generation";

/// One bucket, and who asks for it.
#[derive(Debug)]
pub(super) struct Store {
    endpoint: Endpoint,
    bucket: String,
    identity: Identity,
    tokens: Tokens,
}

impl Store {
    pub(super) async fn new(
        bucket: &str,
        credentials: Option<&Credentials>,
        tokens: &Tokens,
    ) -> Result<Self, SourceError> {
        let (identity, endpoint) = identity::find(credentials, tokens).await?;
        Ok(Self { endpoint, bucket: bucket.to_owned(), identity, tokens: tokens.clone() })
    }

    fn get(&self, key: Option<&str>, query: &[(&str, &str)]) -> Request {
        let bucket = as_part(&self.bucket);
        let path = match key {
            Some(key) => format!("storage/v1/b/{bucket}/o/{}", as_part(key)),
            None => format!("storage/v1/b/{bucket}/o"),
        };
        Request::new(Method::GET, self.endpoint.url(&path, query))
    }
}

impl super::store::Store for Store {
    fn shown(&self, key: &str) -> String {
        format!("gs://{}/{}", self.bucket, shown(key))
    }

    fn origin(&self) -> &str {
        &self.endpoint.origin
    }

    fn page(&self, prefix: &str, next: Option<&str>) -> Request {
        let mut query = vec![("prefix", prefix), ("maxResults", "1000"), ("fields", listing::FIELDS)];
        query.extend(next.map(|token| ("pageToken", token)));
        self.get(None, &query)
    }

    fn read_page(&self, document: &[u8]) -> Result<Page, String> {
        listing::page(document)
    }

    fn about(&self, key: &str) -> Request {
        self.get(Some(key), &[("fields", listing::OBJECT_FIELDS)])
    }

    fn read_about(&self, _: &str, _: &HeaderMap, document: &[u8]) -> Result<Seen, String> {
        listing::object(document)
    }

    /// A generation that was replaced is not found any more, or still there where the bucket keeps old versions.
    fn object(&self, key: &str, version: &str) -> Request {
        self.get(Some(key), &[("alt", "media"), ("generation", version)])
    }

    fn is_other(&self, version: &str, headers: &HeaderMap) -> bool {
        headers.get(GENERATION).is_some_and(|told| told.as_bytes() != version.as_bytes())
    }

    fn sign(&self, mut request: Request) -> BoxFuture<'_, Result<Request, SourceError>> {
        async move {
            if let Some(token) = self.identity.credential(&self.tokens, &self.endpoint.origin).await? {
                let mut value = HeaderValue::from_str(&format!("Bearer {}", token.bearer))
                    .map_err(|_| self.identity.failed("the token holds characters that no header can"))?;
                value.set_sensitive(true);
                request.headers_mut().insert(AUTHORIZATION, value);
            }
            Ok(request)
        }
        .boxed()
    }

    fn words(&self, _: &HeaderMap, document: &[u8]) -> Option<Words> {
        listing::words(document)
    }

    fn meaning(&self, status: u16, code: &str) -> Meaning {
        let (status, hint) = match (status, code) {
            // "Usage limits" in the API's list of status codes: these come as 403, too.
            (403, "rateLimitExceeded" | "userRateLimitExceeded" | "quotaExceeded") => (429, None),
            (403, _) => (403, Some("grant it roles/storage.objectViewer on the bucket")),
            (400, "userProjectMissing") => {
                (403, Some("whoever asks pays for this bucket, which is not supported; copy the objects"))
            }
            (status, _) => (status, None),
        };
        Meaning { status, hint }
    }
}
