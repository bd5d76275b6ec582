//! Opens what is below a directory, and nothing else.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{self, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::source::SourceError;

/// The directory that nothing leads out of.
#[derive(Debug)]
pub(super) struct Root {
    fd: OwnedFd,
    path: PathBuf,
}

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File(Seen),
    /// Neither; with its name for people.
    Special(&'static str),
}

/// What tells one version of a file from another: every write changes the times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) size: u64,
    inode: u64,
    /// Seconds and nanoseconds of the last write, and of the last change to anything.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Seen {
    /// Its name. The device isn't in it: it's another one after each mount of a share.
    pub(super) fn version(&self) -> String {
        let Self { inode, modified, changed, .. } = self;
        format!("{inode}-{}.{:09}-{}.{:09}", modified.0, modified.1, changed.0, changed.1)
    }

    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            inode: stat.st_ino,
            modified: (stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or_default()),
            changed: (stat.st_ctime, i64::try_from(stat.st_ctime_nsec).unwrap_or_default()),
        }
    }
}

impl Kind {
    pub(super) fn of(stat: &Stat) -> Self {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Self::File(Seen::of(stat)),
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Special("a link"),
            FileType::Fifo => Self::Special("a pipe"),
            FileType::Socket => Self::Special("a socket"),
            FileType::CharacterDevice | FileType::BlockDevice => Self::Special("a device"),
            FileType::Unknown => Self::Special("no file"),
        }
    }
}

impl Root {
    /// Opens it, links included: its owner places it.
    pub(super) fn open(path: &Path) -> Result<Self, SourceError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let failed = |cause: Errno| failed("open --file-root", path.display().to_string(), cause);
        Ok(Self { fd: fs::open(path, flags, Mode::empty()).map_err(failed)?, path: path.to_owned() })
    }

    /// A path below it for people.
    pub(super) fn shown(&self, below: &Path) -> String {
        self.path.join(below).display().to_string()
    }

    /// What is there. Links are followed as long as they stay below the root.
    pub(super) fn look(&self, below: &Path) -> Result<Kind, SourceError> {
        let fd = self.resolve(below, OFlags::PATH).map_err(|cause| self.failed("find", below, cause))?;
        let stat = fs::fstat(&fd).map_err(|cause| self.failed("stat", below, cause))?;
        Ok(Kind::of(&stat))
    }

    /// A directory, to list it.
    pub(super) fn directory(&self, below: &Path) -> Result<OwnedFd, SourceError> {
        let opened = self.resolve(below, OFlags::RDONLY | OFlags::DIRECTORY);
        opened.map_err(|cause| self.failed("list", below, cause))
    }

    /// A regular file, to read it, as it is now.
    pub(super) fn file(&self, below: &Path) -> Result<(File, Kind), SourceError> {
        // Whoever puts a pipe there in the last moment doesn't make us wait for its other end.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = self.resolve(below, flags).map_err(|cause| self.failed("open", below, cause))?;
        let stat = fs::fstat(&fd).map_err(|cause| self.failed("stat", below, cause))?;
        Ok((File::from(fd), Kind::of(&stat)))
    }

    fn resolve(&self, below: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
        // Below the root of everything an absolute link leads out of nothing.
        let bounds = match self.path.parent() {
            Some(_) => ResolveFlags::BENEATH,
            None => ResolveFlags::IN_ROOT,
        };
        let bounds = bounds | ResolveFlags::NO_MAGICLINKS;
        loop {
            match fs::openat2(&self.fd, below, flags | OFlags::CLOEXEC, Mode::empty(), bounds) {
                // A rename elsewhere in the system raced with `..`, or a signal came (openat2(2)).
                Err(Errno::AGAIN | Errno::INTR) => {}
                done => return done,
            }
        }
    }

    pub(super) fn failed(&self, doing: &'static str, below: &Path, cause: Errno) -> SourceError {
        failed(doing, self.shown(below), cause)
    }
}

fn failed(doing: &'static str, path: String, cause: Errno) -> SourceError {
    SourceError::File { doing, path, cause: cause.into() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::types::ErrorKind;

    #[test]
    fn no_path_and_no_link_leads_out() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join("root/sub")).unwrap();
        std::fs::write(home.path().join("secret"), "x").unwrap();
        std::fs::write(home.path().join("root/file"), "x").unwrap();
        let inside = home.path().join("root");
        symlink("../secret", inside.join("relative")).unwrap();
        symlink(home.path().join("secret"), inside.join("absolute")).unwrap();
        symlink("/", inside.join("everything")).unwrap();
        symlink("/proc/self/root", inside.join("magic")).unwrap();
        symlink("../file", inside.join("sub/good")).unwrap();
        symlink("circle", inside.join("circle")).unwrap();
        let root = Root::open(&inside).unwrap();
        for path in [
            "../secret",
            "relative",
            "absolute",
            "everything/etc/passwd",
            "magic/etc/passwd",
            "circle",
            "/etc/passwd",
        ] {
            let error = root.look(Path::new(path)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{path}: {error}");
            assert!(root.file(Path::new(path)).is_err(), "{path}");
        }
        assert!(matches!(root.look(Path::new("sub/good")), Ok(Kind::File(_))));
        assert!(matches!(root.look(Path::new("")), Ok(Kind::Directory)));
        assert_eq!(root.look(Path::new("nothing")).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn every_write_makes_another_version() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("file");
        let seen = || match Root::open(home.path()).unwrap().look(Path::new("file")).unwrap() {
            Kind::File(seen) => seen,
            other => panic!("{other:?}"),
        };
        std::fs::write(&path, "one").unwrap();
        let first = seen();
        assert_eq!((first, first.version()), (seen(), seen().version()));
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        assert_ne!(first.version(), seen().version());
        std::fs::write(home.path().join("other"), "two").unwrap();
        std::fs::rename(home.path().join("other"), &path).unwrap();
        assert_ne!(first.version(), seen().version());
    }
}
