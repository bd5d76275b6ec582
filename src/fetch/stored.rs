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
use super::{FetchError, Kept, Piece, Sink};
use crate::types::{ByteRange, Digest, Hasher};

/// Bytes that are read back by one blocking task, and those that it has in memory. What is read back needs no permit:
/// waiting for one, it could be waiting for bytes that wait for it.
const READ_BACK: u64 = 16 << 20;
const READ_AT_ONCE: usize = 256 << 10;

pub(super) struct Stored {
    sink: Arc<dyn Sink>,
    size: u64,
    /// What the sink has from an earlier fetch.
    kept: Kept,
    /// What of it wasn't hashed yet: end by start.
    unhashed: BTreeMap<u64, u64>,
    /// What has come but can't be hashed yet, by offset.
    ready: BTreeMap<u64, Piece>,
    /// The hasher has seen all bytes before this one.
    hashed: u64,
    /// Here between two pieces; with the blocking thread while it takes one in.
    hasher: Option<Hasher>,
    hashing: Option<JoinHandle<io::Result<(Hasher, u64)>>>,
    writing: FuturesUnordered<JoinHandle<io::Result<()>>>,
}

impl Stored {
    /// Begins to hash what is `kept`, so there must be a runtime.
    pub(super) fn new(sink: Arc<dyn Sink>, size: u64, kept: Kept) -> Self {
        let (hashed, hasher) = kept.hashed();
        let unhashed = kept.ranges().iter().map(|range| (range.start().max(hashed), range.end()));
        let mut stored = Self {
            sink,
            size,
            unhashed: unhashed.filter(|(start, end)| start < end).collect(),
            kept,
            ready: BTreeMap::new(),
            hashed,
            hasher: Some(hasher),
            hashing: None,
            writing: FuturesUnordered::new(),
        };
        stored.hash_next();
        stored
    }

    /// The digest of all bytes, once they are done with.
    pub(super) fn finish(self) -> Result<Digest, FetchError> {
        self.hasher.map(Hasher::finish).ok_or_else(nothing_moves)
    }

    /// Gives the hasher to a blocking thread with the next bytes, if both are here.
    fn hash_next(&mut self) {
        let Some(mut hasher) = self.hasher.take() else { return };
        let sink = Arc::clone(&self.sink);
        if let Some(piece) = self.ready.remove(&self.hashed) {
            self.hashing = Some(spawn_blocking(move || {
                hasher.update(piece.bytes());
                sink.hashed(piece.end(), &hasher);
                Ok((hasher, piece.end()))
            }));
        } else if let Some(range) = self.next_to_read_back() {
            self.hashing = Some(spawn_blocking(move || {
                read_back(&*sink, range, &mut hasher)?;
                sink.hashed(range.end(), &hasher);
                Ok((hasher, range.end()))
            }));
        } else {
            self.hasher = Some(hasher);
        }
    }

    /// What the sink has from earlier of the bytes that the hasher must see next.
    fn next_to_read_back(&mut self) -> Option<ByteRange> {
        let end = self.unhashed.remove(&self.hashed)?;
        let upto = end.min(self.hashed.saturating_add(READ_BACK));
        if upto < end {
            self.unhashed.insert(upto, end);
        }
        ByteRange::new(self.hashed, upto)
    }

    fn take_hasher(
        &mut self,
        hashed: Result<io::Result<(Hasher, u64)>, JoinError>,
    ) -> Result<(), FetchError> {
        self.hashing = None;
        let (hasher, upto) = hashed.map_err(blocking_died)?.map_err(FetchError::Sink)?;
        self.hasher = Some(hasher);
        self.hashed = upto;
        self.hash_next();
        Ok(())
    }
}

fn read_back(sink: &dyn Sink, range: ByteRange, hasher: &mut Hasher) -> io::Result<()> {
    let mut buffer = vec![0; READ_AT_ONCE];
    let mut offset = range.start();
    while offset < range.end() {
        let left = usize::try_from(range.end() - offset).unwrap_or(usize::MAX);
        let part = buffer.get_mut(..left.min(READ_AT_ONCE)).unwrap_or_default();
        sink.read_at(offset, part)?;
        hasher.update(part);
        offset += part.len() as u64;
    }
    Ok(())
}

impl Outlet for Stored {
    fn kept(&self) -> Vec<ByteRange> {
        self.kept.ranges().to_vec()
    }

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
        // It will arrive once more, and be written over itself.
        self.unhashed.clear();
        Ok(self.hashed)
    }

    async fn settle(&mut self) {
        while self.writing.next().await.is_some() {}
        if let Some(hashing) = self.hashing.take() {
            let _ = hashing.await;
        }
    }
}
