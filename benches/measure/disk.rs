//! What the disk takes and gives, in order and past the page cache.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FallocateFlags, OFlags};
use tokio::time::Instant;

const SIZE: u64 = 4 << 30;
const PIECE: usize = 8 << 20;
const PAGE: usize = 4096;

/// Bytes in a second.
pub(crate) struct Disk {
    write: f64,
    read: f64,
    writers: u64,
}

impl Disk {
    /// How long so many bytes take.
    pub(crate) fn writing(&self, bytes: u64) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.write)
    }

    /// The same for reading.
    pub(crate) fn reading(&self, bytes: u64) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.read)
    }

    /// In words.
    pub(crate) fn line(&self) -> String {
        format!(
            "the disk takes {:.0} MB/s and gives {:.0} MB/s past the page cache ({} writers at once, synced)",
            self.write / 1e6,
            self.read / 1e6,
            self.writers
        )
    }
}

/// Writes and reads a large file in `dir`, with one thread and with two; the better counts.
pub(crate) fn measure(dir: &Path) -> Disk {
    let path = dir.join("disk");
    let mut best = Disk { write: 0.0, read: 0.0, writers: 1 };
    for threads in [1, 2, 4] {
        let file = File::create(&path).expect("a file can be made");
        // As a program that knows the size does it.
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, SIZE).expect("there is room");
        file.sync_all().expect("it can be synced");
        let write = rate(threads, &path, true);
        let read = rate(threads, &path, false);
        if write > best.write {
            (best.write, best.writers) = (write, threads);
        }
        best.read = best.read.max(read);
        std::fs::remove_file(&path).expect("it can be removed");
    }
    best
}

/// Bytes in a second, by so many threads, each at its own part of the file.
fn rate(threads: u64, path: &Path, write: bool) -> f64 {
    let direct = i32::try_from(OFlags::DIRECT.bits()).expect("a flag");
    let file = OpenOptions::new().read(true).write(true).custom_flags(direct).open(path).expect("O_DIRECT");
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let file = &file;
            scope.spawn(move || {
                let mut bytes = Aligned::new();
                let (mut at, end) = (SIZE / threads * thread, SIZE / threads * (thread + 1));
                while at < end {
                    let bytes = bytes.bytes();
                    if write {
                        file.write_all_at(bytes, at).expect("it can be written");
                    } else {
                        file.read_exact_at(bytes, at).expect("it can be read");
                    }
                    at += PIECE as u64;
                }
            });
        }
    });
    if write {
        file.sync_data().expect("it can be synced");
    }
    SIZE as f64 / begun.elapsed().as_secs_f64()
}

/// A buffer that begins at a page, as O_DIRECT asks for.
pub(crate) struct Aligned {
    bytes: Vec<u8>,
    begin: usize,
}

impl Aligned {
    /// One of [`PIECE`] bytes, none of them 0.
    pub(crate) fn new() -> Self {
        let bytes = vec![0xa5; PIECE + PAGE];
        let begin = bytes.as_ptr().align_offset(PAGE);
        Self { bytes, begin }
    }

    /// Its bytes.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes[self.begin..self.begin + PIECE]
    }
}
