use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream;

use super::{Bucket, strong_etag};
use crate::source::answer::ContentRange;
use crate::source::body::{Cut, body};
use crate::source::stored_part::stored_part;
use crate::source::{RangeBody, RangeSource, SourceError};
use crate::types::ByteRange;

/// One object, at the version that was listed.
pub(super) struct S3Object {
    bucket: Bucket,
    key: String,
    size: u64,
    etag: OnceLock<String>,
    serves_ranges: AtomicBool,
}

impl std::fmt::Debug for S3Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("S3Object").field(&self.bucket.shown(&self.key)).finish()
    }
}

impl S3Object {
    pub(super) fn new(bucket: Bucket, key: String, size: u64, version: Option<String>) -> Self {
        let etag = OnceLock::new();
        if let Some(version) = version {
            let _ = etag.set(version);
        }
        Self { bucket, key, size, etag, serves_ranges: AtomicBool::new(true) }
    }

    async fn fetch(&self, range: ByteRange) -> Result<RangeBody, SourceError> {
        let request = self.bucket.client.get_object().bucket(&self.bucket.name).key(&self.key);
        let if_match = self.etag.get().map(|tag| format!("\"{tag}\""));
        let request = request.range(range.to_string()).set_if_match(if_match);
        let request = request.set_request_payer(self.bucket.payer.clone());
        let mut answer = self.bucket.answered(&self.key, request.send()).await?;
        let cut = self.check(range, &answer)?;
        let mut bytes = std::mem::take(&mut answer.body);
        let pieces = stream::poll_fn(move |context| Pin::new(&mut bytes).poll_next(context));
        Ok(body(pieces, cut, self.bucket.config.stall, &self.bucket.origin))
    }

    /// Which part of the body `range` is, or why the body must not be used. A server that ignores the range answers
    /// well, but without a Content-Range.
    fn check(&self, range: ByteRange, answer: &GetObjectOutput) -> Result<Cut, SourceError> {
        let protocol = |problem: &str| self.bucket.protocol(&self.key, problem);
        let cut = match answer.content_range() {
            None => {
                if answer.content_length().and_then(|length| u64::try_from(length).ok()) != Some(self.size) {
                    return Err(self.changed());
                }
                if range.len() == self.size { Cut::NONE } else { Cut::of(range) }
            }
            Some(text) => match ContentRange::parse(text) {
                Some(ContentRange { total: Some(total), .. }) if total != self.size => {
                    return Err(self.changed());
                }
                Some(ContentRange { range: Some(sent), total: Some(_) }) if sent == range => Cut::NONE,
                _ => return Err(protocol(&format!("its answer names another range than {range}"))),
            },
        };
        match (answer.e_tag().and_then(strong_etag), self.etag.get()) {
            (Some(tag), _) if *self.etag.get_or_init(|| tag.clone()) == tag => {}
            (Some(_), _) => return Err(self.changed()),
            (None, None) => {}
            (None, Some(_)) => return Err(protocol("its answer lacks the ETag it had before")),
        }
        if answer.content_range().is_none() && range.len() != self.size {
            self.serves_ranges.store(false, Relaxed);
        }
        Ok(cut)
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
        self.serves_ranges.load(Relaxed)
    }

    fn stored_part(&self) -> Option<u64> {
        stored_part(self.etag.get()?, self.size)
    }
}
