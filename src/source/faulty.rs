use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, stream};

use super::{RangeBody, RangeSource, SourceError};
use crate::types::ByteRange;

/// What goes wrong with one answer.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// Nothing.
    Fine,
    /// It comes, but only after others have had this many chances to come first.
    Late(u8),
    /// The body ends after so many bytes, as if that were all.
    Cut(u64),
    /// The connection breaks after so many bytes.
    Reset(u64),
    /// A status instead of a body.
    Status(u16),
    /// The version isn't the pinned one any more.
    Changed,
    /// One bit of the byte at this offset of the body is another.
    Flip(usize),
    /// One byte comes that was not asked for.
    TooMuch,
    /// The body never comes.
    Hang,
}

/// A source that fails as it's told: one fault for each `get`, then none.
#[derive(Debug)]
pub(crate) struct Faulty {
    inner: Arc<dyn RangeSource>,
    faults: Mutex<VecDeque<Fault>>,
    asked: Mutex<Vec<ByteRange>>,
    ignores_ranges: bool,
    is_known_to: AtomicBool,
}

impl Faulty {
    pub(crate) fn new(inner: impl RangeSource + 'static, faults: impl IntoIterator<Item = Fault>) -> Self {
        Self {
            inner: Arc::new(inner),
            faults: Mutex::new(faults.into_iter().collect()),
            asked: Mutex::default(),
            ignores_ranges: false,
            is_known_to: AtomicBool::new(false),
        }
    }

    /// The server ignores ranges, which turns out with the first `get`.
    pub(crate) fn ignoring_ranges(self) -> Self {
        Self { ignores_ranges: true, ..self }
    }

    /// Every range that was asked for, in order.
    pub(crate) fn asked(&self) -> Vec<ByteRange> {
        self.asked.lock().unwrap().clone()
    }
}

fn reset() -> SourceError {
    SourceError::Broken { origin: "memory".to_owned(), cause: "reset".into() }
}

async fn with_fault(fault: Fault, body: RangeBody) -> Result<RangeBody, SourceError> {
    let whole = |body: RangeBody| body.bytes.map(|piece| piece.unwrap().to_vec()).concat();
    let of = |bytes: Vec<u8>| stream::iter([Ok(Bytes::from(bytes))]);
    let bytes = match fault {
        Fault::Fine => body.bytes,
        Fault::Late(turns) => {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
            body.bytes
        }
        Fault::Cut(after) => of(whole(body).await.into_iter().take(after as usize).collect()).boxed(),
        Fault::Reset(after) => {
            let begun = of(whole(body).await.into_iter().take(after as usize).collect());
            begun.chain(stream::iter([Err(reset())])).boxed()
        }
        Fault::Status(status) => {
            return Err(SourceError::Status { what: "memory".to_owned(), status, retry_after: None });
        }
        Fault::Changed => return Err(SourceError::Changed { what: "memory".to_owned() }),
        Fault::Flip(at) => {
            let mut bytes = whole(body).await;
            let at = at % bytes.len();
            bytes[at] ^= 1;
            of(bytes).boxed()
        }
        Fault::TooMuch => {
            let mut bytes = whole(body).await;
            bytes.push(0);
            of(bytes).boxed()
        }
        Fault::Hang => stream::pending().boxed(),
    };
    Ok(RangeBody { bytes })
}

impl RangeSource for Faulty {
    fn get(&self, range: ByteRange) -> BoxFuture<'_, Result<RangeBody, SourceError>> {
        self.asked.lock().unwrap().push(range);
        let fault = self.faults.lock().unwrap().pop_front().unwrap_or(Fault::Fine);
        if self.ignores_ranges {
            self.is_known_to.store(true, Ordering::Relaxed);
        }
        async move { with_fault(fault, self.inner.get(range).await?).await }.boxed()
    }

    fn origin(&self) -> &str {
        self.inner.origin()
    }

    fn serves_ranges(&self) -> bool {
        !self.is_known_to.load(Ordering::Relaxed)
    }
}
