//! Whether this process can do in the snapshotter's directory what unpacking needs.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxFlags, XattrFlags};

use super::CommitError;

/// Named so that an unpacked layer never has it.
const PROBE: &str = ".stoker-probe";

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Looks whether the snapshotter's directory is there and writable.
pub(in crate::image) async fn check_root(root: &Path) -> Result<(), CommitError> {
    let path = root.to_path_buf();
    blocking(root, move || {
        let snapshots = open(&path.join("snapshots"))?;
        if rustix::fs::fstatvfs(&snapshots)?.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
            return Err(rustix::io::Errno::ROFS.into());
        }
        Ok(())
    })
    .await
}

/// Looks whether `dir`, the directory of a new snapshot, is the same that containerd means, can be exchanged with others
/// of the snapshotter, and takes what layers hold.
pub(super) async fn check_scratch(root: &Path, dir: &Path) -> Result<(), CommitError> {
    let (path, dir) = (root.to_path_buf(), dir.to_path_buf());
    blocking(root, move || {
        let snapshots = open(&path.join("snapshots"))?;
        let scratch = open(&dir)?;
        if !is_one_mount(snapshots.as_fd(), scratch.as_fd())? {
            return Err(rustix::io::Errno::XDEV.into());
        }
        if std::fs::read_dir(&dir)?.next().is_some() {
            return Err(io::Error::other(format!("the new directory {} isn't empty", dir.display())));
        }
        probe(scratch.as_fd())
    })
    .await
}

/// Whether two directories can be exchanged: a rename doesn't cross mounts, even of one file system.
pub(super) fn is_one_mount(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<bool> {
    let place = |fd| {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
        let stat = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, wanted)?;
        // Before Linux 5.8 the mount isn't told.
        io::Result::Ok((stat.stx_dev_major, stat.stx_dev_minor, stat.stx_mnt_id))
    };
    Ok(place(one)? == place(other)?)
}

pub(super) fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, DIRECTORY, Mode::empty())?)
}

/// Makes and removes what a layer of overlayfs is made of and what isn't everybody's to make: foreign owners, whiteouts,
/// opaque directories.
fn probe(scratch: BorrowedFd<'_>) -> io::Result<()> {
    rustix::fs::mkdirat(scratch, PROBE, Mode::RWXU)?;
    let inside = rustix::fs::openat(scratch, PROBE, DIRECTORY, Mode::empty())?;
    let (user, group) = (rustix::fs::Uid::from_raw(1), rustix::fs::Gid::from_raw(1));
    let made = rustix::fs::mknodat(&inside, "whiteout", FileType::CharacterDevice, Mode::empty(), 0)
        .and_then(|()| rustix::fs::fsetxattr(&inside, "trusted.overlay.opaque", b"y", XattrFlags::empty()))
        .and_then(|()| rustix::fs::fchown(&inside, Some(user), Some(group)));
    match rustix::fs::unlinkat(&inside, "whiteout", AtFlags::empty()) {
        Err(rustix::io::Errno::NOENT) => {}
        removed => removed?,
    }
    rustix::fs::unlinkat(scratch, PROBE, AtFlags::REMOVEDIR)?;
    Ok(made?)
}

/// Does file work off the runtime's threads.
async fn blocking(
    root: &Path,
    work: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> Result<(), CommitError> {
    let done = tokio::task::spawn_blocking(work).await.unwrap_or_else(|joined| Err(io::Error::other(joined)));
    done.map_err(|cause| CommitError::NoAccess { root: root.to_path_buf(), cause })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(checked: Result<(), CommitError>) -> io::Error {
        match checked {
            Err(CommitError::NoAccess { cause, .. }) => cause,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_directory_that_is_not_the_snapshotters_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        let checked = cause(check_root(root.path()).await);
        assert_eq!(checked.kind(), io::ErrorKind::NotFound, "an empty mount point");
        std::fs::create_dir(root.path().join("snapshots")).unwrap();
        check_root(root.path()).await.unwrap();

        let dir = root.path().join("snapshots/7/fs");
        assert_eq!(cause(check_scratch(root.path(), &dir).await).kind(), io::ErrorKind::NotFound);
        std::fs::create_dir_all(&dir).unwrap();
        check_scratch(root.path(), &dir).await.unwrap();
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0, "nothing is left of the probe");
        std::fs::write(dir.join("file"), "").unwrap();
        cause(check_scratch(root.path(), &dir).await);
        let link = root.path().join("snapshots/8");
        std::os::unix::fs::symlink("/", &link).unwrap();
        cause(check_scratch(root.path(), &link).await);
    }

    #[tokio::test]
    async fn a_directory_on_another_mount_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("snapshots")).unwrap();
        // /dev/shm is a tmpfs of its own.
        let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
        let error = cause(check_scratch(root.path(), elsewhere.path()).await);
        assert_eq!(error.kind(), io::ErrorKind::CrossesDevices);
    }
}
