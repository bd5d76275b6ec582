//! Bytes on their way to a reader, in order.

use std::collections::BTreeMap;

use tokio::sync::mpsc::Sender;

use super::outlet::Outlet;
use super::{FetchError, Piece};

pub(super) struct Handed {
    pieces: Sender<Piece>,
    size: u64,
    /// What has come but wasn't sent yet, by offset.
    ready: BTreeMap<u64, Piece>,
    /// All bytes before this one were sent.
    sent: u64,
}

impl Handed {
    pub(super) fn new(pieces: Sender<Piece>, size: u64) -> Self {
        Self { pieces, size, ready: BTreeMap::new(), sent: 0 }
    }
}

impl Outlet for Handed {
    fn arrived(&mut self, piece: Piece) {
        self.ready.insert(piece.offset(), piece);
    }

    async fn moved(&mut self) -> Option<Result<(), FetchError>> {
        if !self.ready.contains_key(&self.sent) {
            return None;
        }
        let Ok(room) = self.pieces.reserve().await else { return Some(Err(FetchError::Cancelled)) };
        if let Some(piece) = self.ready.remove(&self.sent) {
            self.sent = piece.end();
            room.send(piece);
        }
        Some(Ok(()))
    }

    fn is_done(&self) -> bool {
        self.sent == self.size
    }

    async fn rewind(&mut self) -> Result<u64, FetchError> {
        // Also what could be sent: it holds memory, which whoever rewinds is about to wait for.
        self.ready.clear();
        Ok(self.sent)
    }

    async fn settle(&mut self) {}
}
