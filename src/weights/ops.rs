//! Every file operation of the cache, one small function each: the one seam through which they all go. Nothing here
//! knows the layout.
//!
//! Directories are held open, and names are looked up in them one part at a time without following a symbolic link,
//! so a link that somebody planted in the cache leads nowhere.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    self, AtFlags, FallocateFlags, FlockOperation, Mode, OFlags, RenameFlags, Stat, StatxFlags,
};
use rustix::io::Errno;

use super::did::{Did, did};
use super::error::OpError;

type Result<T> = std::result::Result<T, OpError>;

/// An open directory, with the path it was opened by, for errors.
#[derive(Debug)]
pub(super) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

/// Something found below a directory.
#[derive(Debug)]
pub(super) struct Found {
    /// Relative to where the walk began.
    pub(super) path: PathBuf,
    /// Of the thing itself, never of what a link points at.
    pub(super) stat: Stat,
}

const DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The kernel's numbers of file systems, of `linux/magic.h`; ext4's is that of ext2 and ext3, too.
const EXT4: u32 = 0xEF53;
const XFS: u32 = 0x5846_5342;
const BTRFS: u32 = 0x9123_683E;
const TMPFS: u32 = 0x0102_1994;

impl Dir {
    /// Opens a directory by any path, links included: for the root of a cache, which its owner may place.
    pub(super) fn open_root(path: &Path) -> Result<Self> {
        let fd = fs::open(path, DIR, Mode::empty()).map_err(|e| OpError::new("open", path, e))?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// The path it was opened by.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn failed(&self, doing: &'static str, name: impl AsRef<Path>, cause: impl Into<io::Error>) -> OpError {
        OpError::new(doing, &self.path.join(name), cause)
    }

    /// Opens a directory below this one; no part of `path` may be a link.
    pub(super) fn open(&self, path: impl AsRef<Path>) -> Result<Self> {
        let mut fd: Option<OwnedFd> = None;
        for part in path.as_ref().components() {
            let Component::Normal(name) = part else {
                return Err(self.failed("open", &path, Errno::INVAL));
            };
            let parent = fd.as_ref().unwrap_or(&self.fd);
            let next = fs::openat(parent, name, DIR | OFlags::NOFOLLOW, Mode::empty());
            fd = Some(next.map_err(|e| self.failed("open the directory", &path, e))?);
        }
        let fd = match fd {
            Some(fd) => fd,
            None => self.fd.try_clone().map_err(|e| self.failed("open", &path, e))?,
        };
        Ok(Self { fd, path: self.path.join(path) })
    }

    /// Like [`open`](Self::open), or `None` where there is nothing by that name.
    pub(super) fn find(&self, path: impl AsRef<Path>) -> Result<Option<Self>> {
        absent_is_none(self.open(path))
    }

    /// The directory at `path` below this one; what is missing is made, with `mode` whatever the umask says.
    pub(super) fn make(&self, path: impl AsRef<Path>, mode: u32) -> Result<Self> {
        let mut dir = self.open("")?;
        for part in path.as_ref().components() {
            let Component::Normal(name) = part else {
                return Err(self.failed("make the directory", &path, Errno::INVAL));
            };
            let made = match fs::mkdirat(&dir.fd, name, Mode::from_raw_mode(mode)) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(error) => return Err(dir.failed("make the directory", name, error)),
            };
            let parent = dir;
            dir = parent.open(Path::new(name))?;
            if made {
                did(Did::Named { dir: parent.fd.as_fd(), name });
                dir.set_mode(mode)?;
            }
        }
        Ok(dir)
    }

    /// Sets this directory's mode.
    pub(super) fn set_mode(&self, mode: u32) -> Result<()> {
        fs::fchmod(&self.fd, Mode::from_raw_mode(mode)).map_err(|e| self.failed("set the mode of", "", e))?;
        did(Did::Mode { of: self.fd.as_fd(), mode });
        Ok(())
    }

    /// Makes its names durable.
    pub(super) fn sync(&self) -> Result<()> {
        did(Did::Sync { of: self.fd.as_fd() });
        fs::fsync(&self.fd).map_err(|e| self.failed("fsync the directory", "", e))
    }

    /// Makes everything on its file system durable.
    pub(super) fn sync_all(&self) -> Result<()> {
        did(Did::SyncAll { of: self.fd.as_fd() });
        fs::syncfs(&self.fd).map_err(|e| self.failed("syncfs", "", e))
    }

    /// Whether [`sync_all`](Self::sync_all) is as good as an fsync of each file: it is where a disk's own file system
    /// lies right below, or where nothing is ever durable. Others (FUSE, network, overlays) may pass nothing on.
    pub(super) fn syncs_as_a_whole(&self) -> bool {
        fs::fstatfs(&self.fd).is_ok_and(|stat| [EXT4, XFS, BTRFS, TMPFS].contains(&(stat.f_type as u32)))
    }

    /// Takes the exclusive lock on this directory, which ends with the handle; false when somebody has it.
    pub(super) fn try_lock(&self) -> Result<bool> {
        try_flock(&self.fd).map_err(|e| self.failed("lock", "", e))
    }

    /// Of the directory itself.
    pub(super) fn own_stat(&self) -> Result<Stat> {
        fs::fstat(&self.fd).map_err(|e| self.failed("stat", "", e))
    }

    /// The id of the mount it was reached through, where the kernel tells (5.8 and later).
    pub(super) fn mount_id(&self) -> Option<u64> {
        let stat = fs::statx(&self.fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok()?;
        StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::MNT_ID).then_some(stat.stx_mnt_id)
    }

    /// Bytes that may still be written by us, and the size of the whole file system.
    pub(super) fn space(&self) -> Result<(u64, u64)> {
        let stat = fs::fstatvfs(&self.fd).map_err(|e| self.failed("statvfs", "", e))?;
        Ok((stat.f_bavail.saturating_mul(stat.f_frsize), stat.f_blocks.saturating_mul(stat.f_frsize)))
    }

    /// Of the thing by that name, never of what a link points at; `None` where there is none.
    pub(super) fn stat(&self, name: impl AsRef<Path>) -> Result<Option<Stat>> {
        match fs::statat(&self.fd, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.failed("stat", name, error)),
        }
    }

    /// A new file; an error where the name is taken.
    pub(super) fn create_file(&self, name: &str, mode: u32) -> Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self.open_with("create", name, flags, mode)?;
        did(Did::Named { dir: self.fd.as_fd(), name: OsStr::new(name) });
        Ok(file)
    }

    /// The file by that name, made where it's missing.
    pub(super) fn open_or_create(&self, name: &str, mode: u32) -> Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self.open_with("open", name, flags, mode)?;
        did(Did::Named { dir: self.fd.as_fd(), name: OsStr::new(name) });
        Ok(file)
    }

    /// A file that is there, for reading and writing.
    pub(super) fn open_to_write(&self, name: &str) -> Result<File> {
        self.open_with("open", name, OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC, 0)
    }

    /// A second handle that writes past the page cache; `None` where the file system won't.
    pub(super) fn open_direct(&self, name: &str) -> Option<File> {
        let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.open_with("open", name, flags, 0).ok()
    }

    /// For reading past the page cache; `None` where the file system won't, or there is nothing by that name.
    pub(super) fn open_direct_to_read(&self, name: &str) -> Option<File> {
        let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        self.open_with("open", name, flags, 0).ok()
    }

    /// For reading; `None` where there is nothing by that name.
    pub(super) fn open_file(&self, name: &str) -> Result<Option<File>> {
        // NONBLOCK: opening a planted FIFO must not hang.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        absent_is_none(self.open_with("open", name, flags, 0))
    }

    fn open_with(&self, doing: &'static str, name: &str, flags: OFlags, mode: u32) -> Result<File> {
        fs::openat(&self.fd, name, flags, Mode::from_raw_mode(mode))
            .map(File::from)
            .map_err(|e| self.failed(doing, name, e))
    }

    /// All of a file that is at most `cap` bytes long; `None` where there is nothing by that name.
    pub(super) fn read_file(&self, name: &str, cap: u64) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.open_file(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(cap + 1).read_to_end(&mut bytes).map_err(|e| self.failed("read", name, e))?;
        if bytes.len() as u64 > cap {
            return Err(self.failed("read", name, Errno::FBIG));
        }
        Ok(Some(bytes))
    }

    /// At most the first `most` bytes of a file; `None` where there is nothing by that name.
    pub(super) fn read_start(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.open_file(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes).map_err(|e| self.failed("read", name, e))?;
        Ok(Some(bytes))
    }

    /// A second name for the file `name` of `from`; false where `to` is taken here.
    pub(super) fn link_from(&self, from: &Self, name: &str, to: &OsStr) -> Result<bool> {
        match fs::linkat(&from.fd, name, &self.fd, to, AtFlags::empty()) {
            Ok(()) => {
                did(Did::Named { dir: self.fd.as_fd(), name: to });
                Ok(true)
            }
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(self.failed("link", to, error)),
        }
    }

    /// A symbolic link that says `text`.
    pub(super) fn symlink(&self, text: &str, name: &str) -> Result<()> {
        fs::symlinkat(text, &self.fd, name).map_err(|e| self.failed("make the link", name, e))?;
        did(Did::Named { dir: self.fd.as_fd(), name: OsStr::new(name) });
        Ok(())
    }

    /// What the symbolic link says; `None` where there is nothing by that name, or something else.
    pub(super) fn read_link(&self, name: &str) -> Result<Option<OsString>> {
        match fs::readlinkat(&self.fd, name, Vec::new()) {
            Ok(text) => Ok(Some(OsStr::from_bytes(text.as_bytes()).to_owned())),
            Err(Errno::NOENT | Errno::INVAL) => Ok(None),
            Err(error) => Err(self.failed("read the link", name, error)),
        }
    }

    /// Moves `name` of `from` here as `to`, in place of a file or link by that name.
    pub(super) fn rename_from(&self, from: &Self, name: &str, to: &str) -> Result<()> {
        fs::renameat(&from.fd, name, &self.fd, to).map_err(|e| self.failed("rename to", to, e))?;
        let (name, to) = (OsStr::new(name), OsStr::new(to));
        did(Did::Moved { from: from.fd.as_fd(), name, dir: self.fd.as_fd(), to });
        Ok(())
    }

    /// Swaps `name` of `from` with `to` of this directory, at once.
    pub(super) fn exchange_with(&self, from: &Self, name: &str, to: &str) -> Result<()> {
        fs::renameat_with(&from.fd, name, &self.fd, to, RenameFlags::EXCHANGE)
            .map_err(|e| self.failed("exchange", to, e))?;
        let (name, to) = (OsStr::new(name), OsStr::new(to));
        did(Did::Exchanged { from: from.fd.as_fd(), name, dir: self.fd.as_fd(), to });
        Ok(())
    }

    /// Takes a name away from a file or link; false where there was none.
    pub(super) fn unlink(&self, name: impl AsRef<Path>) -> Result<bool> {
        self.unlink_with(name.as_ref(), AtFlags::empty())
    }

    /// Takes an empty directory away; false where there was none, or it isn't empty.
    pub(super) fn remove_dir(&self, name: impl AsRef<Path>) -> Result<bool> {
        self.unlink_with(name.as_ref(), AtFlags::REMOVEDIR)
    }

    fn unlink_with(&self, name: &Path, flags: AtFlags) -> Result<bool> {
        match fs::unlinkat(&self.fd, name, flags) {
            Ok(()) => {
                did(Did::Unnamed { dir: self.fd.as_fd(), name: name.as_os_str() });
                Ok(true)
            }
            Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            Err(error) => Err(self.failed("remove", name, error)),
        }
    }

    /// Takes `name` away and, if it's a directory, all below it; follows no link.
    pub(super) fn remove_tree(&self, name: impl AsRef<Path>) -> Result<()> {
        let name = name.as_ref();
        let Some(stat) = self.stat(name)? else { return Ok(()) };
        if !is_dir(&stat) {
            return self.unlink(name).map(drop);
        }
        let top = self.open(name)?;
        // Parents come before what is in them, so the reverse empties each directory before it's removed.
        for found in top.walk()?.iter().rev() {
            let parent = top.open(found.path.parent().unwrap_or(Path::new("")))?;
            let leaf = found.path.file_name().unwrap_or_default();
            if is_dir(&found.stat) {
                parent.remove_dir(leaf)?
            } else {
                parent.unlink(leaf)?
            };
        }
        self.remove_dir(name).map(drop)
    }

    /// The names in it, in order.
    pub(super) fn list(&self) -> Result<Vec<OsString>> {
        let failed = |e| self.failed("read the directory", "", e);
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(&self.fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                names.push(OsStr::from_bytes(name).to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Everything below it, parents first, itself not included. Holds one directory open at a time.
    pub(super) fn walk(&self) -> Result<Vec<Found>> {
        let mut all = Vec::new();
        let mut dirs = vec![PathBuf::new()];
        while let Some(path) = dirs.pop() {
            let dir = self.open(&path)?;
            for name in dir.list()? {
                let Some(stat) = dir.stat(&name)? else { continue };
                let path = path.join(name);
                if is_dir(&stat) {
                    dirs.push(path.clone());
                }
                all.push(Found { path, stat });
            }
        }
        Ok(all)
    }
}

fn absent_is_none<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(it) => Ok(Some(it)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether it is a directory itself.
pub(super) fn is_dir(stat: &Stat) -> bool {
    fs::FileType::from_raw_mode(stat.st_mode) == fs::FileType::Directory
}

/// Whether it is a regular file itself.
pub(super) fn is_file(stat: &Stat) -> bool {
    fs::FileType::from_raw_mode(stat.st_mode) == fs::FileType::RegularFile
}

/// Its permission bits.
pub(super) fn mode_of(stat: &Stat) -> u32 {
    stat.st_mode & 0o7777
}

/// Bytes that it takes on the file system.
pub(super) fn allocated(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512)
}

/// Whether it belongs to the user that this process runs as.
pub(super) fn is_ours(stat: &Stat) -> bool {
    stat.st_uid == rustix::process::geteuid().as_raw()
}

/// Takes the exclusive lock on an open file, which ends with the handle; false when somebody has it.
pub(super) fn try_lock(file: &File) -> io::Result<bool> {
    Ok(try_flock(file)?)
}

fn try_flock(fd: impl std::os::fd::AsFd) -> rustix::io::Result<bool> {
    match fs::flock(fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gives a file all its blocks. Mode 0, not KEEP_SIZE and not ftruncate: on ext4 parallel direct writers wait for
/// each other where the size or the blocks change. A file system that can't gets the size alone.
pub(super) fn preallocate(file: &File, size: u64) -> io::Result<()> {
    if size == 0 {
        return Ok(());
    }
    match fs::fallocate(file, FallocateFlags::empty(), 0, size) {
        Ok(()) => {
            did(Did::Allocated { file: file.as_fd(), size });
            Ok(())
        }
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => truncate(file, size),
        Err(error) => Err(error.into()),
    }
}

/// Sets a file's length.
pub(super) fn truncate(file: &File, size: u64) -> io::Result<()> {
    fs::ftruncate(file, size)?;
    did(Did::Truncated { file: file.as_fd(), size });
    Ok(())
}

/// Sets a file's mode.
pub(super) fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    fs::fchmod(file, Mode::from_raw_mode(mode))?;
    did(Did::Mode { of: file.as_fd(), mode });
    Ok(())
}

/// Whether syncfs fails when the kernel couldn't write something: from Linux 5.8 on (syncfs(2)). Before that it's
/// silent.
pub(super) fn syncfs_tells_of_lost_writes() -> bool {
    let release = rustix::system::uname();
    let mut numbers = release.release().to_str().unwrap_or_default().split(['.', '-']);
    let mut number = || numbers.next().and_then(|text| text.parse::<u32>().ok()).unwrap_or_default();
    (number(), number()) >= (5, 8)
}

/// Makes a file's bytes, length and mode durable.
pub(super) fn sync(file: &File) -> io::Result<()> {
    did(Did::Sync { of: file.as_fd() });
    Ok(fs::fsync(file)?)
}

/// Makes a file's bytes durable, and its length as far as they need it.
pub(super) fn sync_data(file: &File) -> io::Result<()> {
    did(Did::SyncData { of: file.as_fd() });
    Ok(fs::fdatasync(file)?)
}

/// Fills `bytes` with what is at `offset`.
pub(super) fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    file.read_exact_at(bytes, offset)
}

/// From now on no more of a file is read than was asked for: what lies behind it may just be being written.
pub(super) fn will_read_at_random(file: &File) {
    // It's a hint.
    let _ = fs::fadvise(file, 0, None, fs::Advice::Random);
}

/// Writes all of `bytes` at `offset`.
pub(super) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    file.write_all_at(bytes, offset)?;
    did(Did::Written { file: file.as_fd(), bytes, offset });
    Ok(())
}

/// Writes some of `bytes` at `offset`, and says how many.
pub(super) fn write_some_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.write_at(bytes, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => {
                if let Ok(Some(bytes)) = done.as_ref().map(|done| bytes.get(..*done)) {
                    did(Did::Written { file: file.as_fd(), bytes, offset });
                }
                return done;
            }
        }
    }
}

/// Reads some bytes at `offset`, and says how many; 0 is the file's end.
pub(super) fn read_some_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        match file.read_at(bytes, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// What an open file is.
pub(super) fn stat_of(file: &File) -> io::Result<Stat> {
    Ok(fs::fstat(file)?)
}

/// How a file's memory and offsets must be aligned for direct I/O, in bytes, or `None` where it can't be had
/// (statx, `STATX_DIOALIGN`, Linux 6.1). An older kernel doesn't say: then a page is taken to do for both.
pub(super) fn direct_alignment(file: &File) -> Option<(usize, usize)> {
    let flags = StatxFlags::DIOALIGN;
    match fs::statx(file.as_fd(), "", AtFlags::EMPTY_PATH, flags) {
        Ok(stat) if StatxFlags::from_bits_retain(stat.stx_mask).contains(flags) => {
            let (memory, offset) = (stat.stx_dio_mem_align as usize, stat.stx_dio_offset_align as usize);
            (memory > 0 && offset > 0).then_some((memory, offset))
        }
        _ => Some((4096, 4096)),
    }
}
