use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, IF_MATCH, RANGE};
use http::{HeaderMap, HeaderValue, StatusCode};
use reqwest::{Client, Response};
use url::Url;

use super::answer::{self, ContentRange};
use super::body::{Cut, body};
use super::credentials::Credentials;
use super::patience::patiently;
use super::ranged::{self, Unfit};
use super::serves_ranges::ServesRanges;
use super::stored_part::stored_part;
use super::{RangeBody, RangeSource, RemoteFile, SourceConfig, SourceError, client, dns, redirects};
use crate::types::{ByteRange, Digest, Published, RelPath, WeightsUri};

/// `https://` and, where it's allowed, `http://`: HTTP/1.1 over many connections, which is faster for bulk than
/// streams that share one.
#[derive(Debug, Clone)]
pub(super) struct Http {
    client: Client,
    first_byte: Duration,
    stall: Duration,
    allow_http: bool,
}

/// Where a file is and as whom to ask for it.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) url: Url,
    /// Sent to this URL's own host only: the client drops it when a redirect leads elsewhere.
    pub(super) authorization: Option<HeaderValue>,
}

impl Place {
    /// The URL for people, without its query.
    pub(super) fn shown(&self) -> String {
        WeightsUri::Http(self.url.clone()).to_string()
    }

    fn origin(&self) -> String {
        client::origin(&self.url)
    }

    fn invalid(&self, problem: impl Into<String>) -> SourceError {
        SourceError::Invalid { what: self.shown(), problem: problem.into() }
    }

    fn protocol(&self, problem: impl Into<String>) -> SourceError {
        SourceError::Protocol { what: self.shown(), problem: problem.into() }
    }

    fn status(&self, status: StatusCode, headers: &HeaderMap) -> SourceError {
        let retry_after = answer::retry_after(headers, jiff::Timestamp::now());
        SourceError::Status { what: self.shown(), status: status.as_u16(), retry_after }
    }
}

impl Http {
    pub(super) fn new(config: &SourceConfig) -> Result<Self, SourceError> {
        let client = client::builder(config)?
            .redirect(redirects::policy(config.allow_http))
            .build()
            .map_err(client::no_trust)?;
        let SourceConfig { first_byte, stall, allow_http, .. } = *config;
        Ok(Self { client, first_byte, stall, allow_http })
    }

    /// Whether the list may name this URL at all.
    pub(super) fn place(&self, url: &Url, credentials: Option<&Credentials>) -> Result<Place, SourceError> {
        let authorization = credentials.map(authorization).transpose()?;
        let place = Place { url: url.clone(), authorization };
        if url.scheme() == "http" && !self.allow_http {
            return Err(place.invalid(
                "plain http:// is not allowed here; use https:// or start the agent with --allow-schemes https,s3,http",
            ));
        }
        if dns::names_link_local(url) {
            return Err(place.invalid("a link-local address is never asked"));
        }
        Ok(place)
    }

    /// One file, named by the URL's last part.
    pub(super) async fn file(&self, place: Place, digest: Option<Digest>) -> Result<RemoteFile, SourceError> {
        let last = place.url.path_segments().and_then(|mut parts| parts.next_back()).unwrap_or_default();
        let name = percent_encoding::percent_decode_str(last).decode_utf8().ok();
        let path =
            name.and_then(|name| name.parse::<RelPath>().ok()).filter(|path| !path.as_str().contains('/'));
        let Some(path) = path else {
            return Err(place.invalid("its last part is no file name; name a file, or set `index: true`"));
        };
        self.probed(place, path, digest).await
    }

    /// The file at `place`, after one small request that tells its size and version.
    pub(super) async fn probed(
        &self,
        place: Place,
        path: RelPath,
        digest: Option<Digest>,
    ) -> Result<RemoteFile, SourceError> {
        let found = patiently(|| self.probe(&place)).await?;
        let version = found.etag.clone();
        let size = found.size;
        let file = HttpFile::new(self, place, found);
        Ok(RemoteFile { path, size, version, digest: digest.map(Published::Sha256), bytes: Arc::new(file) })
    }

    /// A file whose size is known. Its version is that of the first answer.
    pub(super) fn known(&self, place: Place, path: RelPath, size: u64, digest: Option<Digest>) -> RemoteFile {
        let file = HttpFile::new(self, place, Found { size, etag: None, serves_ranges: true });
        RemoteFile { path, size, version: None, digest: digest.map(Published::Sha256), bytes: Arc::new(file) }
    }

    /// Asks for the first byte: the answer tells size, version and whether ranges are served, also where HEAD isn't
    /// allowed (signed URLs) or says other things than GET.
    async fn probe(&self, place: &Place) -> Result<Found, SourceError> {
        let first = ByteRange::new(0, 1);
        let answer = self.ask(place, first, None).await?;
        let (status, headers) = (answer.status(), answer.headers());
        let etag = answer::strong_etag(headers);
        if answer::is_encoded(headers) {
            return Err(place.protocol(ranged::ENCODED));
        }
        match status {
            StatusCode::PARTIAL_CONTENT => match ContentRange::of(headers) {
                Some(ContentRange { range, total: Some(size) }) if range == first => {
                    Ok(Found { size, etag, serves_ranges: true })
                }
                _ => Err(place.protocol("its answer to a range names another range, or no total size")),
            },
            StatusCode::OK if answer::is_html(headers) && !is_page(place) => {
                Err(place.protocol(ranged::WEB_PAGE))
            }
            StatusCode::OK => match answer::content_length(headers) {
                Some(size) => Ok(Found { size, etag, serves_ranges: false }),
                None => Err(place.protocol("it tells no size")),
            },
            // Of an empty file there is no first byte.
            StatusCode::RANGE_NOT_SATISFIABLE => match ContentRange::of(headers) {
                Some(ContentRange { total: Some(0), .. }) => Ok(Found { size: 0, etag, serves_ranges: true }),
                _ => Err(place.status(status, headers)),
            },
            _ => Err(place.status(status, headers)),
        }
    }

    /// One whole document of at most `limit` bytes.
    pub(super) async fn document(&self, place: &Place, limit: usize) -> Result<Vec<u8>, SourceError> {
        patiently(|| async {
            let answer = self.ask(place, None, None).await?;
            if answer.status() != StatusCode::OK {
                return Err(place.status(answer.status(), answer.headers()));
            }
            let document = client::whole(answer, limit, self.stall, &place.origin()).await?;
            document.ok_or_else(|| place.invalid(format!("it's longer than {} MiB", limit >> 20)))
        })
        .await
    }

    async fn ask(
        &self,
        place: &Place,
        range: Option<ByteRange>,
        if_match: Option<&str>,
    ) -> Result<Response, SourceError> {
        let mut request = self.client.get(place.url.clone()).header(ACCEPT_ENCODING, "identity");
        if let Some(range) = range {
            request = request.header(RANGE, range.to_string());
        }
        if let Some(tag) = if_match {
            request = request.header(IF_MATCH, format!("\"{tag}\""));
        }
        if let Some(authorization) = &place.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        client::head_of_answer(request, self.first_byte, &place.shown(), &place.origin()).await
    }
}

/// `token` is a bearer token (RFC 6750); `username` and `password` are for Basic (RFC 7617).
fn authorization(credentials: &Credentials) -> Result<HeaderValue, SourceError> {
    let text = match credentials.get("token") {
        Some(token) => format!("Bearer {token}"),
        None if credentials.get("username").is_none() => {
            return Err(credentials.failed("for https:// it needs a file token, or username and password"));
        }
        None => {
            let pair = format!("{}:{}", credentials.need("username")?, credentials.need("password")?);
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
        }
    };
    let mut value = HeaderValue::from_str(&text)
        .map_err(|_| credentials.failed("it holds characters that no header can"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn is_page(place: &Place) -> bool {
    let path = place.url.path().to_ascii_lowercase();
    path.ends_with(".html") || path.ends_with(".htm")
}

/// What a probe found.
#[derive(Debug, Clone)]
struct Found {
    size: u64,
    etag: Option<String>,
    serves_ranges: bool,
}

/// One file on an HTTP server. Where the server gives strong ETags, its version is the probe's, or that of its first
/// answer; where it gives none, only the total size says that it's still the same.
struct HttpFile {
    http: Http,
    place: Place,
    origin: String,
    size: u64,
    etag: OnceLock<String>,
    serves_ranges: ServesRanges,
}

impl std::fmt::Debug for HttpFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("HttpFile").field(&self.place.shown()).finish()
    }
}

impl HttpFile {
    fn new(http: &Http, place: Place, found: Found) -> Self {
        let etag = OnceLock::new();
        if let Some(tag) = found.etag {
            let _ = etag.set(tag);
        }
        Self {
            http: http.clone(),
            origin: place.origin(),
            place,
            size: found.size,
            etag,
            serves_ranges: ServesRanges::new(found.serves_ranges),
        }
    }

    async fn fetch(&self, range: ByteRange) -> Result<RangeBody, SourceError> {
        let pinned = self.etag.get().map(String::as_str);
        let answer = self.http.ask(&self.place, Some(range), pinned).await?;
        let cut = self.check(range, answer.status(), answer.headers())?;
        Ok(body(Box::pin(answer.bytes_stream()), cut, self.http.stall, &self.origin))
    }

    /// Which part of the body `range` is, or why the body must not be used.
    fn check(&self, range: ByteRange, status: StatusCode, headers: &HeaderMap) -> Result<Cut, SourceError> {
        if status == StatusCode::PRECONDITION_FAILED {
            return Err(self.changed());
        }
        let sent = ranged::check(range, self.size, is_page(&self.place), status, headers);
        let sent = sent.map_err(|unfit| match unfit {
            Unfit::OtherSize => self.changed(),
            Unfit::Nonsense(problem) => self.place.protocol(problem),
            Unfit::Refused => self.place.status(status, headers),
        })?;
        self.check_version(headers)?;
        self.serves_ranges.cut(sent, range, self.size, &self.origin)
    }

    fn check_version(&self, headers: &HeaderMap) -> Result<(), SourceError> {
        match (answer::strong_etag(headers), self.etag.get()) {
            (Some(tag), _) if *self.etag.get_or_init(|| tag.clone()) == tag => Ok(()),
            (Some(_), _) => Err(self.changed()),
            (None, None) => Ok(()),
            // A 206 carries the ETag that a 200 would (RFC 9110, 15.3.7): this is another server's answer.
            (None, Some(_)) => Err(self.place.protocol("its answer lacks the ETag it had before")),
        }
    }

    fn changed(&self) -> SourceError {
        SourceError::Changed { what: self.place.shown() }
    }
}

impl RangeSource for HttpFile {
    fn get(&self, range: ByteRange) -> BoxFuture<'_, Result<RangeBody, SourceError>> {
        self.fetch(range).boxed()
    }

    fn origin(&self) -> &str {
        &self.origin
    }

    fn serves_ranges(&self) -> bool {
        self.serves_ranges.get()
    }

    fn stored_part(&self) -> Option<u64> {
        stored_part(self.etag.get()?, self.size)
    }
}
