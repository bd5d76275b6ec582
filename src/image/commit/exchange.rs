//! Puts an unpacked tree in the place of a snapshot's own empty directory, for good.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, RenameFlags, ResolveFlags};

use super::access::{is_one_mount, open};
use crate::image::unpack::{ImpliedDir, adopt_from_lowers, copy_root_attributes};

/// Beyond this many directories one sync of the file system is cheaper than one of each.
const SYNCED_ONE_BY_ONE: usize = 16;

/// What goes where.
#[derive(Debug)]
pub(super) struct Exchange {
    /// The directory of all snapshots.
    pub(super) snapshots: PathBuf,
    /// The unpacked tree.
    pub(super) scratch: PathBuf,
    /// The empty directory of the snapshot that is to have it.
    pub(super) real: PathBuf,
    /// The directories of the snapshots below it, the nearest first.
    pub(super) lowers: Vec<PathBuf>,
    /// The directories that the layer uses and doesn't describe.
    pub(super) implied: Vec<ImpliedDir>,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Exchanges the two directories, and returns when that is on the disk. An exchange, because each of the two snapshots
/// has a directory at any moment then, wherever a crash comes.
pub(super) fn exchange(work: &Exchange) -> Result<(), Failure> {
    let (scratch_parent, scratch_name) = split(&work.scratch)?;
    let (real_parent, real_name) = split(&work.real)?;
    let scratch = within(scratch_parent.as_fd(), Path::new(scratch_name))?;
    let real = within(real_parent.as_fd(), Path::new(real_name))?;
    if !is_one_mount(scratch_parent.as_fd(), real_parent.as_fd())? {
        return Err(io::Error::from(rustix::io::Errno::XDEV).into());
    }
    if !work.implied.is_empty() {
        let lowers = work.lowers.iter().map(|dir| open(dir)).collect::<io::Result<Vec<OwnedFd>>>()?;
        adopt_from_lowers(scratch.as_fd(), &work.implied, &lowers)?;
    }
    copy_root_attributes(real.as_fd(), scratch.as_fd())?;
    sync_changed(scratch.as_fd(), &work.implied)?;
    rustix::fs::renameat_with(&scratch_parent, scratch_name, &real_parent, real_name, RenameFlags::EXCHANGE)
        .map_err(io::Error::from)?;
    // containerd syncs nothing here, so the snapshot's own entry must be seen to as well.
    for dir in [&real_parent, &scratch_parent, &open(&work.snapshots)?] {
        rustix::fs::fsync(dir).map_err(io::Error::from)?;
    }
    Ok(())
}

/// Has what was changed after the layer was synced be on the disk.
fn sync_changed(root: BorrowedFd<'_>, implied: &[ImpliedDir]) -> io::Result<()> {
    if implied.len() > SYNCED_ONE_BY_ONE {
        return Ok(rustix::fs::syncfs(root)?);
    }
    for dir in implied {
        rustix::fs::fsync(within(root, &dir.0)?)?;
    }
    Ok(rustix::fs::fsync(root)?)
}

/// Opens a directory of the tree; nothing in the tree leads out of it.
fn within(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)?)
}

/// A directory's parent, opened, and its name in there.
fn split(path: &Path) -> io::Result<(OwnedFd, &OsStr)> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok((open(parent)?, name)),
        _ => Err(io::Error::other(format!("{} is no snapshot's directory", path.display()))),
    }
}
