use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use super::claims::Turn;
use super::error::OpError;
use super::journal::{Checked, Hashed, crc, is_markable};
use super::marks::Marks;
use super::ops::{self, Dir};
use super::sums::Sums;
use crate::fetch::Sink;
use crate::types::{ByteRange, Crc, CrcKind, Hasher};

/// Direct and buffered writes to one page would race with each other, so they meet at a multiple of the largest page
/// that Linux has on GPU hosts (64 KiB, arm64): the last bytes of a file are buffered, all others direct.
const MEETING: u64 = 64 << 10;

/// What keeps others from the same file for as long as anything here can still be written to it: a write that has
/// begun goes on when the job that wanted it is gone.
#[derive(Debug, Clone)]
#[expect(dead_code, reason = "they are held, and let go")]
pub(super) enum Keeper {
    /// Among the jobs of one cache.
    Turn(Arc<Turn>),
    /// Among processes that write into one directory: its lock.
    Directory(Arc<Dir>),
}

/// The sink: several writers at once, past the page cache where the file system allows it.
#[derive(Debug)]
pub(super) struct DataFile {
    path: PathBuf,
    size: u64,
    buffered: File,
    direct: Option<Direct>,
    /// Hears what is on the disk, where a journal is kept.
    marks: Option<Marks>,
    /// Knows the check of what was written, where one is published of the whole.
    sums: OnceLock<Sums>,
    _keeper: Option<Keeper>,
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
    /// A new file with room for `size` bytes.
    pub(super) fn create(dir: &Dir, name: &str, size: u64) -> Result<Self, OpError> {
        let path = dir.path().join(name);
        let buffered = dir.create_file(name, 0o600)?;
        ops::preallocate(&buffered, size).map_err(|e| OpError::new("make room for", &path, e))?;
        Ok(Self::over(dir, name, size, buffered))
    }

    /// The file `buffered`, which is `size` bytes long and called `name`.
    pub(super) fn over(dir: &Dir, name: &str, size: u64, buffered: File) -> Self {
        let direct = (size >= MEETING).then(|| Direct::open(dir, name, &buffered)).flatten();
        Self {
            path: dir.path().join(name),
            size,
            buffered,
            direct,
            marks: None,
            sums: OnceLock::new(),
            _keeper: None,
        }
    }

    pub(super) fn kept_by(self, keeper: Option<Keeper>) -> Self {
        Self { _keeper: keeper, ..self }
    }

    pub(super) fn marked_in(self, marks: Marks) -> Self {
        Self { marks: Some(marks), ..self }
    }

    pub(super) fn marks(&self) -> Option<&Marks> {
        self.marks.as_ref()
    }

    pub(super) fn sum_as(&self, kind: CrcKind) {
        self.sums.get_or_init(|| Sums::new(kind));
    }

    /// The check of the whole, where one was to be known. Only what this wasn't given to write is read.
    pub(super) fn sum(&self) -> Option<io::Result<Crc>> {
        let read = |offset, bytes: &mut [u8]| self.read_at(offset, bytes);
        self.sums.get().map(|sums| sums.whole(self.size, read))
    }

    /// Makes durable what was written so far.
    pub(super) fn sync_data(&self) -> io::Result<()> {
        ops::sync_data(&self.buffered)
    }

    /// Makes the file durable, with its right length and `mode`.
    pub(super) fn seal(&self, mode: u32) -> Result<(), OpError> {
        let failed = |doing| move |cause| OpError::new(doing, &self.path, cause);
        ops::truncate(&self.buffered, self.size).map_err(failed("truncate"))?;
        ops::set_mode(&self.buffered, mode).map_err(failed("set the mode of"))?;
        ops::sync(&self.buffered).map_err(failed("fsync"))?;
        // The kernel tells of a lost write once: whoever asked before this has heard it.
        self.marks.as_ref().map_or(Ok(()), Marks::all_synced).map_err(failed("fsync"))
    }
}

impl Sink for DataFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= self.size);
        let Some(end) = end else {
            let problem = format!("{} bytes at {offset} are beyond the file's {}", bytes.len(), self.size);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        };
        let meeting = self.size / MEETING * MEETING;
        let ahead = usize::try_from(meeting.saturating_sub(offset)).unwrap_or(usize::MAX).min(bytes.len());
        let (ahead, tail) = bytes.split_at(ahead);
        let done = match &self.direct {
            Some(direct) => direct.write(offset, ahead)?,
            None => 0,
        };
        let rest = ahead.get(done..).unwrap_or_default();
        ops::write_all_at(&self.buffered, rest, offset + done as u64)?;
        ops::write_all_at(&self.buffered, tail, offset + ahead.len() as u64)?;
        if let Some(sums) = self.sums.get() {
            sums.written(offset, bytes);
        }
        if let Some(marks) = &self.marks
            && let Some(range) = ByteRange::new(offset, end).filter(|range| is_markable(*range, self.size))
        {
            marks.written(Checked { range, crc: crc(bytes) });
        }
        Ok(())
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        ops::read_exact_at(&self.buffered, bytes, offset)
    }

    fn hashed(&self, upto: u64, hasher: &Hasher) {
        if let Some(marks) = &self.marks {
            marks.hashed(Hashed { upto, state: hasher.state() });
        }
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
