use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use http::StatusCode;
use http::header::{ACCEPT_ENCODING, HeaderValue};
use reqwest::{Client, Method, Request, RequestBuilder, Response};

use super::store::{Meaning, Store, Words};
use crate::source::body::{Cut, body};
use crate::source::patience::patiently;
use crate::source::{SourceConfig, SourceError, answer, client};

/// Characters of a server's own words that are passed on.
const LONGEST_MESSAGE: usize = 200;

/// Bytes of a refusal that are read.
const LONGEST_REFUSAL: usize = 16 << 10;

/// How the stores are asked: one connection pool for all, no retries and no redirects of its own.
#[derive(Debug, Clone)]
pub(super) struct Wire {
    client: Client,
    first_byte: Duration,
    pub(super) stall: Duration,
}

/// A small answer, read whole.
pub(super) struct Document {
    pub(super) headers: http::HeaderMap,
    pub(super) bytes: Vec<u8>,
}

impl Wire {
    pub(super) fn new(config: &SourceConfig) -> Result<Self, SourceError> {
        let client = client::builder(config)?
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(client::no_trust)?;
        Ok(Self { client, first_byte: config.first_byte, stall: config.stall })
    }

    /// Signs and sends a request, and gives whatever is answered.
    pub(super) async fn ask(
        &self,
        store: &dyn Store,
        key: &str,
        mut request: Request,
    ) -> Result<Response, SourceError> {
        request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let request = store.sign(request).await?;
        let request = RequestBuilder::from_parts(self.client.clone(), request);
        client::head_of_answer(request, self.first_byte, &store.shown(key), store.origin()).await
    }

    /// Makes one small request, again while it fails in a way that time mends.
    pub(super) async fn document(
        &self,
        store: &Arc<dyn Store>,
        key: &str,
        longest: usize,
        request: impl Fn() -> Request,
    ) -> Result<Document, SourceError> {
        patiently(|| async {
            let request = request();
            // To a HEAD the headers are those of the object itself.
            let has_document = request.method() == Method::GET;
            let answer = self.ask(&**store, key, request).await?;
            if answer.status() != StatusCode::OK {
                return Err(self.refused(&**store, key, answer).await);
            }
            let headers = answer.headers().clone();
            let protocol = |problem: String| SourceError::Protocol { what: store.shown(key), problem };
            if has_document && answer::is_html(&headers) {
                return Err(protocol(crate::source::ranged::WEB_PAGE.to_owned()));
            }
            match self.read(&**store, answer, longest).await? {
                Some(bytes) => Ok(Document { headers, bytes }),
                None => Err(protocol(format!("its answer is longer than {} MiB", longest >> 20))),
            }
        })
        .await
    }

    /// The body, or `None` when it's longer than that.
    async fn read(
        &self,
        store: &dyn Store,
        answer: Response,
        longest: usize,
    ) -> Result<Option<Vec<u8>>, SourceError> {
        let mut pieces = body(Box::pin(answer.bytes_stream()), Cut::NONE, self.stall, store.origin()).bytes;
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.next().await.transpose()? {
            if bytes.len() + piece.len() > longest {
                return Ok(None);
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(Some(bytes))
    }

    /// What an answer that isn't what was asked for means.
    pub(super) async fn refused(&self, store: &dyn Store, key: &str, answer: Response) -> SourceError {
        let (what, status) = (store.shown(key), answer.status().as_u16());
        if status == 412 {
            return SourceError::Changed { what };
        }
        let headers = answer.headers().clone();
        let retry_after = answer::retry_after(&headers, jiff::Timestamp::now());
        // Without its words, a refusal is still one.
        let document = self.read(store, answer, LONGEST_REFUSAL).await.ok().flatten().unwrap_or_default();
        let words = store.words(&headers, &document);
        let Meaning { status, hint } = store.meaning(status, words.as_ref().map_or("", |words| &words.code));
        match says(words, hint) {
            Some(says) => SourceError::Refused { what, status, says, retry_after },
            None => SourceError::Status { what, status, retry_after },
        }
    }
}

/// A store's words and what to do next, in one line.
pub(super) fn says(words: Option<Words>, hint: Option<&str>) -> Option<String> {
    let words = words.map(|Words { code, message }| {
        let [code, message] = [code, message].map(|text| shortened(&text));
        if message.is_empty() { code } else { format!("{code}: {}", message.trim_end_matches('.')) }
    });
    match (words, hint) {
        (None, None) => None,
        (Some(says), None) => Some(says),
        (None, Some(hint)) => Some(hint.to_owned()),
        (Some(says), Some(hint)) => Some(format!("{says}; {hint}")),
    }
}

/// The first line, and not too much of it.
fn shortened(words: &str) -> String {
    let line = words.trim().lines().next().unwrap_or_default();
    line.chars().filter(|letter| !letter.is_control()).take(LONGEST_MESSAGE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_line_of_a_message_is_passed_on() {
        let words = |message: &str| {
            Some(Words { code: "AuthenticationFailed".to_owned(), message: message.to_owned() })
        };
        let said = says(words("Server failed.\nRequestId:1\nsig=secret"), Some("look at the clock")).unwrap();
        assert_eq!(said, "AuthenticationFailed: Server failed; look at the clock");
        assert!(says(words(&"x".repeat(9999)), None).unwrap().len() < 300);
        assert_eq!(says(None, None), None);
    }
}
