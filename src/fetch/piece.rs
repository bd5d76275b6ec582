use std::fmt;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use super::budget::Lease;
use crate::types::ByteRange;

/// Some bytes of a blob, in memory that goes back to the budget when the last clone is dropped.
#[derive(Clone)]
pub struct Piece(Arc<Held>);

struct Held {
    offset: u64,
    len: usize,
    lease: Option<Lease>,
    home: Home,
}

/// Who hears that nobody holds a piece any more.
#[derive(Debug, Clone)]
pub(super) enum Home {
    /// The window, which moves on; the memory is anybody's again.
    Window(UnboundedSender<ByteRange>),
    /// The one stream that the bytes came by: it gets the memory, for those that come next.
    Stream(UnboundedSender<Lease>),
}

impl Piece {
    /// The bytes; at least one.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.0.lease.as_ref().and_then(|lease| lease.bytes().get(..self.0.len)).unwrap_or_default()
    }

    /// Where they begin in the blob.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.0.offset
    }

    /// Where the next piece begins.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.0.end()
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Piece").field("offset", &self.offset()).field("end", &self.end()).finish()
    }
}

impl Held {
    fn end(&self) -> u64 {
        self.offset + self.len as u64
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let lease = self.lease.take();
        // Nobody hears it once the fetch is over, and then the memory goes back to the budget in any case.
        match &self.home {
            Home::Window(window) => {
                drop(lease);
                if let Some(range) = ByteRange::new(self.offset, self.end()) {
                    let _ = window.send(range);
                }
            }
            Home::Stream(stream) => drop(lease.map(|lease| stream.send(lease))),
        }
    }
}

/// A piece that is still being filled.
#[derive(Debug)]
pub(super) struct Part {
    offset: u64,
    len: usize,
    filled: usize,
    lease: Lease,
}

impl Part {
    /// For the next bytes from `offset` on, as many as `lease` holds, but none at or behind `end`.
    pub(super) fn new(offset: u64, end: u64, lease: Lease) -> Self {
        let left = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX);
        Self { offset, len: lease.bytes().len().min(left), filled: 0, lease }
    }

    /// Takes in as many of the next bytes as there is room for, and says how many.
    pub(super) fn fill(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.len - self.filled);
        let room = self.lease.bytes_mut().get_mut(self.filled..self.filled + count);
        let (Some(room), Some(bytes)) = (room, bytes.get(..count)) else { return 0 };
        room.copy_from_slice(bytes);
        self.filled += count;
        count
    }

    pub(super) fn is_full(&self) -> bool {
        self.filled == self.len
    }

    /// What has come.
    pub(super) fn into_piece(self, home: Home) -> Piece {
        Piece(Arc::new(Held { offset: self.offset, len: self.filled, lease: Some(self.lease), home }))
    }
}
