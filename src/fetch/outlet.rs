use std::future::Future;

use super::{FetchError, Piece};
use crate::types::ByteRange;

/// Where the bytes of one blob go once they are here.
pub(super) trait Outlet: Send {
    /// What is here from an earlier fetch, in order, and must not arrive again unless it's rewound.
    fn kept(&self) -> Vec<ByteRange> {
        Vec::new()
    }

    /// Takes bytes that have come: every byte once, in any order.
    fn arrived(&mut self, piece: Piece);

    /// Waits until something more was done with what arrived; `None` when there is nothing to wait for. Dropping
    /// the future loses nothing.
    fn moved(&mut self) -> impl Future<Output = Option<Result<(), FetchError>>> + Send;

    /// Whether everything was done that is to be done with the whole blob.
    fn is_done(&self) -> bool;

    /// Forgets what can't be used yet since bytes before it lack, and says which byte must be the next to arrive.
    fn rewind(&mut self) -> impl Future<Output = Result<u64, FetchError>> + Send;

    /// Waits until nothing is under way any more. What came of it doesn't matter.
    fn settle(&mut self) -> impl Future<Output = ()> + Send;
}
