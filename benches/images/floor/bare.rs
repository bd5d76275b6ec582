//! The steps of a pull, bare: one thread takes the blobs from the page cache, hashes them, inflates, hashes again and
//! unpacks. No checks, no limits, no whiteouts: what a careful program can't be faster than. Each step's processor time is
//! taken apart.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use rustix::fs::{FallocateFlags, Mode, OFlags, Timespec, Timestamps};
use rustix::process::{Gid, Uid};
use stoker::types::Hasher;
use tokio::time::Instant;

use crate::layers::Packing;
use crate::made::Image;
use crate::measure::disk::Aligned;
use crate::measure::usage::cpu_of_thread;
use crate::store::Store;

/// Files from this size on go past the page cache.
const LARGE: u64 = 1 << 20;
const PAGE: usize = 4096;

/// Processor time by step, and the whole run's time.
#[derive(Debug, Default)]
pub(crate) struct Bare {
    pub(crate) inflate: Duration,
    pub(crate) blob_hash: Duration,
    pub(crate) diff_hash: Duration,
    pub(crate) unpack: Duration,
    pub(crate) wall: Duration,
    pub(crate) sync: Duration,
}

/// Unpacks an image's layers into directories of their own below `place`.
///
/// # Panics
/// When something isn't as the image says.
pub(super) fn run(directory: &Path, image: &Image, place: &Path) -> Bare {
    let store = Store::at(directory);
    let mut bare = Bare::default();
    for (number, layer) in image.layers.iter().enumerate() {
        let path = store.blob(layer.digest);
        io::copy(&mut File::open(&path).expect("the blob is there"), &mut io::sink())
            .expect("it can be read");
        let root = place.join(number.to_string());
        std::fs::create_dir(&root).expect("a directory can be made");
        let begun = Instant::now();
        let before = cpu_of_thread();
        let blob_times = Rc::new(Times::default());
        let blob = Hashed::new(File::open(&path).expect("the blob is there"), Rc::clone(&blob_times));
        // Boxed: isal's reader must not move once it has read.
        let inflated: Box<dyn Read> = match layer.packing {
            Packing::Gzip => Box::new(isal::read::GzipDecoder::new(blob)),
            Packing::Zstd => Box::new(zstd::stream::read::Decoder::new(blob).expect("zstd starts")),
            Packing::Plain => Box::new(blob),
        };
        let diff_times = Rc::new(Times::default());
        let diff = Hashed::new(inflated, Rc::clone(&diff_times));
        let diff_id = unpack(diff, &root).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(diff_id, layer.diff_id, "the bytes are right");
        let all = cpu_of_thread() - before;
        bare.wall += begun.elapsed();
        bare.blob_hash += blob_times.hash.get();
        bare.diff_hash += diff_times.hash.get();
        // Reading the file stands for the network, whose cost is measured elsewhere.
        bare.inflate += diff_times.inner.get() - blob_times.inner.get() - blob_times.hash.get();
        bare.unpack += all - diff_times.inner.get() - diff_times.hash.get();
    }
    let begun = Instant::now();
    rustix::fs::syncfs(File::open(place).expect("it is there")).expect("it can be synced");
    bare.sync = begun.elapsed();
    bare
}

/// What a reader's parts took.
#[derive(Default)]
struct Times {
    inner: Cell<Duration>,
    hash: Cell<Duration>,
}

/// Passes bytes on and hashes them.
struct Hashed<R> {
    inner: R,
    hasher: Hasher,
    times: Rc<Times>,
}

impl<R: Read> Hashed<R> {
    fn new(inner: R, times: Rc<Times>) -> Self {
        Self { inner, hasher: Hasher::new(), times }
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let begun = cpu_of_thread();
        let read = self.inner.read(bytes)?;
        let got = cpu_of_thread();
        self.hasher.update(&bytes[..read]);
        let done = cpu_of_thread();
        self.times.inner.set(self.times.inner.get() + (got - begun));
        self.times.hash.set(self.times.hash.get() + (done - got));
        Ok(read)
    }
}

fn unpack(diff: Hashed<Box<dyn Read>>, root: &Path) -> io::Result<stoker::types::Digest> {
    // Many small reads would measure the clock.
    let mut archive = tar::Archive::new(io::BufReader::with_capacity(1 << 20, diff));
    let mut buffer = Aligned::new();
    let mut parent: Option<(PathBuf, OwnedFd)> = None;
    let mut dirs = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = root.join(entry.path()?);
        let mode = Mode::from_raw_mode(entry.header().mode()?);
        let times = Timespec { tv_sec: entry.header().mtime()?.cast_signed(), tv_nsec: 0 };
        let times = Timestamps { last_access: times, last_modification: times };
        if entry.header().entry_type().is_dir() {
            // Packages share directories, and a layer of two of them names these twice.
            std::fs::create_dir_all(&path)?;
            rustix::fs::chmod(&path, mode)?;
            dirs.push((path, times));
            continue;
        }
        let dir = path.parent().unwrap_or(root);
        if parent.as_ref().is_none_or(|(open, _)| open != dir) {
            parent = Some((
                dir.to_owned(),
                rustix::fs::open(dir, OFlags::DIRECTORY | OFlags::PATH, Mode::empty())?,
            ));
        }
        let Some((_, parent)) = &parent else { continue };
        let name = path.file_name().unwrap_or_default();
        let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?);
        let size = entry.size();
        write(&mut entry, &file, size, &mut buffer)?;
        rustix::fs::fchown(&file, Some(Uid::ROOT), Some(Gid::ROOT))?;
        rustix::fs::fchmod(&file, mode)?;
        rustix::fs::futimens(&file, &times)?;
    }
    for (dir, times) in dirs.iter().rev() {
        rustix::fs::utimensat(rustix::fs::CWD, dir, times, rustix::fs::AtFlags::empty())?;
    }
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink())?;
    Ok(rest.into_inner().hasher.finish())
}

/// A file's bytes: a small one's by one write, a large one's past the page cache, but for the end of its last page.
fn write(bytes: &mut impl Read, file: &File, size: u64, buffer: &mut Aligned) -> io::Result<()> {
    let buffer = buffer.bytes();
    if size >= LARGE {
        rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size)?;
        rustix::fs::fcntl_setfl(file.as_fd(), OFlags::DIRECT)?;
    }
    let mut at = 0;
    while at < size {
        let piece = usize::try_from((size - at).min(buffer.len() as u64)).unwrap_or(buffer.len());
        bytes.read_exact(&mut buffer[..piece])?;
        let whole = if size >= LARGE { piece / PAGE * PAGE } else { piece };
        file.write_all_at(&buffer[..whole], at)?;
        if whole < piece {
            rustix::fs::fcntl_setfl(file.as_fd(), OFlags::empty())?;
            file.write_all_at(&buffer[whole..piece], at + whole as u64)?;
        }
        at += piece as u64;
    }
    Ok(())
}
