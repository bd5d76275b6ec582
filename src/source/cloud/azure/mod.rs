//! Azure Blob Storage by its REST API.

mod identity;
pub(super) mod listing;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH};
use object_store::azure::AzureAuthorizer;
use object_store::client::{HttpRequest, HttpRequestBody};
use reqwest::{Method, Request};

use self::identity::Identity;
use super::endpoint::Endpoint;
use super::names::as_path;
use super::store::{Meaning, Page, Seen, Words};
use super::tokens::Tokens;
use crate::source::SourceError;
use crate::source::answer;
use crate::source::credentials::Credentials;
use crate::source::shown::shown;

/// The version of the API that is spoken ("Versioning for Azure Storage"), the same for whoever signs nothing.
const VERSION: &str = "2023-11-03";

/// One container, and who asks for it.
#[derive(Debug)]
pub(super) struct Store {
    endpoint: Endpoint,
    account: String,
    container: String,
    identity: Identity,
    tokens: Tokens,
}

impl Store {
    pub(super) async fn new(
        account: Option<&str>,
        container: &str,
        credentials: Option<&Credentials>,
        tokens: &Tokens,
    ) -> Result<Self, SourceError> {
        let found = identity::find(account, credentials, tokens).await?;
        let identity::Found { identity, account, endpoint } = found;
        let (container, tokens) = (container.to_owned(), tokens.clone());
        Ok(Self { endpoint, account, container, identity, tokens })
    }

    fn request(&self, method: Method, key: &str, query: &[(&str, &str)]) -> Request {
        let path = match key {
            "" => self.container.clone(),
            key => format!("{}/{}", self.container, as_path(key)),
        };
        let mut request = Request::new(method, self.endpoint.url(&path, query));
        request
            .headers_mut()
            .insert(HeaderName::from_static("x-ms-version"), HeaderValue::from_static(VERSION));
        request
    }

    /// The signature covers the whole request, so its author makes it: object_store.
    async fn signed(&self, request: Request) -> Result<Request, SourceError> {
        let Some(credential) = self.identity.credential(&self.tokens, &self.endpoint.origin).await? else {
            return Ok(request);
        };
        let unsigned = || self.identity.failed("a request can't be signed with them; check each value");
        let mut signed = HttpRequest::new(HttpRequestBody::empty());
        *signed.method_mut() = request.method().clone();
        *signed.uri_mut() = request.url().as_str().parse().map_err(|_| unsigned())?;
        *signed.headers_mut() = request.headers().clone();
        AzureAuthorizer::new(&credential, &self.account)
            .try_authorize(&mut signed)
            .map_err(|_| unsigned())?;
        let url = signed.uri().to_string().parse().map_err(|_| unsigned())?;
        let mut request = Request::new(signed.method().clone(), url);
        *request.headers_mut() = std::mem::take(signed.headers_mut());
        Ok(request)
    }
}

impl super::store::Store for Store {
    fn shown(&self, key: &str) -> String {
        format!("az://{}@{}/{}", self.container, self.account, shown(key))
    }

    fn origin(&self) -> &str {
        &self.endpoint.origin
    }

    fn page(&self, prefix: &str, next: Option<&str>) -> Request {
        let mut query = vec![
            ("restype", "container"),
            ("comp", "list"),
            ("include", "metadata"),
            ("maxresults", "1000"),
            ("prefix", prefix),
        ];
        query.extend(next.map(|marker| ("marker", marker)));
        self.request(Method::GET, "", &query)
    }

    fn read_page(&self, document: &[u8]) -> Result<Page, String> {
        listing::page(document)
    }

    fn about(&self, key: &str) -> Request {
        self.request(Method::HEAD, key, &[])
    }

    fn read_about(&self, key: &str, headers: &HeaderMap, _: &[u8]) -> Result<Seen, String> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let size = text(CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok());
        let is_directory = text("x-ms-resource-type").is_some_and(|kind| kind == "directory")
            || text("x-ms-meta-hdi_isfolder").is_some_and(|is| is.eq_ignore_ascii_case("true"));
        Ok(Seen {
            key: key.to_owned(),
            size: size.ok_or("its answer tells no size")?,
            version: answer::strong_etag(headers).ok_or("its answer tells no strong ETag")?,
            sha256: text("x-ms-meta-sha256"),
            encoding: text(CONTENT_ENCODING.as_str()),
            is_directory,
        })
    }

    /// Another version is a failed condition (412).
    fn object(&self, key: &str, version: &str) -> Request {
        let mut request = self.request(Method::GET, key, &[]);
        // An ETag was checked to be fit for a header when it was read.
        if let Ok(tag) = HeaderValue::from_str(&format!("\"{version}\"")) {
            request.headers_mut().insert(IF_MATCH, tag);
        }
        request
    }

    fn is_other(&self, version: &str, headers: &HeaderMap) -> bool {
        headers.contains_key(ETAG) && answer::strong_etag(headers).as_deref() != Some(version)
    }

    fn sign(&self, request: Request) -> BoxFuture<'_, Result<Request, SourceError>> {
        self.signed(request).boxed()
    }

    fn words(&self, headers: &HeaderMap, document: &[u8]) -> Option<Words> {
        listing::words(document).or_else(|| {
            let code = headers.get("x-ms-error-code")?.to_str().ok()?;
            Some(Words { code: code.to_owned(), message: String::new() })
        })
    }

    /// "Status and error codes" in the API's reference.
    fn meaning(&self, status: u16, code: &str) -> Meaning {
        let (status, hint) = match code {
            "AuthenticationFailed" => {
                (401, Some("the key or the SAS token is wrong or has expired, or this node's clock is wrong"))
            }
            "InvalidAuthenticationInfo" | "NoAuthenticationInformation" => (401, None),
            "PublicAccessNotPermitted" => (403, Some("this account answers nobody without credentials")),
            "AuthorizationPermissionMismatch" => {
                (403, Some("grant it Storage Blob Data Reader, or a SAS token that may read and list"))
            }
            "AuthorizationFailure" => {
                (403, Some("look at the key, at what the SAS token allows, and at the account's firewall"))
            }
            "ResourceNotFound" => {
                (status, Some("a private container looks like this to whoever has no credentials"))
            }
            "ServerBusy" | "OperationTimedOut" => (503, None),
            _ => (status, None),
        };
        Meaning { status, hint }
    }
}
