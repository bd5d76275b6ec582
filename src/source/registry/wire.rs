use std::time::Duration;

use futures::StreamExt as _;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, LOCATION};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use reqwest::{Client, Response};
use url::Url;

use crate::source::body::{Cut, body};
use crate::source::{SourceError, answer, client, dns, redirects};

/// Bytes of a body that is read only so that its connection can be used again, or for the error in it.
const SCRAPS: usize = 16 << 10;

/// How one host is spoken to. It follows no redirect by itself.
#[derive(Clone)]
pub(super) struct Wire {
    pub(super) client: Client,
    pub(super) first_byte: Duration,
    pub(super) stall: Duration,
    /// The host itself.
    pub(super) home: Url,
    /// Sent to `home` only.
    pub(super) headers: HeaderMap,
}

/// One place that a request goes to.
#[derive(Clone)]
pub(super) struct Stop {
    pub(super) url: Url,
    /// How errors name it: without the query, and of a place we were sent to only the host, since such URLs are
    /// signed.
    pub(super) what: String,
    /// Whether every redirect up to here stayed with the host that was asked first.
    pub(super) is_home: bool,
}

/// What is said at a stop.
#[derive(Clone)]
pub(super) struct Words {
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) form: Option<String>,
}

impl Words {
    pub(super) fn get() -> Self {
        Self { method: Method::GET, headers: HeaderMap::new(), form: None }
    }
}

impl Stop {
    pub(super) fn home(mut url: Url) -> Self {
        bare(&mut url);
        let mut shown = url.clone();
        shown.set_query(None);
        Self { what: shown.to_string(), url, is_home: true }
    }

    pub(super) fn origin(&self) -> String {
        client::origin(&self.url)
    }

    pub(super) fn protocol(&self, problem: impl Into<String>) -> SourceError {
        SourceError::Protocol { what: self.what.clone(), problem: problem.into() }
    }

    pub(super) fn invalid(&self, problem: impl Into<String>) -> SourceError {
        SourceError::Invalid { what: self.what.clone(), problem: problem.into() }
    }

    pub(super) fn status(&self, status: StatusCode, headers: &HeaderMap) -> SourceError {
        let retry_after = answer::retry_after(headers, jiff::Timestamp::now());
        SourceError::Status { what: self.what.clone(), status: status.as_u16(), retry_after }
    }

    /// Where this answer leads, or `None` where it's no redirect.
    pub(super) fn next(&self, answer: &Response) -> Result<Option<Self>, SourceError> {
        if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let Some(mut url) = location.and_then(|location| self.url.join(location).ok()) else {
            return Err(self.protocol("it redirects to nowhere"));
        };
        if let Some(objection) = redirects::objection(&self.url, &url, true) {
            return Err(self.invalid(format!("its redirects can't be followed: {objection}")));
        }
        bare(&mut url);
        let is_home = self.is_home && url.origin() == self.url.origin();
        let first = self.what.split(" (redirected").next().unwrap_or_default();
        let what = format!("{first} (redirected to {})", client::origin(&url));
        Ok(Some(Self { url, what, is_home }))
    }
}

/// The client would make credentials of a user in a URL.
fn bare(url: &mut Url) {
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_fragment(None);
}

impl Wire {
    /// Makes one request. `authorization` is for this very stop.
    pub(super) async fn send(
        &self,
        stop: &Stop,
        words: &Words,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, SourceError> {
        if dns::names_link_local(&stop.url) {
            return Err(stop.invalid("a link-local address is never asked"));
        }
        let mut headers = HeaderMap::new();
        if stop.is_home && stop.url.origin() == self.home.origin() {
            headers.clone_from(&self.headers);
        }
        headers.extend(words.headers.clone());
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(authorization) = authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let mut request = self.client.request(words.method.clone(), stop.url.clone()).headers(headers);
        if let Some(form) = &words.form {
            request = request.body(form.clone());
        }
        client::head_of_answer(request, self.first_byte, &stop.what, &stop.origin()).await
    }

    /// A whole body of at most `limit` bytes.
    pub(super) async fn read(
        &self,
        stop: &Stop,
        answer: Response,
        limit: usize,
    ) -> Result<Vec<u8>, SourceError> {
        let mut pieces = body(Box::pin(answer.bytes_stream()), Cut::NONE, self.stall, &stop.origin()).bytes;
        let mut whole = Vec::new();
        while let Some(piece) = pieces.next().await.transpose()? {
            if whole.len() + piece.len() > limit {
                return Err(stop.invalid(format!("it's longer than {limit} bytes")));
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole)
    }

    /// Reads what a refusal or a redirect has for a body, if that's short: its connection can then be used again.
    pub(super) async fn scraps(&self, stop: &Stop, answer: Response) -> Vec<u8> {
        match answer::content_length(answer.headers()) {
            Some(length) if length <= SCRAPS as u64 => {
                self.read(stop, answer, SCRAPS).await.unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }
}
