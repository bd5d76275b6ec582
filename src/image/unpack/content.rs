use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{FallocateFlags, OFlags, fallocate, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

use super::entry::Entry;

/// A file from this size on goes past the page cache. It's the size of one write, too: a smaller one would have to wait
/// for the disk more often, and a larger one would only take memory.
const LARGE: usize = 1 << 20;

/// A page of the largest kind that Linux has on GPU hosts (64 KiB, arm64): it does for every disk's own alignment.
const ALIGNMENT: usize = 64 << 10;

/// A file's content on its way to the disk.
#[derive(Debug)]
pub(super) struct Content {
    file: File,
    size: u64,
    /// Where the bytes end that came.
    end: u64,
    direct: Option<Box<Direct>>,
}

/// Writes of large files past the page cache, one file after the other.
#[derive(Debug)]
pub(super) struct Direct {
    /// Longer than [`LARGE`], so that an aligned start lies in it. Never grows, so it never moves.
    storage: Vec<u8>,
    start: usize,
    /// Bytes that wait.
    len: usize,
    /// Where the file ends on the disk.
    written: u64,
    /// The file system refuses such writes.
    refused: bool,
}

impl Content {
    /// `direct` comes back from [`Self::finish`].
    pub(super) fn new(file: OwnedFd, entry: &Entry, direct: &mut Option<Box<Direct>>) -> io::Result<Self> {
        let mut content = Self { file: File::from(file), size: entry.size, end: 0, direct: None };
        if entry.pieces.is_none() && entry.size >= LARGE as u64 {
            let mut found = direct.take().unwrap_or_default();
            found.begin(&content.file, entry.size)?;
            content.direct = Some(found);
        }
        Ok(content)
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        match &mut self.direct {
            Some(direct) => direct.take(&self.file, bytes)?,
            None => self.file.write_all_at(bytes, offset)?,
        }
        self.end = offset + bytes.len() as u64;
        Ok(())
    }

    /// The file with all its content; a hole may end it.
    pub(super) fn finish(mut self, direct: &mut Option<Box<Direct>>) -> io::Result<File> {
        if let Some(mut used) = self.direct.take() {
            used.end(&self.file)?;
            *direct = Some(used);
        }
        if self.end < self.size {
            self.file.set_len(self.size)?;
        }
        Ok(self.file)
    }
}

impl Default for Direct {
    fn default() -> Self {
        let storage = vec![0; LARGE + ALIGNMENT];
        // `align_offset` may give up with usize::MAX, on paper; the disk then refuses what isn't aligned.
        let start = storage.as_ptr().align_offset(ALIGNMENT);
        let start = if start > ALIGNMENT { 0 } else { start };
        Self { storage, start, len: 0, written: 0, refused: false }
    }
}

impl Direct {
    fn begin(&mut self, file: &File, size: u64) -> io::Result<()> {
        (self.len, self.written) = (0, 0);
        // Else each write would change the file's length, too, and the journal with it.
        match fallocate(file, FallocateFlags::empty(), 0, size) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(error) => return Err(error.into()),
        }
        self.set(file, true)
    }

    fn take(&mut self, file: &File, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(LARGE - self.len));
            let at = self.start + self.len;
            self.storage[at..at + now.len()].copy_from_slice(now);
            self.len += now.len();
            bytes = later;
            if self.len == LARGE {
                self.flush(file)?;
            }
        }
        Ok(())
    }

    fn flush(&mut self, file: &File) -> io::Result<()> {
        let waiting = &self.storage[self.start..self.start + self.len];
        let done = match file.write_all_at(waiting, self.written) {
            Err(error) if !self.refused && Errno::from_io_error(&error) == Some(Errno::INVAL) => {
                self.refused = true;
                self.set(file, false)?;
                let waiting = &self.storage[self.start..self.start + self.len];
                file.write_all_at(waiting, self.written)
            }
            done => done,
        };
        self.written += self.len as u64;
        self.len = 0;
        done
    }

    /// What isn't a whole write goes through the page cache.
    fn end(&mut self, file: &File) -> io::Result<()> {
        self.set(file, false)?;
        self.flush(file)
    }

    fn set(&mut self, file: &File, direct: bool) -> io::Result<()> {
        if self.refused && direct {
            return Ok(());
        }
        let mut flags = fcntl_getfl(file)?;
        flags.set(OFlags::DIRECT, direct);
        match fcntl_setfl(file, flags) {
            Err(Errno::INVAL) if direct => self.refused = true,
            done => done?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::bed::Bed;
    use super::super::tests::tape::{Item, Tape};
    use super::super::{Limits, TarSink as _, Unpacker};
    use super::*;

    fn noise(size: usize, seed: usize) -> Vec<u8> {
        (0..size).map(|i| ((i * 31 + seed) ^ (i >> 12)) as u8).collect()
    }

    #[test]
    fn large_files_are_whole_on_a_disk_and_on_a_tmpfs() {
        let sizes = [LARGE - 1, LARGE, LARGE + 1, 2 * LARGE, 3 * LARGE + 4095, 5 * LARGE + 7];
        let items = sizes.iter().enumerate().map(|(i, &size)| Item::file(format!("f{i}"), noise(size, i)));
        let stream = Tape::of(items);
        for piece in [4093, 128 << 10, stream.len()] {
            for home in [std::env::temp_dir(), "/dev/shm".into()] {
                let home = tempfile::tempdir_in(home).unwrap();
                let root = File::open(home.path()).unwrap().into();
                let mut sink = Unpacker::new(root, Limits::default()).unwrap();
                stream.chunks(piece).try_for_each(|piece| sink.feed(piece)).unwrap();
                sink.finish().unwrap();
                for (i, &size) in sizes.iter().enumerate() {
                    let path = home.path().join(format!("f{i}"));
                    assert!(std::fs::read(path).unwrap() == noise(size, i), "{i} in pieces of {piece}");
                }
            }
        }
    }

    #[test]
    fn a_disk_without_room_says_so_before_anything_is_written() {
        let bed = Bed::new();
        let mut sink = Unpacker::new(bed.open(), Limits { bytes: u64::MAX, ..Limits::default() }).unwrap();
        let header = Tape::new().item(Item::file("f", "").size(1 << 44)).cut();
        let error = sink.feed(&header).unwrap_err();
        let kind = error.kind();
        assert!(
            matches!(kind, crate::types::ErrorKind::NoSpace | crate::types::ErrorKind::Local),
            "{error:?}"
        );
    }
}
