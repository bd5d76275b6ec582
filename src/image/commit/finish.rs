use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Gid, Mode, OFlags, ResolveFlags, Uid};

use crate::image::unpack::ImpliedDir;

/// Gives the directories that a layer uses and doesn't describe the owner and mode that they have in the nearest layer
/// below.
pub(super) fn adopt_from_lowers(
    root: BorrowedFd<'_>,
    implied: &[ImpliedDir],
    lowers: &[OwnedFd],
) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for dir in implied {
        let found = lowers
            .iter()
            .find_map(|lower| rustix::fs::openat2(lower, &dir.0, flags, Mode::empty(), resolve).ok());
        if let Some(lower) = found {
            copy(&lower, &rustix::fs::openat2(root, &dir.0, flags, Mode::empty(), resolve)?)?;
        }
    }
    Ok(())
}

/// Gives the unpacked root the owner and mode that the snapshot's own has.
pub(super) fn copy_root_attributes(real: BorrowedFd<'_>, scratch: BorrowedFd<'_>) -> io::Result<()> {
    copy(real, scratch)
}

fn copy(from: impl std::os::fd::AsFd, to: impl std::os::fd::AsFd) -> io::Result<()> {
    let stat = rustix::fs::fstat(from)?;
    let (user, group) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(&to, Some(user), Some(group))?;
    Ok(rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode))?)
}
