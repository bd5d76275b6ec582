//! What a layer's directory takes over from others, just before it's committed.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{self, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::resolve::{open, resolve, split};
use super::trouble::Trouble;
use super::{ImpliedDir, UnpackError};

/// What the kernel lets one attribute's value, and the list of their names, be (xattr(7)).
const XATTR_LIMIT: usize = 64 << 10;

/// For each directory of `implied`, in order, copies owner, mode, times and extended attributes from the nearest of
/// `lowers` (the `fs` directories of the layers below, nearest first) that has it, as containerd's sequential unpack
/// does (`mkparent` of its `archive/tar.go`): links are followed within that layer, something that isn't a directory
/// ends the search, and so does something else than a directory on the way, with which containerd fails. An opaque
/// directory doesn't end it: containerd doesn't look. `trusted.*` stays behind. One that no layer has gets the group of
/// a setgid directory of `implied` that it lies in, as it would have if that had been setgid when it was made.
///
/// # Errors
/// When the file system fails, or a directory of `implied` isn't there.
pub(crate) fn adopt_from_lowers(
    root: BorrowedFd<'_>,
    implied: &[ImpliedDir],
    lowers: &[OwnedFd],
) -> Result<(), UnpackError> {
    let mut setgid = HashMap::new();
    for ImpliedDir(path) in implied {
        let path = path.as_os_str().as_bytes();
        let group = setgid.get(split(path).0).copied();
        let group = adopt(root, path, lowers, group).map_err(|trouble| trouble.at(path))?;
        if let Some(group) = group {
            setgid.insert(path, group);
        }
    }
    Ok(())
}

/// Gives the group that what is made in it gets, where it is setgid; `group` is that of the directory that it's in.
fn adopt(
    root: BorrowedFd<'_>,
    path: &[u8],
    lowers: &[OwnedFd],
    group: Option<u32>,
) -> Result<Option<u32>, Trouble> {
    let open_own = || open(root, path, OFlags::RDONLY | OFlags::DIRECTORY);
    for lower in lowers {
        match find(lower.as_fd(), path)? {
            Found::Nothing => {}
            Found::SomethingElse => break,
            Found::Dir(from, stat) => {
                copy(&from, &stat, &open_own()?)?;
                let setgid = Mode::from_raw_mode(stat.st_mode).contains(Mode::SGID);
                return Ok(setgid.then_some(stat.st_gid));
            }
        }
    }
    if let Some(group) = group {
        fs::fchown(open_own()?, None, Some(Gid::from_raw(group)))?;
    }
    Ok(None)
}

enum Found {
    Nothing,
    SomethingElse,
    Dir(OwnedFd, Stat),
}

fn find(lower: BorrowedFd<'_>, path: &[u8]) -> Result<Found, Trouble> {
    let resolved = match resolve(lower, path) {
        Err(Trouble::Write(error)) if error.raw_os_error() == Some(Errno::NOTDIR.raw_os_error()) => {
            return Ok(Found::SomethingElse);
        }
        resolved => resolved?,
    };
    match open(lower, &resolved, OFlags::RDONLY | OFlags::DIRECTORY) {
        Ok(dir) => {
            let stat = fs::fstat(&dir)?;
            Ok(Found::Dir(dir, stat))
        }
        Err(Errno::NOENT) => Ok(Found::Nothing),
        Err(Errno::NOTDIR) => Ok(Found::SomethingElse),
        Err(error) => Err(error.into()),
    }
}

fn copy(from: &OwnedFd, stat: &Stat, to: &OwnedFd) -> Result<(), Errno> {
    own(stat, to)?;
    let spec = |seconds, nanos| Timespec { tv_sec: seconds, tv_nsec: nanos };
    fs::futimens(
        to,
        &Timestamps {
            last_access: spec(stat.st_atime, stat.st_atime_nsec as _),
            last_modification: spec(stat.st_mtime, stat.st_mtime_nsec as _),
        },
    )?;
    let mut names = vec![0u8; XATTR_LIMIT];
    let len = match fs::flistxattr(from, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        len => len?,
    };
    let mut value = vec![0u8; if len == 0 { 0 } else { XATTR_LIMIT }];
    for name in names[..len].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"trusted.") {
            continue;
        }
        let len = match fs::fgetxattr(from, name, &mut value[..]) {
            Err(Errno::OPNOTSUPP | Errno::NODATA) => continue,
            len => len?,
        };
        match fs::fsetxattr(to, name, &value[..len], XattrFlags::CREATE) {
            Err(Errno::OPNOTSUPP | Errno::NODATA | Errno::EXIST) => {}
            done => done?,
        }
    }
    Ok(())
}

fn own(stat: &Stat, to: impl AsFd) -> Result<(), Errno> {
    fs::fchown(&to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fs::fchmod(&to, Mode::from_raw_mode(stat.st_mode & 0o7777))
}

/// Gives `scratch` the owner and mode of `real`: a new snapshot's own directory keeps what containerd gave it, since
/// a layer can't describe its root.
///
/// # Errors
/// When the file system fails.
pub(crate) fn copy_root_attributes(real: BorrowedFd<'_>, scratch: BorrowedFd<'_>) -> Result<(), UnpackError> {
    let copy = || {
        let stat = fs::fstat(real)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Err(Errno::NOTDIR);
        }
        // `scratch` may be a handle for paths only.
        own(&stat, open(scratch, b"", OFlags::RDONLY | OFlags::DIRECTORY)?)
    };
    copy().map_err(|errno| Trouble::from(errno).at(b"/"))
}
