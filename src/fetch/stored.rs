//! Bytes on their way into a [`Sink`], as they come, and into a hash, in order.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::future::OptionFuture;
use futures::stream::FuturesUnordered;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use super::error::{blocking_died, nothing_moves};
use super::outlet::Outlet;
use super::{FetchError, Piece, Sink};
use crate::types::{Digest, Hasher};

pub(super) struct Stored {
    sink: Arc<dyn Sink>,
    size: u64,
    /// What has come but can't be hashed yet, by offset.
    ready: BTreeMap<u64, Piece>,
    /// The hasher has seen all bytes before this one.
    hashed: u64,
    /// Here between two pieces; with the blocking thread while it takes one in.
    hasher: Option<Hasher>,
    hashing: Option<JoinHandle<(Hasher, u64)>>,
    writing: FuturesUnordered<JoinHandle<io::Result<()>>>,
}

impl Stored {
    pub(super) fn new(sink: Arc<dyn Sink>, size: u64) -> Self {
        Self {
            sink,
            size,
            ready: BTreeMap::new(),
            hashed: 0,
            hasher: Some(Hasher::new()),
            hashing: None,
            writing: FuturesUnordered::new(),
        }
    }

    /// The digest of all bytes, once they are done with.
    pub(super) fn finish(self) -> Result<Digest, FetchError> {
        self.hasher.map(Hasher::finish).ok_or_else(nothing_moves)
    }

    /// Gives the hasher to a blocking thread with the next bytes, if both are here.
    fn hash_next(&mut self) {
        let Some(mut hasher) = self.hasher.take() else { return };
        let Some(piece) = self.ready.remove(&self.hashed) else {
            self.hasher = Some(hasher);
            return;
        };
        self.hashing = Some(spawn_blocking(move || {
            hasher.update(piece.bytes());
            (hasher, piece.end())
        }));
    }

    fn take_hasher(&mut self, hashed: Result<(Hasher, u64), JoinError>) -> Result<(), FetchError> {
        self.hashing = None;
        let (hasher, upto) = hashed.map_err(blocking_died)?;
        self.hasher = Some(hasher);
        self.hashed = upto;
        self.hash_next();
        Ok(())
    }
}

impl Outlet for Stored {
    fn arrived(&mut self, piece: Piece) {
        let sink = Arc::clone(&self.sink);
        self.ready.insert(piece.offset(), piece.clone());
        self.writing.push(spawn_blocking(move || sink.write_at(piece.offset(), piece.bytes())));
        self.hash_next();
    }

    async fn moved(&mut self) -> Option<Result<(), FetchError>> {
        tokio::select! {
            biased;
            Some(written) = self.writing.next() => {
                Some(written.map_err(blocking_died).and_then(|written| written.map_err(FetchError::Sink)))
            }
            Some(hashed) = OptionFuture::from(self.hashing.as_mut()) => Some(self.take_hasher(hashed)),
            else => None,
        }
    }

    fn is_done(&self) -> bool {
        self.hashed == self.size && self.writing.is_empty()
    }

    async fn rewind(&mut self) -> Result<u64, FetchError> {
        while let Some(moved) = self.moved().await {
            moved?;
        }
        self.ready.clear();
        Ok(self.hashed)
    }

    async fn settle(&mut self) {
        while self.writing.next().await.is_some() {}
        if let Some(hashing) = self.hashing.take() {
            let _ = hashing.await;
        }
    }
}
