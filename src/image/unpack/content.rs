use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::entry::Entry;
use crate::image::early_file::EarlyFile;

/// A file's content on its way to the disk.
#[derive(Debug)]
pub(super) struct Content {
    file: EarlyFile,
    size: u64,
}

impl Content {
    pub(super) fn new(file: OwnedFd, entry: &Entry) -> Self {
        Self { file: EarlyFile::new(File::from(file)), size: entry.size }
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write(offset, bytes)
    }

    /// The file with all its content; a hole may end it.
    pub(super) fn finish(self) -> io::Result<Arc<File>> {
        let end = self.file.end();
        let file = self.file.finish();
        if end < self.size {
            file.set_len(self.size)?;
        }
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::tape::{Item, Tape};
    use super::super::{Limits, TarSink as _, Unpacker};
    use super::*;
    use crate::image::early_file::{STEP, WORTH};

    fn noise(size: u64, seed: usize) -> Vec<u8> {
        (0..size as usize).map(|i| ((i * 31 + seed) ^ (i >> 12)) as u8).collect()
    }

    #[test]
    fn large_files_are_whole_on_a_disk_and_on_a_tmpfs() {
        let sizes = [WORTH - 1, WORTH, STEP - 1, STEP, STEP + WORTH + 7];
        let items = sizes.iter().enumerate().map(|(i, &size)| Item::file(format!("f{i}"), noise(size, i)));
        let stream = Tape::of(items);
        for home in [std::env::temp_dir(), "/dev/shm".into()] {
            let home = tempfile::tempdir_in(home).unwrap();
            let mut sink = Unpacker::new(File::open(home.path()).unwrap().into(), Limits::default()).unwrap();
            stream.chunks(100_003).try_for_each(|piece| sink.feed(piece)).unwrap();
            sink.finish().unwrap();
            for (i, &size) in sizes.iter().enumerate() {
                let path = home.path().join(format!("f{i}"));
                assert!(std::fs::read(path).unwrap() == noise(size, i), "{i}");
            }
        }
    }
}
