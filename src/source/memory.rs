use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, stream};

use super::{RangeBody, RangeSource, SourceError};
use crate::types::ByteRange;

/// A blob that is in memory already: for tests and races, where no server should stand in the way.
#[derive(Clone)]
pub struct MemorySource {
    bytes: Bytes,
}

impl MemorySource {
    /// A source of these bytes.
    #[must_use]
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into() }
    }
}

impl std::fmt::Debug for MemorySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemorySource").field("len", &self.bytes.len()).finish()
    }
}

/// A server's body comes in pieces of about this size.
const PIECE: usize = 256 << 10;

impl RangeSource for MemorySource {
    fn get(&self, range: ByteRange) -> BoxFuture<'_, Result<RangeBody, SourceError>> {
        let inside = usize::try_from(range.start())
            .ok()
            .zip(usize::try_from(range.end()).ok())
            .filter(|(_, end)| *end <= self.bytes.len());
        let answer = match inside {
            Some((start, end)) => {
                let mut rest = self.bytes.slice(start..end);
                let pieces = std::iter::from_fn(move || {
                    let piece = rest.split_to(rest.len().min(PIECE));
                    (!piece.is_empty()).then_some(Ok(piece))
                });
                Ok(RangeBody { bytes: stream::iter(pieces).boxed() })
            }
            None => Err(SourceError::Status { what: "memory".to_owned(), status: 416, retry_after: None }),
        };
        std::future::ready(answer).boxed()
    }

    fn origin(&self) -> &str {
        "memory"
    }
}
