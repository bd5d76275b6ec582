use std::sync::Arc;
use std::thread::JoinHandle;

use tokio_util::sync::CancellationToken;

use super::blob::{self, Mismatch};
use super::data_file::{DataFile, Keeper};
use super::error::{OpError, WeightsError};
use super::journal::{Journal, Origin};
use super::marks::{self, End, Marks, Pace};
use super::ops::Dir;
use super::resume;
use super::spot::Spot;
use crate::fetch::{Kept, Sink};
use crate::types::{CrcKind, Published};

/// A file on its way in: preallocated, not yet trusted, under a name that nobody else looks at.
///
/// Dropping it takes that name away again, and with it the bytes, unless they got another name in between. Where a
/// journal is kept, they stay instead, for whoever goes on with it: only [`discard`](Self::discard) takes them away.
#[derive(Debug)]
pub(super) struct Incoming {
    spot: Arc<Spot>,
    data: Arc<DataFile>,
    kept: Kept,
    /// Keeps the journal, where there is one, and says in the end whether anything was ever marked.
    marker: Option<JoinHandle<bool>>,
    /// What it said.
    stored: bool,
    /// Whether the names are gone.
    settled: bool,
}

/// How a file comes in.
#[derive(Debug)]
pub(super) struct Arrival {
    /// What it is; `None` where nobody could go on with it after this process.
    pub(super) origin: Option<Origin>,
    pub(super) size: u64,
    pub(super) pace: Pace,
    pub(super) keeper: Option<Keeper>,
}

impl Incoming {
    /// Goes on with what an earlier run left at `spot`, if that is of the same version of the same file; or makes a
    /// new file there. What is there already was read and held against its journal.
    ///
    /// # Errors
    /// When there can't be a file, or when `stop` is cancelled while it's read. That what was left is no good is none.
    pub(super) fn open(spot: Spot, arrival: Arrival, stop: &CancellationToken) -> Result<Self, WeightsError> {
        let Arrival { origin, size, pace, keeper } = arrival;
        let Some(origin) = origin.filter(|_| size > pace.least) else {
            return Ok(Self::create(spot, size, keeper)?);
        };
        let resumed = resume::resume(&spot, &origin, stop)?;
        let stored = resumed.is_some();
        let (file, kept, journal) = match resumed {
            Some(resumed) => {
                let (done, path) = (resumed.kept.bytes(), spot.path());
                tracing::info!(done, size, path = %path.display(), "going on with what an earlier run fetched");
                let file = DataFile::over(&spot.dir, &spot.data, size, resumed.file);
                (file, resumed.kept, resumed.journal)
            }
            None => (begin(&spot, size)?, Kept::default(), Journal::new(origin)),
        };
        let data = Arc::new(file.kept_by(keeper).marked_in(Marks::new(pace)));
        let spot = Arc::new(spot);
        let marker = marks::start(Arc::clone(&data), Arc::clone(&spot), journal, stored);
        if marker.is_none() {
            data.marks().into_iter().for_each(|marks| marks.end(End::Forgotten));
        }
        Ok(Self { spot, data, kept, marker, stored, settled: false })
    }

    /// A new file without a journal.
    fn create(spot: Spot, size: u64, keeper: Option<Keeper>) -> Result<Self, OpError> {
        let data = Arc::new(begin(&spot, size)?.kept_by(keeper));
        Ok(Self {
            spot: Arc::new(spot),
            data,
            kept: Kept::default(),
            marker: None,
            stored: false,
            settled: false,
        })
    }

    /// Where the bytes go.
    pub(super) fn sink(&self) -> Arc<dyn Sink> {
        self.data.clone()
    }

    /// What is there already.
    pub(super) fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Makes the file durable, with its right length and `mode`. It still has only its own name.
    pub(super) fn seal(&mut self, mode: u32) -> Result<(), OpError> {
        self.end_marking(End::Forgotten);
        self.data.seal(mode)
    }

    /// From now on the check of this kind is known of what is written.
    pub(super) fn sum_as(&self, kind: CrcKind) {
        self.data.sum_as(kind);
    }

    /// Where the `size` bytes that are in it aren't what is published of them. For most they are read again; a check of
    /// the whole follows from those of its pieces.
    pub(super) fn mismatch(&self, published: &Published, size: u64) -> Result<Option<Mismatch>, OpError> {
        let Spot { dir, data: name, .. } = &*self.spot;
        let failed = |cause| OpError::new("read", &dir.path().join(name), cause);
        if let Published::Crc(expected) = published
            && let Some(found) = self.data.sum()
        {
            return Ok(Mismatch::of(expected, &found.map_err(failed)?));
        }
        let file = dir.open_file(name)?.ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
        blob::mismatch(&file, published, size).map_err(failed)
    }

    pub(super) fn dir(&self) -> &Dir {
        &self.spot.dir
    }

    pub(super) fn name(&self) -> &str {
        &self.spot.data
    }

    /// Leaves it for whoever goes on with it, with a last mark; without a journal it's taken away.
    pub(super) fn leave(mut self) {
        self.end_marking(End::Marked);
    }

    /// Takes its name away, and with it the bytes, unless they have another.
    pub(super) fn discard(mut self) {
        self.end_marking(End::Forgotten);
        self.remove();
    }

    /// Waits until nothing is marked any more.
    fn end_marking(&mut self, end: End) {
        self.data.marks().into_iter().for_each(|marks| marks.end(end));
        // That it panicked was logged, and what it had marked holds.
        if let Some(marker) = self.marker.take() {
            self.stored = marker.join().unwrap_or(true);
        }
    }

    fn remove(&mut self) {
        self.settled = true;
        if let Err(error) = self.spot.remove() {
            tracing::warn!(error = crate::rt::chain(&error), "a partial file stays until the next start");
        }
    }
}

/// A new file. One left there by a dead run goes first: nothing tells which of its bytes are right.
fn begin(spot: &Spot, size: u64) -> Result<DataFile, OpError> {
    spot.clear()?;
    DataFile::create(&spot.dir, &spot.data, size).inspect_err(|_| drop(spot.remove()))
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        if self.marker.take().is_some() {
            // Nobody waits for it here; it takes the names away itself if there's nothing to go on with.
            self.data.marks().into_iter().for_each(|marks| marks.end(End::Marked));
        } else if !self.stored {
            self.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::fetch::ALIGNMENT;

    /// A file of its own directory, or beside others, that nobody could go on with.
    fn incoming(home: &Path, key: Option<&str>, size: usize) -> Incoming {
        let dir = Dir::open_root(home).unwrap();
        let spot = key.map_or_else(
            || Ok(Spot::beside(dir.open("").unwrap(), "data")),
            |key| Spot::in_own(dir.open("").unwrap(), key),
        );
        let arrival = Arrival { origin: None, size: size as u64, pace: Pace::default(), keeper: None };
        Incoming::open(spot.unwrap(), arrival, &CancellationToken::new()).unwrap()
    }

    /// `size` bytes that differ everywhere, at an aligned address within the returned vector.
    fn aligned(size: usize) -> (Vec<u8>, usize) {
        let mut memory = vec![0; size + ALIGNMENT];
        let skip = memory.as_ptr().align_offset(ALIGNMENT);
        for (i, byte) in memory[skip..].iter_mut().enumerate() {
            *byte = (i % 251) as u8 ^ (i >> 12) as u8;
        }
        (memory, skip)
    }

    fn write_in_parallel(under: &Path, size: usize) {
        let home = tempfile::tempdir_in(under).unwrap();
        let mut incoming = incoming(home.path(), Some("key"), size);
        let (memory, skip) = aligned(size);
        let bytes = &memory[skip..skip + size];
        let sink = incoming.sink();
        let piece = 3 * ALIGNMENT;
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let sink = &sink;
                scope.spawn(move || {
                    for (i, part) in bytes.chunks(piece).enumerate().filter(|(i, _)| i % 4 == writer) {
                        sink.write_at((i * piece) as u64, part).unwrap();
                    }
                });
            }
        });
        incoming.seal(0o444).unwrap();
        let path = home.path().join("key/data");
        assert!(std::fs::read(&path).unwrap() == bytes);
        drop((incoming, sink));
        assert!(!home.path().join("key").exists());
    }

    #[test]
    fn four_writers_make_the_same_file_on_disk_and_on_a_tmpfs() {
        for size in [0, 1, ALIGNMENT, (1 << 20) + 17, 1 << 20, 65_537] {
            write_in_parallel(&std::env::temp_dir(), size);
            write_in_parallel(Path::new("/dev/shm"), size);
        }
    }

    #[test]
    fn bytes_that_are_not_aligned_arrive_as_well() {
        let home = tempfile::tempdir().unwrap();
        let mut incoming = incoming(home.path(), None, 200_000);
        let bytes: Vec<u8> = (0..200_000u32).map(|i| (i % 253) as u8).collect();
        let sink = incoming.sink();
        sink.write_at(100_001, &bytes[100_001..]).unwrap();
        sink.write_at(0, &bytes[..100_001]).unwrap();
        incoming.seal(0o644).unwrap();
        assert!(std::fs::read(home.path().join("data")).unwrap() == bytes);
    }

    #[test]
    fn nothing_is_written_past_the_end() {
        let home = tempfile::tempdir().unwrap();
        let incoming = incoming(home.path(), None, 10);
        let sink = incoming.sink();
        assert!(sink.write_at(5, b"123456").is_err());
        assert!(sink.write_at(u64::MAX, b"1").is_err());
        sink.write_at(5, b"12345").unwrap();
    }

    #[test]
    fn what_a_dead_run_left_is_replaced() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("key")).unwrap();
        std::fs::write(home.path().join("key/data"), "old, and longer than the new one").unwrap();
        let mut incoming = incoming(home.path(), Some("key"), 3);
        incoming.sink().write_at(0, b"new").unwrap();
        incoming.seal(0o444).unwrap();
        assert_eq!(std::fs::read(home.path().join("key/data")).unwrap(), b"new");
    }
}
