use std::pin::Pin;
use std::sync::OnceLock;

use aws_sdk_s3::types::ChecksumMode;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream;
use http::header::{CONTENT_RANGE, ETAG, IF_MATCH, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use reqwest::RequestBuilder;

use super::checksum::{self, Sums, Told};
use super::{Bucket, strong_etag};
use crate::source::answer::{self, ContentRange};
use crate::source::body::{Cut, body};
use crate::source::ranged::Sent;
use crate::source::serves_ranges::ServesRanges;
use crate::source::stored_part::stored_part;
use crate::source::{RangeBody, RangeSource, SourceError, client};
use crate::types::{ByteRange, Published};

/// One object, at the version that was listed.
pub(super) struct S3Object {
    bucket: Bucket,
    key: String,
    size: u64,
    etag: OnceLock<String>,
    serves_ranges: ServesRanges,
    /// Whether the server may have a checksum that its listing didn't tell.
    may_tell: bool,
    told: OnceLock<Option<Published>>,
}

/// The head of an answer to a GET.
struct Head<'a> {
    content_range: Option<&'a str>,
    length: Option<u64>,
    etag: Option<String>,
    told: Told,
}

impl std::fmt::Debug for S3Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("S3Object").field(&self.bucket.shown(&self.key)).finish()
    }
}

impl S3Object {
    pub(super) fn new(
        bucket: Bucket,
        key: String,
        size: u64,
        version: Option<String>,
        may_tell: bool,
    ) -> Self {
        let etag = OnceLock::new();
        if let Some(version) = version {
            let _ = etag.set(version);
        }
        let serves_ranges = ServesRanges::new(true);
        Self { bucket, key, size, etag, serves_ranges, may_tell, told: OnceLock::new() }
    }

    async fn fetch(&self, range: ByteRange) -> Result<RangeBody, SourceError> {
        if let Some(signed) = &self.bucket.signed {
            let keys = signed.keys().await.map_err(|error| self.bucket.no_keys(&error))?;
            if let Some(request) = signed.get(&self.key, keys.as_ref(), self.said_with(range)) {
                return self.by_http(range, request).await;
            }
        }
        self.by_sdk(range).await
    }

    /// What is said to the server with a GET. Only the answer to one without a range tells a checksum of the whole.
    fn said_with(&self, range: ByteRange) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut say = |name: HeaderName, text: &str| {
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.insert(name, value);
            }
        };
        if range.len() == self.size {
            say(HeaderName::from_static("x-amz-checksum-mode"), ChecksumMode::Enabled.as_str());
        } else {
            say(RANGE, &range.to_string());
        }
        if let Some(tag) = self.etag.get() {
            say(IF_MATCH, &format!("\"{tag}\""));
        }
        if let Some(payer) = &self.bucket.payer {
            say(HeaderName::from_static("x-amz-request-payer"), payer.as_str());
        }
        headers
    }

    async fn by_http(&self, range: ByteRange, request: RequestBuilder) -> Result<RangeBody, SourceError> {
        let Bucket { config, origin, .. } = &self.bucket;
        let shown = self.bucket.shown(&self.key);
        let answer = client::head_of_answer(request, config.first_byte, &shown, origin).await?;
        if !matches!(answer.status(), StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
            return Err(self.bucket.refused_answer(&self.key, answer).await);
        }
        let headers = answer.headers();
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let head = Head {
            content_range: text(CONTENT_RANGE),
            length: answer::content_length(headers),
            etag: text(ETAG).and_then(strong_etag),
            told: checksum::told(&Sums::of_headers(headers)),
        };
        let cut = self.check(range, head)?;
        Ok(body(Box::pin(answer.bytes_stream()), cut, config.stall, origin))
    }

    async fn by_sdk(&self, range: ByteRange) -> Result<RangeBody, SourceError> {
        let is_whole = range.len() == self.size;
        let request = self.bucket.client.get_object().bucket(&self.bucket.name).key(&self.key);
        let if_match = self.etag.get().map(|tag| format!("\"{tag}\""));
        let request = request.set_range((!is_whole).then(|| range.to_string())).set_if_match(if_match);
        let request = request.set_checksum_mode(is_whole.then_some(ChecksumMode::Enabled));
        let request = request.set_request_payer(self.bucket.payer.clone());
        let mut answer = self.bucket.answered(&self.key, request.send()).await?;
        let head = Head {
            content_range: answer.content_range(),
            length: answer.content_length().and_then(|length| u64::try_from(length).ok()),
            etag: answer.e_tag().and_then(strong_etag),
            told: checksum::told(&Sums::of_answer(&answer)),
        };
        let cut = self.check(range, head)?;
        let mut bytes = std::mem::take(&mut answer.body);
        let pieces = stream::poll_fn(move |context| Pin::new(&mut bytes).poll_next(context));
        Ok(body(pieces, cut, self.bucket.config.stall, &self.bucket.origin))
    }

    /// Which part of the body `range` is, or why the body must not be used. A server that ignores the range answers
    /// well, but without a Content-Range.
    fn check(&self, range: ByteRange, head: Head<'_>) -> Result<Cut, SourceError> {
        let protocol = |problem: &str| self.bucket.protocol(&self.key, problem);
        let is_whole = range.len() == self.size;
        let sent = match head.content_range {
            None if head.length != Some(self.size) => return Err(self.changed()),
            None => Sent::Whole,
            Some(text) => match ContentRange::parse(text) {
                Some(ContentRange { total: Some(total), .. }) if total != self.size => {
                    return Err(self.changed());
                }
                Some(ContentRange { range: Some(sent), total: Some(_) }) if sent == range => Sent::Part,
                _ => return Err(protocol(&format!("its answer names another range than {range}"))),
            },
        };
        match (head.etag, self.etag.get()) {
            (Some(tag), _) if *self.etag.get_or_init(|| tag.clone()) == tag => {}
            (Some(_), _) => return Err(self.changed()),
            (None, None) => {}
            (None, Some(_)) => return Err(protocol("its answer lacks the ETag it had before")),
        }
        let cut = self.serves_ranges.cut(sent, range, self.size, &self.bucket.origin)?;
        match head.told {
            Told::Whole(published) if is_whole => drop(self.told.set(Some(published))),
            Told::Nothing if is_whole => drop(self.told.set(None)),
            // What the parts say has to be asked for.
            Told::Whole(_) | Told::Nothing | Told::OfParts(_) => {}
        }
        Ok(cut)
    }

    async fn published(&self) -> Result<Option<Published>, SourceError> {
        if let Some(told) = self.told.get() {
            return Ok(told.clone());
        }
        let found = self.bucket.head(&self.key).await?;
        if found.size != self.size || found.etag.as_ref() != self.etag.get() {
            return Err(self.changed());
        }
        Ok(self.told.get_or_init(|| found.told).clone())
    }

    fn changed(&self) -> SourceError {
        SourceError::Changed { what: self.bucket.shown(&self.key) }
    }
}

impl RangeSource for S3Object {
    fn get(&self, range: ByteRange) -> BoxFuture<'_, Result<RangeBody, SourceError>> {
        self.fetch(range).boxed()
    }

    fn origin(&self) -> &str {
        &self.bucket.origin
    }

    fn serves_ranges(&self) -> bool {
        self.serves_ranges.get()
    }

    fn stored_part(&self) -> Option<u64> {
        stored_part(self.etag.get()?, self.size)
    }

    fn may_tell(&self) -> bool {
        self.may_tell && self.told.get().is_none()
    }

    fn told(&self) -> Option<Published> {
        self.told.get()?.clone()
    }

    fn ask(&self) -> BoxFuture<'_, Result<Option<Published>, SourceError>> {
        self.published().boxed()
    }
}
