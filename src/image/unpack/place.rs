use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::implied::Implied;
use super::resolve::{BENEATH, clean, open_dir, resolve, split};
use super::trouble::Trouble;

/// So many directories are held open. Streams mostly go depth first, so few would do.
const HELD: usize = 64;

/// A directory of the layer, held open. Everything in it is reached by one name at a time.
#[derive(Debug)]
pub(super) struct Dir {
    fd: OwnedFd,
    /// From the layer's root, through no link.
    path: Vec<u8>,
    /// What is made in it belongs to this group, where the directory is setgid or the mount says `grpid`.
    group: u32,
    setgid: bool,
}

/// The layer's root, and which of its directories lies where.
#[derive(Debug)]
pub(super) struct Place {
    root: Arc<Dir>,
    /// By the path that the stream uses, the most recently used first.
    held: Vec<(Vec<u8>, Arc<Dir>)>,
    /// So deep may it be.
    depth: usize,
}

impl Dir {
    fn of(fd: OwnedFd, path: Vec<u8>) -> Result<Self, Errno> {
        let stat = fs::fstat(&fd)?;
        let setgid = Mode::from_raw_mode(stat.st_mode).contains(Mode::SGID);
        Ok(Self { fd, path, group: stat.st_gid, setgid })
    }

    /// The path of something in it, from the layer's root.
    pub(super) fn path_of(&self, name: &[u8]) -> Vec<u8> {
        if self.path.is_empty() { name.to_vec() } else { [&self.path[..], b"/", name].concat() }
    }

    pub(super) fn group(&self) -> u32 {
        self.group
    }

    pub(super) fn setgid(&self) -> bool {
        self.setgid
    }

    /// A handle for what needs more than a path.
    pub(super) fn open_self(&self) -> Result<OwnedFd, Errno> {
        fs::openat(&self.fd, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Place {
    pub(super) fn new(root: OwnedFd, depth: usize) -> Result<Self, io::Error> {
        fs::openat2(&root, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), BENEATH).map_err(|error| {
            let advice = match error {
                Errno::NOSYS => "this kernel has no openat2; Linux 5.6 or newer is needed",
                Errno::PERM => "a seccomp profile refuses openat2; have it allow that call",
                error => return error.into(),
            };
            io::Error::new(io::ErrorKind::Unsupported, advice)
        })?;
        Ok(Self { root: Arc::new(Dir::of(root, Vec::new())?), held: Vec::new(), depth })
    }

    pub(super) fn root(&self) -> &Arc<Dir> {
        &self.root
    }

    /// The directory that `path`, a clean one, leads to. What is missing is made, and noted in `implied`.
    pub(super) fn make(&mut self, path: &[u8], implied: &mut Implied) -> Result<Arc<Dir>, Trouble> {
        match self.find(path) {
            Err(Errno::NOENT | Errno::LOOP) => {}
            done => return Ok(done?),
        }
        let resolved = resolve(&self.root, path)?;
        // What lies behind links may be deeper than its name.
        deep(&resolved, self.depth)?;
        let dir = match self.find(&resolved) {
            Err(Errno::NOENT) => self.make_resolved(&resolved, implied)?,
            done => done?,
        };
        if resolved != path {
            self.hold(path, &dir);
        }
        Ok(dir)
    }

    /// The directory that `path` leads to, links followed; it must be there.
    pub(super) fn existing(&mut self, path: &[u8]) -> Result<Arc<Dir>, Trouble> {
        let plain = clean(path);
        // Taken back by name, `..` would be right only where no link stands before it.
        if !path.split(|&byte| byte == b'/').any(|name| name == b"..") {
            match self.find(&plain) {
                Err(Errno::LOOP) => {}
                done => return Ok(done?),
            }
        }
        let resolved = resolve(&self.root, path)?;
        Ok(self.find(&resolved)?)
    }

    /// Forgets what it knows of where paths lead, since something may have been replaced by a link.
    pub(super) fn forget(&mut self) {
        self.held.clear();
    }

    fn find(&mut self, path: &[u8]) -> Result<Arc<Dir>, Errno> {
        if path.is_empty() {
            return Ok(self.root.clone());
        }
        if let Some(at) = self.held.iter().position(|(held, _)| held == path) {
            self.held[..=at].rotate_right(1);
            return Ok(self.held[0].1.clone());
        }
        let dir = Arc::new(Dir::of(open_dir(&self.root, path)?, path.to_vec())?);
        self.hold(path, &dir);
        Ok(dir)
    }

    fn hold(&mut self, path: &[u8], dir: &Arc<Dir>) {
        self.held.truncate(HELD - 1);
        self.held.insert(0, (path.to_vec(), dir.clone()));
    }

    /// Makes directories as containerd makes those that a layer doesn't describe: root's, 0755 whatever the umask.
    fn make_resolved(&mut self, path: &[u8], implied: &mut Implied) -> Result<Arc<Dir>, Trouble> {
        let mut parent = self.root.clone();
        for end in ends(path) {
            let (so_far, name) = (&path[..end], split(&path[..end]).1);
            parent = match self.find(so_far) {
                Err(Errno::NOENT) => {
                    fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
                    implied.add(so_far)?;
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let made = fs::openat(&parent, name, flags, Mode::empty())?;
                    // Past the umask, a setgid parent and a default ACL.
                    fs::fchmod(made, Mode::from_raw_mode(0o755))?;
                    self.find(so_far)?
                }
                done => done?,
            };
        }
        Ok(parent)
    }
}

/// An error where a clean path has more than `limit` parts.
pub(super) fn deep(path: &[u8], limit: usize) -> Result<(), Trouble> {
    let depth = path.split(|&byte| byte == b'/').count();
    if depth <= limit {
        return Ok(());
    }
    Err(Trouble::OverLimit(format!("a path of {depth} parts, and {limit} are allowed")))
}

/// Where each component of a clean path ends.
fn ends(path: &[u8]) -> impl Iterator<Item = usize> + '_ {
    (1..=path.len()).filter(|&end| path.get(end).is_none_or(|&byte| byte == b'/'))
}

/// Takes `name` away from `dir` and, if it is a directory, all below it; follows no link. Nothing there is fine.
pub(super) fn remove(dir: &Dir, name: &[u8]) -> Result<(), Errno> {
    match fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        Err(Errno::NOENT) => return Ok(()),
        done => return done,
    }
    // A directory is removed once all in it is; each is looked up anew, so that depth costs no handles.
    let mut todo = vec![name.to_vec()];
    while let Some(path) = todo.last() {
        match unlink(dir, path, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                let path = path.clone();
                empty(dir, &path, &mut todo)?;
            }
            Err(error) => return Err(error),
            Ok(()) => drop(todo.pop()),
        }
    }
    Ok(())
}

/// Takes all but directories out of one; those go on `todo`.
fn empty(dir: &Dir, path: &[u8], todo: &mut Vec<Vec<u8>>) -> Result<(), Errno> {
    let open = super::resolve::open(dir, path, OFlags::RDONLY | OFlags::DIRECTORY)?;
    for entry in fs::Dir::read_from(&open)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        match fs::unlinkat(&open, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => todo.push([path, b"/", name].concat()),
            done => done?,
        }
    }
    Ok(())
}

fn unlink(dir: &Dir, path: &[u8], flags: AtFlags) -> Result<(), Errno> {
    let (parent, name) = split(path);
    fs::unlinkat(open_dir(dir, parent)?, name, flags)
}
