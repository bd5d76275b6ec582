use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};

use super::{RangeBody, SourceError};
use crate::types::ByteRange;

/// What of a body is handed on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    /// Bytes before what was asked for, read and dropped.
    skip: u64,
    /// Bytes after which the rest is left unread; `None` hands on all there is.
    take: Option<u64>,
}

impl Cut {
    /// The body is what was asked for.
    pub(super) const NONE: Self = Self { skip: 0, take: None };

    /// The body is the whole blob, of which only `range` was asked for.
    pub(super) fn of(range: ByteRange) -> Self {
        Self { skip: range.start(), take: Some(range.len()) }
    }
}

struct Reading<S> {
    bytes: S,
    cut: Cut,
    origin: String,
    is_over: bool,
}

/// The bytes of `cut` out of `bytes`; an error when nothing comes for as long as `stall`. Time in which nobody asks
/// for bytes doesn't count.
pub(super) fn body<S, E>(bytes: S, cut: Cut, stall: Duration, origin: &str) -> RangeBody
where
    S: Stream<Item = Result<Bytes, E>> + Send + Unpin + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    let reading = Reading { bytes, cut, origin: origin.to_owned(), is_over: false };
    let bytes = stream::unfold(reading, move |mut reading| async move {
        if reading.is_over {
            return None;
        }
        let next = reading.next(stall).await?;
        reading.is_over = next.is_err();
        Some((next, reading))
    });
    RangeBody { bytes: bytes.boxed() }
}

impl<S, E> Reading<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::error::Error + Send + Sync + 'static,
{
    async fn next(&mut self, stall: Duration) -> Option<Result<Bytes, SourceError>> {
        while self.cut.take != Some(0) {
            let next = match tokio::time::timeout(stall, self.bytes.next()).await {
                Ok(next) => next?,
                Err(_) => {
                    return Some(Err(SourceError::Stalled { origin: self.origin.clone(), after: stall }));
                }
            };
            match next {
                Ok(mut bytes) => {
                    let kept = self.cut.keep(&mut bytes);
                    if kept {
                        return Some(Ok(bytes));
                    }
                }
                Err(cause) => {
                    return Some(Err(SourceError::Broken {
                        origin: self.origin.clone(),
                        cause: Box::new(cause),
                    }));
                }
            }
        }
        None
    }
}

impl Cut {
    /// Leaves of the next `bytes` what is wanted; false when that's nothing.
    fn keep(&mut self, bytes: &mut Bytes) -> bool {
        let before = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
        let _ = bytes.split_to(before);
        self.skip -= before as u64;
        if let Some(take) = &mut self.take {
            bytes.truncate(usize::try_from(*take).unwrap_or(usize::MAX));
            *take -= bytes.len() as u64;
        }
        !bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(pieces: &[&'static str]) -> Vec<Result<Bytes, std::io::Error>> {
        pieces.iter().map(|piece| Ok(Bytes::from_static(piece.as_bytes()))).collect()
    }

    async fn read(body: RangeBody) -> Result<String, SourceError> {
        let pieces: Vec<Bytes> = futures::TryStreamExt::try_collect(body.bytes).await?;
        Ok(String::from_utf8(pieces.concat()).unwrap())
    }

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn the_range_is_cut_out_of_the_whole() {
        let whole = || stream::iter(pieces(&["", "ab", "cde", "f", "ghi"]));
        for (start, end) in [(0, 1), (0, 9), (1, 3), (2, 5), (3, 7), (8, 9)] {
            let cut = Cut::of(ByteRange::new(start, end).unwrap());
            let text = read(body(whole(), cut, PATIENCE, "o")).await.unwrap();
            assert_eq!(text, &"abcdefghi"[start as usize..end as usize]);
        }
        assert_eq!(read(body(whole(), Cut::NONE, PATIENCE, "o")).await.unwrap(), "abcdefghi");
    }

    #[tokio::test]
    async fn what_lies_behind_the_range_is_not_waited_for() {
        let endless = stream::iter(pieces(&["abc"])).chain(stream::pending());
        let cut = Cut::of(ByteRange::new(1, 3).unwrap());
        assert_eq!(read(body(endless, cut, PATIENCE, "o")).await.unwrap(), "bc");
    }

    #[tokio::test]
    async fn silence_is_a_stall_and_a_break_is_broken_and_both_end_it() {
        let silent = stream::iter(pieces(&["abc"])).chain(stream::pending());
        let mut silent = body(silent, Cut::NONE, Duration::from_millis(10), "o:1").bytes;
        assert!(silent.next().await.unwrap().is_ok());
        assert!(matches!(silent.next().await, Some(Err(SourceError::Stalled { .. }))));
        assert!(silent.next().await.is_none());
        let breaks = stream::iter([Err(std::io::Error::other("reset")), Ok(Bytes::new())]);
        let mut breaks = body(breaks, Cut::NONE, PATIENCE, "o:1").bytes;
        assert!(matches!(breaks.next().await, Some(Err(SourceError::Broken { .. }))));
        assert!(breaks.next().await.is_none());
    }
}
