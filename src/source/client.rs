use std::time::Duration;

use futures::StreamExt as _;
use reqwest::{Client, ClientBuilder, RequestBuilder, Response};
use url::Url;

use super::body::{Cut, body};
use super::dns::Resolver;
use super::{SourceConfig, SourceError, trust};

/// What every HTTP client of ours has: HTTP/1.1 over many connections, which is faster for bulk than streams that
/// share one, no retries of its own, and the proxies that the environment names (HTTPS_PROXY, HTTP_PROXY, NO_PROXY).
pub(super) fn builder(config: &SourceConfig) -> Result<ClientBuilder, SourceError> {
    let authorities = trust::certificates(&config.ca_files)?;
    let builder = Client::builder()
        .user_agent(concat!("stoker/", env!("CARGO_PKG_VERSION")))
        .http1_only()
        .referer(false)
        .retry(reqwest::retry::never())
        .connect_timeout(config.connect)
        .tcp_nodelay(true)
        .dns_resolver(Resolver);
    // Only where there are some: else the system's own verifier stays as it is.
    Ok(if authorities.is_empty() { builder } else { builder.tls_certs_merge(authorities) })
}

/// A builder that fails lacks what it trusts servers by.
pub(super) fn no_trust(error: reqwest::Error) -> SourceError {
    SourceError::Invalid {
        what: "the system's CA certificates".to_owned(),
        problem: format!(
            "{}; install ca-certificates or set SSL_CERT_FILE",
            crate::rt::chain(&error.without_url())
        ),
    }
}

/// Sends a request and waits for the head of its answer. `what` is its place for people.
pub(super) async fn head_of_answer(
    request: RequestBuilder,
    first_byte: Duration,
    what: &str,
    origin: &str,
) -> Result<Response, SourceError> {
    match tokio::time::timeout(first_byte, request.send()).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(unanswered(what, origin.to_owned(), error)),
        Err(_) => Err(SourceError::Stalled { origin: origin.to_owned(), after: first_byte }),
    }
}

/// All of an answer's body, or `None` where it's longer than `limit` bytes.
pub(super) async fn whole(
    answer: Response,
    limit: usize,
    stall: Duration,
    origin: &str,
) -> Result<Option<Vec<u8>>, SourceError> {
    let mut pieces = body(Box::pin(answer.bytes_stream()), Cut::NONE, stall, origin).bytes;
    let mut document = Vec::new();
    while let Some(piece) = pieces.next().await.transpose()? {
        if document.len() + piece.len() > limit {
            return Ok(None);
        }
        document.extend_from_slice(&piece);
    }
    Ok(Some(document))
}

/// The client's error as ours. It may hold the URL with its query, so that is taken off first.
fn unanswered(what: &str, origin: String, error: reqwest::Error) -> SourceError {
    let error = error.without_url();
    let invalid = |problem| SourceError::Invalid { what: what.to_owned(), problem };
    if error.is_redirect() {
        return invalid(format!("its redirects can't be followed: {}", crate::rt::chain(&error)));
    }
    if error.is_builder() {
        return invalid(crate::rt::chain(&error));
    }
    let (is_connect, cause) = (error.is_connect(), Box::new(error));
    if is_connect { SourceError::Connect { origin, cause } } else { SourceError::Broken { origin, cause } }
}

/// `host:port`.
pub(super) fn origin(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    format!("{host}:{}", url.port_or_known_default().unwrap_or_default())
}
