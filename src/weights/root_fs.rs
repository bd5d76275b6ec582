use std::path::{Path, PathBuf};

use super::error::CacheError;
use super::ops::Dir;

/// Whether the cache may lie on the node's root file system, which must not fill up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootFsPolicy {
    /// It may.
    Allow,
    /// It may not. The path is what to compare with: `/`, or in a container where the host's `/` is mounted.
    Refuse(PathBuf),
}

impl RootFsPolicy {
    /// Compares the cache's directory with the root file system.
    ///
    /// Equal device numbers are one file system. btrfs gives each subvolume its own, so there the mounts' sources
    /// are compared too. A mount point that lost its mount shows as the file system below it, which is the accident
    /// that this is for.
    pub(super) fn check(&self, cache: &Dir) -> Result<(), CacheError> {
        let Self::Refuse(root) = self else { return Ok(()) };
        let root = Dir::open_root(root)?;
        let same_device = root.own_stat()?.st_dev == cache.own_stat()?.st_dev;
        if same_device || one_btrfs(&root, cache) {
            return Err(CacheError::OnRootFs { root: cache.path().to_owned() });
        }
        Ok(())
    }
}

/// Whether the cache's directory, which need not be there yet, is on the file system of one of these places.
#[must_use]
pub fn shares_disk(cache: &Path, places: &[PathBuf]) -> bool {
    let Some(there) = cache.ancestors().find_map(|dir| Dir::open_root(dir).ok()) else { return false };
    let device = |dir: &Dir| dir.own_stat().ok().map(|stat| stat.st_dev);
    let others = places.iter().filter_map(|place| Dir::open_root(place).ok());
    others.into_iter().any(|other| device(&other) == device(&there) || one_btrfs(&other, &there))
}

fn one_btrfs(a: &Dir, b: &Dir) -> bool {
    let (Some(a), Some(b)) = (a.mount_id(), b.mount_id()) else { return false };
    let Ok(mounts) = std::fs::read_to_string(Path::new("/proc/self/mountinfo")) else { return false };
    let source = |id| btrfs_source(&mounts, id);
    source(a).is_some_and(|a| Some(a) == source(b))
}

/// The device of the mount with that id, if it's a btrfs (proc_pid_mountinfo(5): the id is the first field, and
/// after a lone `-` come type and source).
fn btrfs_source(mountinfo: &str, id: u64) -> Option<&str> {
    let line = mountinfo
        .lines()
        .find(|line| line.split(' ').next().and_then(|field| field.parse().ok()) == Some(id))?;
    let (_, after) = line.split_once(" - ")?;
    let mut fields = after.split(' ');
    (fields.next() == Some("btrfs")).then(|| fields.next()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
29 1 0:25 /root / rw,relatime shared:1 - btrfs /dev/nvme0n1p2 rw,subvol=/root
30 29 0:25 /cache /var/cache rw shared:2 master:3 - btrfs /dev/nvme0n1p2 rw,subvol=/cache
31 29 259:4 / /mnt rw - ext4 /dev/nvme1n1 rw";

    #[test]
    fn subvolumes_of_one_btrfs_have_one_source() {
        assert_eq!(btrfs_source(MOUNTS, 29), Some("/dev/nvme0n1p2"));
        assert_eq!(btrfs_source(MOUNTS, 30), btrfs_source(MOUNTS, 29));
        assert_eq!(btrfs_source(MOUNTS, 31), None);
        assert_eq!(btrfs_source(MOUNTS, 9), None);
    }

    #[test]
    fn what_is_on_the_root_file_system_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Dir::open_root(dir.path()).unwrap();
        let refused = RootFsPolicy::Refuse(dir.path().to_owned()).check(&cache).unwrap_err();
        assert!(refused.to_string().contains("--allow-root-fs"), "{refused}");
        RootFsPolicy::Refuse("/proc".into()).check(&cache).unwrap();
        RootFsPolicy::Allow.check(&cache).unwrap();
    }
}
