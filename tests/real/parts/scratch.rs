//! A directory of one's own, gone when dropped; also when its owner was killed, at the next run's start.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mount::UnmountFlags;

use super::cgroup::{all_cgroups, cgroups_of, remove_cgroup, remove_cgroups};

/// An own directory. Its name says who made it (pid and the process's start), so that the next run can tell
/// that the owner is dead and sweep it.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes a directory whose name ends in `name`.
    pub(crate) fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let own = std::process::id();
        let born = start_time(own).expect("/proc tells when this process started");
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = base().join(format!("{own}-{born}-{next}-{name}"));
        std::fs::create_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { path }
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A path below it; nothing is made.
    pub(crate) fn join(&self, below: impl AsRef<Path>) -> PathBuf {
        self.path.join(below)
    }

    /// A directory below it, made with its parents.
    pub(crate) fn dir(&self, below: impl AsRef<Path>) -> PathBuf {
        let path = self.join(below);
        std::fs::create_dir_all(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// A file below it with these bytes.
    pub(crate) fn file(&self, below: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(below);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).unwrap_or_else(|error| panic!("{}: {error}", parent.display()));
        }
        std::fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let removed = remove(&self.path);
        if let (Err(error), false) = (removed, std::thread::panicking()) {
            panic!("{} can't be removed: {error}", self.path.display());
        }
    }
}

/// The directory that holds all scratch directories. Overlayfs can't have its upper directory on overlayfs, and
/// that is what a container's own `/tmp` is, so the first place that isn't overlayfs is taken.
pub(super) fn base() -> &'static Path {
    static BASE: OnceLock<PathBuf> = OnceLock::new();
    BASE.get_or_init(|| {
        let places = [std::env::temp_dir(), PathBuf::from("/var/tmp"), super::parts_dir()];
        let place = places.iter().find(|place| place.is_dir() && !is_overlay(place)).unwrap_or_else(|| {
            panic!("overlayfs everywhere: set TMPDIR to a directory on ext4, xfs or tmpfs (tried {places:?})")
        });
        let base = place.join("stoker-real");
        std::fs::create_dir_all(&base).unwrap_or_else(|error| panic!("{}: {error}", base.display()));
        sweep(&base);
        base
    })
}

/// Sweeps what dead owners left, as the start of a run does.
pub(crate) fn sweep_now() {
    sweep(base());
}

fn is_overlay(path: &Path) -> bool {
    const OVERLAYFS_SUPER_MAGIC: i64 = 0x794c_7630;
    rustix::fs::statfs(path).is_ok_and(|fs| fs.f_type == OVERLAYFS_SUPER_MAGIC)
}

/// Removes what dead owners left. Another run may sweep at the same time, so nothing here is an error.
fn sweep(base: &Path) {
    for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some((pid, born)) = owner(&name.to_string_lossy()) else { continue };
        if start_time(pid) != Some(born) {
            let _ = remove(&entry.path());
        }
    }
    // Also of directories that are gone already.
    for (name, cgroup) in all_cgroups() {
        if owner(&name).is_some_and(|(pid, born)| start_time(pid) != Some(born)) {
            remove_cgroup(&cgroup);
        }
    }
}

fn owner(name: &str) -> Option<(u32, u64)> {
    let mut words = name.split('-');
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

/// When a process started, in clock ticks since the boot; `None` when there's no such process.
pub(super) fn start_time(pid: u32) -> Option<u64> {
    stat(pid)?.split_whitespace().nth(19)?.parse().ok()
}

/// The parent of a process.
pub(super) fn parent(pid: u32) -> Option<u32> {
    stat(pid)?.split_whitespace().nth(1)?.parse().ok()
}

/// `/proc/PID/stat` from its third field on: the second is a name that may hold anything.
fn stat(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.to_owned())
}

fn remove(path: &Path) -> std::io::Result<()> {
    remove_cgroups(|| cgroups_of(path));
    for mount in mounts_below(path) {
        let _ = rustix::mount::unmount(&mount, UnmountFlags::DETACH);
    }
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// The mount points below `path`, the innermost first.
pub(super) fn mounts_below(path: &Path) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut mounts: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .filter(|mount| mount.starts_with(path))
        .collect();
    mounts.reverse();
    mounts
}

#[cfg(test)]
mod tests {
    use super::{Scratch, owner, start_time, sweep};

    #[test]
    fn a_name_tells_its_owner() {
        assert_eq!(owner("12-345-0-registry"), Some((12, 345)));
        assert_eq!(owner("ports"), None);
    }

    #[test]
    fn a_dead_owners_directory_is_swept_and_a_living_ones_stays() {
        let place = Scratch::new("sweep");
        let own = std::process::id();
        let born = start_time(own).expect("own start");
        let dead = place.dir(format!("{own}-{}-0-x", born + 1));
        let living = place.dir(format!("{own}-{born}-0-x"));
        let other = place.dir("ports");
        sweep(place.path());
        assert!(!dead.exists(), "a process with this pid and that start isn't there");
        assert!(living.exists() && other.exists());
    }
}
