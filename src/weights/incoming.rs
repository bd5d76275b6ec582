use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::claims::Turn;
use super::error::OpError;
use super::layout;
use super::ops::{self, Dir};
use crate::fetch::Sink;

/// A file on its way in: preallocated, not yet trusted, under a name that nobody else looks at. Dropping it takes
/// the name away again, and with it the bytes, unless they got another name in between.
#[derive(Debug)]
pub(super) struct Incoming {
    dir: Dir,
    name: String,
    /// The directory that was made for it alone, by its parent and name.
    home: Option<(Dir, String)>,
    data: Arc<DataFile>,
    /// Let go after the name is gone: the next to have the turn makes a file by the same name.
    turn: Option<Arc<Turn>>,
}

impl Incoming {
    /// A new file of `size` bytes called `name` in `dir`. One left there by a dead run goes first: nothing tells
    /// which of its bytes are right.
    pub(super) fn create(dir: Dir, name: &str, size: u64) -> Result<Self, OpError> {
        dir.unlink(name)?;
        let data = DataFile::create(&dir, name, size).inspect_err(|_| drop(dir.unlink(name)))?;
        Ok(Self { dir, name: name.to_owned(), home: None, data: Arc::new(data), turn: None })
    }

    /// The same, in a directory of its own under `partials`.
    pub(super) fn create_partial(partials: Dir, key: &str, size: u64) -> Result<Self, OpError> {
        let dir = partials.make(key, layout::PRIVATE_DIR)?;
        let incoming = Self::create(dir, layout::DATA, size);
        if incoming.is_err() {
            drop(partials.remove_dir(key));
        }
        let mut incoming = incoming?;
        incoming.home = Some((partials, key.to_owned()));
        Ok(incoming)
    }

    /// The same, keeping `turn` for as long as it has its name.
    pub(super) fn in_turn(self, turn: Arc<Turn>) -> Self {
        let mut incoming = self;
        incoming.turn = Some(turn);
        incoming
    }

    /// Where the bytes go.
    pub(super) fn sink(&self) -> Arc<dyn Sink> {
        self.data.clone()
    }

    /// Makes the file durable, with its right length and `mode`. It still has only its own name.
    pub(super) fn seal(&self, mode: u32) -> Result<(), OpError> {
        self.data.seal(mode)
    }

    pub(super) fn dir(&self) -> &Dir {
        &self.dir
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let removed = self.dir.unlink(&self.name).and_then(|_| match &self.home {
            Some((parent, name)) => parent.remove_dir(name).map(drop),
            None => Ok(()),
        });
        if let Err(error) = removed {
            tracing::warn!(error = crate::rt::chain(&error), "a partial file stays until the next start");
        }
    }
}

/// Direct and buffered writes to one page would race with each other, so they meet at a multiple of the largest page
/// that Linux has on GPU hosts (64 KiB, arm64): the last bytes of a file are buffered, all others direct.
const MEETING: u64 = 64 << 10;

/// The sink: several writers at once, past the page cache where the file system allows it.
#[derive(Debug)]
struct DataFile {
    path: PathBuf,
    size: u64,
    buffered: File,
    direct: Option<Direct>,
}

#[derive(Debug)]
struct Direct {
    file: File,
    memory: usize,
    offset: usize,
    /// Cleared for good when the file system refuses a write that it had said it would take.
    works: AtomicBool,
}

impl DataFile {
    fn create(dir: &Dir, name: &str, size: u64) -> Result<Self, OpError> {
        let path = dir.path().join(name);
        let buffered = dir.create_file(name, 0o600)?;
        ops::preallocate(&buffered, size).map_err(|e| OpError::new("make room for", &path, e))?;
        let direct = (size >= MEETING).then(|| Direct::open(dir, name, &buffered)).flatten();
        Ok(Self { path, size, buffered, direct })
    }

    fn seal(&self, mode: u32) -> Result<(), OpError> {
        let failed = |doing| move |cause| OpError::new(doing, &self.path, cause);
        ops::truncate(&self.buffered, self.size).map_err(failed("truncate"))?;
        ops::set_mode(&self.buffered, mode).map_err(failed("set the mode of"))?;
        ops::sync(&self.buffered).map_err(failed("fsync"))
    }
}

impl Sink for DataFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= self.size);
        if end.is_none() {
            let problem = format!("{} bytes at {offset} are beyond the file's {}", bytes.len(), self.size);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        let meeting = self.size / MEETING * MEETING;
        let ahead = usize::try_from(meeting.saturating_sub(offset)).unwrap_or(usize::MAX).min(bytes.len());
        let (ahead, tail) = bytes.split_at(ahead);
        let done = match &self.direct {
            Some(direct) => direct.write(offset, ahead)?,
            None => 0,
        };
        let rest = ahead.get(done..).unwrap_or_default();
        ops::write_all_at(&self.buffered, rest, offset + done as u64)?;
        ops::write_all_at(&self.buffered, tail, offset + ahead.len() as u64)
    }
}

impl Direct {
    fn open(dir: &Dir, name: &str, file: &File) -> Option<Self> {
        let (memory, offset) = ops::direct_alignment(file)?;
        Some(Self { file: dir.open_direct(name)?, memory, offset, works: AtomicBool::new(true) })
    }

    /// Writes as much as it may, and says how much that was; the rest is for the page cache.
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let mut done = 0;
        while self.works.load(Relaxed) {
            let rest = bytes.get(done..).unwrap_or_default();
            if rest.is_empty() || !self.takes(offset + done as u64, rest) {
                break;
            }
            match ops::write_some_at(&self.file, rest, offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => done += written,
                Err(error) if refuses(&error) => self.works.store(false, Relaxed),
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn takes(&self, offset: u64, bytes: &[u8]) -> bool {
        let on_disk = |n: u64| n.is_multiple_of(self.offset as u64);
        on_disk(offset) && on_disk(bytes.len() as u64) && bytes.as_ptr().addr().is_multiple_of(self.memory)
    }
}

fn refuses(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::OPNOTSUPP))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::fetch::ALIGNMENT;

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
        let dir = Dir::open_root(home.path()).unwrap();
        let incoming = Incoming::create_partial(dir, "key", size as u64).unwrap();
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
        let dir = Dir::open_root(home.path()).unwrap();
        let incoming = Incoming::create(dir, "data", 200_000).unwrap();
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
        let incoming = Incoming::create(Dir::open_root(home.path()).unwrap(), "data", 10).unwrap();
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
        let dir = Dir::open_root(home.path()).unwrap();
        let incoming = Incoming::create_partial(dir, "key", 3).unwrap();
        incoming.sink().write_at(0, b"new").unwrap();
        incoming.seal(0o444).unwrap();
        assert_eq!(std::fs::read(home.path().join("key/data")).unwrap(), b"new");
    }
}
