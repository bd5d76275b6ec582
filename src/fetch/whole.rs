//! A small blob, all of it in memory.

use std::collections::BTreeMap;

use super::outlet::Outlet;
use super::{FetchError, Piece};

/// All bytes of a blob. They count as memory of the engine for as long as this is held.
#[derive(Debug, Default)]
pub struct Whole(BTreeMap<u64, Piece>);

impl Whole {
    /// The bytes, in order and without gaps.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.0.values().map(Piece::bytes)
    }
}

/// Gathers them.
pub(super) struct Gathered {
    size: u64,
    come: u64,
    whole: Whole,
}

impl Gathered {
    pub(super) fn new(size: u64) -> Self {
        Self { size, come: 0, whole: Whole::default() }
    }

    pub(super) fn finish(self) -> Whole {
        self.whole
    }
}

impl Outlet for Gathered {
    fn arrived(&mut self, piece: Piece) {
        self.come += piece.end() - piece.offset();
        self.whole.0.insert(piece.offset(), piece);
    }

    async fn moved(&mut self) -> Option<Result<(), FetchError>> {
        None
    }

    fn is_done(&self) -> bool {
        self.come == self.size
    }

    async fn rewind(&mut self) -> Result<u64, FetchError> {
        self.come = 0;
        self.whole = Whole::default();
        Ok(0)
    }

    async fn settle(&mut self) {}
}
