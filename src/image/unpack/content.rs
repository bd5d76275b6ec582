use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

use super::entry::Entry;

/// A file's content on its way to the disk.
#[derive(Debug)]
pub(super) struct Content {
    file: File,
    size: u64,
    end: u64,
}

impl Content {
    pub(super) fn new(file: OwnedFd, entry: &Entry) -> Self {
        Self { file: File::from(file), size: entry.size, end: 0 }
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)?;
        self.end = offset + bytes.len() as u64;
        Ok(())
    }

    /// The file with all its content; a hole may end it.
    pub(super) fn finish(self) -> io::Result<File> {
        if self.end < self.size {
            self.file.set_len(self.size)?;
        }
        Ok(self.file)
    }
}
