use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::StatusCode;
use http::header::{HeaderValue, RANGE};

use super::bucket::Bucket;
use crate::source::body::body;
use crate::source::ranged::{self, Unfit};
use crate::source::serves_ranges::ServesRanges;
use crate::source::{RangeBody, RangeSource, SourceError};
use crate::types::ByteRange;

/// One object, at the version that was listed.
pub(super) struct CloudObject {
    bucket: Bucket,
    key: String,
    size: u64,
    version: String,
    serves_ranges: ServesRanges,
}

impl std::fmt::Debug for CloudObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("CloudObject").field(&self.bucket.store.shown(&self.key)).finish()
    }
}

impl CloudObject {
    pub(super) fn new(bucket: Bucket, key: String, size: u64, version: String) -> Self {
        Self { bucket, key, size, version, serves_ranges: ServesRanges::new(true) }
    }

    async fn fetch(&self, range: ByteRange) -> Result<RangeBody, SourceError> {
        let Bucket { wire, store } = &self.bucket;
        let mut request = store.object(&self.key, &self.version);
        let value = HeaderValue::from_str(&range.to_string())
            .map_err(|_| self.bucket.protocol(&self.key, "the range can't be asked for"))?;
        request.headers_mut().insert(RANGE, value);
        let answer = wire.ask(&**store, &self.key, request).await?;
        let may_be_page = self.key.ends_with(".html") || self.key.ends_with(".htm");
        let sent = ranged::check(range, self.size, may_be_page, answer.status(), answer.headers());
        let sent = match sent {
            Ok(sent) => sent,
            Err(Unfit::OtherSize) => return Err(self.changed()),
            Err(Unfit::Nonsense(problem)) => return Err(self.bucket.protocol(&self.key, problem)),
            // It was there a moment ago, and a version that was replaced isn't there any more.
            Err(Unfit::Refused) if matches!(answer.status(), StatusCode::NOT_FOUND | StatusCode::GONE) => {
                return Err(self.changed());
            }
            Err(Unfit::Refused) => return Err(wire.refused(&**store, &self.key, answer).await),
        };
        if store.is_other(&self.version, answer.headers()) {
            return Err(self.changed());
        }
        let cut = self.serves_ranges.cut(sent, range, self.size, store.origin())?;
        Ok(body(Box::pin(answer.bytes_stream()), cut, wire.stall, store.origin()))
    }

    fn changed(&self) -> SourceError {
        SourceError::Changed { what: self.bucket.store.shown(&self.key) }
    }
}

impl RangeSource for CloudObject {
    fn get(&self, range: ByteRange) -> BoxFuture<'_, Result<RangeBody, SourceError>> {
        self.fetch(range).boxed()
    }

    fn origin(&self) -> &str {
        self.bucket.store.origin()
    }

    fn serves_ranges(&self) -> bool {
        self.serves_ranges.get()
    }
}
