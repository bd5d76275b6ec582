//! Owner, extended attributes, mode and times of one entry, in containerd's order: a change of owner takes setuid bits
//! and capabilities away, so it comes first.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::entry::{Entry, Kind};
use super::number::Moment;
use super::place::Dir;

/// What new files and directories get by themselves, so that what is right already needn't be set.
#[derive(Debug)]
pub(super) struct Defaults {
    uid: u32,
    gid: u32,
    umask: u32,
    /// Some directory has a default ACL, which then rules instead of the umask.
    acl: bool,
}

const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

impl Defaults {
    /// Those of this thread, below `root`.
    pub(super) fn of(root: &Dir) -> Result<Self, Errno> {
        let acl = fs::fgetxattr(root.open_self()?, DEFAULT_ACL, &mut [0u8; 0][..]);
        Ok(Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            umask: umask().unwrap_or(0o7777),
            acl: !matches!(acl, Err(Errno::NODATA | Errno::OPNOTSUPP)),
        })
    }

    /// Whether what `entry` makes in `dir` has the right owner from the start.
    fn owns(&self, dir: &Dir, entry: &Entry) -> bool {
        // In a setgid directory, or on a mount with `grpid`, what is made belongs to the directory's group.
        entry.uid == self.uid && entry.gid == self.gid && dir.group() == self.gid
    }

    /// Whether it has the right mode from the start.
    fn permits(&self, dir: &Dir, entry: &Entry) -> bool {
        let inherits = entry.kind == Kind::Directory && dir.setgid();
        !self.acl && !inherits && entry.mode & (self.umask | 0o7000) == 0
    }

    fn noted(&mut self, entry: &Entry) {
        self.acl |= entry.xattrs.iter().any(|(name, _)| name == DEFAULT_ACL);
    }
}

/// The umask, which can be asked only by setting it, for the whole process at that; so it is read (proc(5), Linux 4.7).
fn umask() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/thread-self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(line.trim(), 8).ok()
}

/// The mode to make something with.
pub(super) fn mode(entry: &Entry) -> Mode {
    Mode::from_raw_mode(entry.mode)
}

/// Modification and access time, as containerd sets them.
pub(super) fn times(accessed: Moment, modified: Moment) -> Timestamps {
    let spec = |moment: Moment| Timespec { tv_sec: moment.seconds, tv_nsec: moment.nanos.into() };
    Timestamps { last_access: spec(accessed), last_modification: spec(modified) }
}

fn owner(entry: &Entry) -> (Option<Uid>, Option<Gid>) {
    let given = |id: u32| id != u32::MAX;
    let uid = given(entry.uid).then(|| Uid::from_raw(entry.uid));
    (uid, given(entry.gid).then(|| Gid::from_raw(entry.gid)))
}

/// Dresses a file that was just made in `dir`.
pub(super) fn dress_file(
    file: BorrowedFd<'_>,
    dir: &Dir,
    entry: &Entry,
    defaults: &Defaults,
) -> Result<(), Errno> {
    let owned = defaults.owns(dir, entry);
    if !owned {
        let (uid, gid) = owner(entry);
        fs::fchown(file, uid, gid)?;
    }
    for (name, value) in &entry.xattrs {
        settle(fs::fsetxattr(file, &name[..], value, XattrFlags::empty()), name, true)?;
    }
    if !defaults.permits(dir, entry) || !entry.xattrs.is_empty() {
        fs::fchmod(file, mode(entry))?;
    }
    fs::futimens(file, &times(entry.accessed, entry.modified))
}

/// Dresses what is at `name` in `dir` and is no new regular file. `new`: it was made just now, for this entry.
pub(super) fn dress(
    dir: &Dir,
    name: &[u8],
    entry: &Entry,
    defaults: &mut Defaults,
    new: bool,
) -> Result<(), Errno> {
    if !(new && defaults.owns(dir, entry)) {
        let (uid, gid) = owner(entry);
        fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    let plain = matches!(entry.kind, Kind::Directory | Kind::HardLink);
    for (key, value) in &entry.xattrs {
        // There is no call that takes a directory and a name before Linux 6.13. The directory's own link leads to it
        // and nowhere else, and the name isn't followed.
        let path = [b"/proc/self/fd/", dir.as_fd().as_raw_fd().to_string().as_bytes(), b"/", name].concat();
        let set = fs::lsetxattr(&path[..], &key[..], value, XattrFlags::empty());
        settle(set, key, plain && takes_user_xattrs(dir, name)?)?;
    }
    defaults.noted(entry);
    if entry.kind != Kind::Symlink && !(new && defaults.permits(dir, entry) && entry.xattrs.is_empty()) {
        chmod(dir, name, mode(entry))?;
    }
    if entry.kind == Kind::Directory {
        // Its time is set at the end, when nothing is made in it any more.
        return Ok(());
    }
    fs::utimensat(dir, name, &times(entry.accessed, entry.modified), AtFlags::SYMLINK_NOFOLLOW)
}

/// Only files and directories take attributes of the namespace `user` (xattr(7)).
fn takes_user_xattrs(dir: &Dir, name: &[u8]) -> Result<bool, Errno> {
    let stat = fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(matches!(FileType::from_raw_mode(stat.st_mode), FileType::RegularFile | FileType::Directory))
}

/// What containerd ignores about an attribute, we do.
fn settle(set: Result<(), Errno>, name: &[u8], takes_user: bool) -> Result<(), Errno> {
    match set {
        Err(Errno::OPNOTSUPP) => Ok(()),
        Err(Errno::PERM) if name.starts_with(b"user.") && !takes_user => Ok(()),
        done => done,
    }
}

/// Sets a mode, but not that of what a link points at. fchmodat(2) knows no flags before Linux 6.6, so it goes by a
/// handle's own link.
fn chmod(dir: &Dir, name: &[u8], mode: Mode) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = fs::openat(dir, name, flags, Mode::empty())?;
    if FileType::from_raw_mode(fs::fstat(&found)?.st_mode) == FileType::Symlink {
        return Ok(());
    }
    fs::chmod(format!("/proc/self/fd/{}", found.as_raw_fd()), mode)
}
