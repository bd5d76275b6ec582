//! Who uses what in the cache, by what containers have mounted.
//!
//! A container that has an entry's directory mounted may open a file of it at any moment, so it counts as using all of
//! the entry, whether it has a file open or not. One that has all of `weights/` or `hub/` mounted may open anything.

use std::collections::BTreeMap;
use std::path::Path;

use super::cache::Cache;
use super::error::OpError;
use super::layout;
use super::names;
use super::ops::{self, Dir};
use crate::containerd::ContainerMounts;
use crate::rt;
use crate::types::EntryId;

/// A file or directory, whatever it's called.
type Inode = (u64, u64);

/// Who uses what, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Declared {
    /// The container that has all of it mounted, if one has.
    all: Option<String>,
    entries: BTreeMap<EntryId, String>,
}

impl Declared {
    /// The container that uses the entry, in words.
    #[must_use]
    pub fn user_of(&self, id: &EntryId) -> Option<String> {
        let own = self.entries.get(id).map(|name| format!("the container {name} mounts it"));
        own.or_else(|| {
            let name = self.all.as_ref()?;
            Some(format!(
                "the container {name} mounts the directory of all weights, instead of that of one entry"
            ))
        })
    }
}

/// Where the places are that containers may have mounted.
#[derive(Debug, Default)]
struct Places {
    whole: Vec<Inode>,
    entries: BTreeMap<Inode, EntryId>,
}

impl Cache {
    /// Which entries these containers use. `host_root` is where the host's `/` is for us; a path that isn't there is
    /// compared as it's written.
    ///
    /// # Errors
    /// When the file system fails.
    pub fn declared(&self, containers: &[ContainerMounts], host_root: &Path) -> Result<Declared, OpError> {
        let places = places(&self.root)?;
        let mut declared = Declared::default();
        let mut inside: Option<BTreeMap<Inode, Vec<EntryId>>> = None;
        let device = self.root.own_stat()?.st_dev;
        for container in containers {
            for host_path in &container.host_paths {
                let seen = rt::host_path(Some(host_root), host_path).unwrap_or_else(|_| host_path.clone());
                match place_of(&places, self.path(), host_path, &seen) {
                    Place::Whole => declared.all = Some(container.container.clone()),
                    Place::Entry(id) => drop(declared.entries.insert(id, container.container.clone())),
                    Place::Elsewhere => {
                        // A part of a volume is mounted by a bind of its own: its parents aren't ours then.
                        let Some(inode) = inode(&seen).filter(|inode| inode.0 == device) else { continue };
                        let inside = match &mut inside {
                            Some(inside) => inside,
                            None => inside.insert(inodes_inside(&self.root)?),
                        };
                        for id in inside.get(&inode).into_iter().flatten() {
                            declared.entries.insert(id.clone(), container.container.clone());
                        }
                    }
                }
            }
        }
        Ok(declared)
    }
}

enum Place {
    Whole,
    Entry(EntryId),
    Elsewhere,
}

/// The innermost directory on the way to a mount that is one of ours.
fn place_of(places: &Places, root: &Path, host_path: &Path, seen: &Path) -> Place {
    for ancestor in seen.ancestors() {
        let Some(inode) = inode(ancestor) else { continue };
        if let Some(id) = places.entries.get(&inode) {
            return Place::Entry(id.clone());
        }
        if places.whole.contains(&inode) {
            // Below it, but in no entry that is there: it may be one that is about to come, or that just went.
            return entry_named(seen.strip_prefix(ancestor).ok()).map_or(Place::Whole, Place::Entry);
        }
    }
    let Ok(below) = host_path.strip_prefix(root) else { return Place::Elsewhere };
    if below.starts_with(layout::HUB) {
        return Place::Whole;
    }
    match below.strip_prefix(layout::WEIGHTS) {
        Ok(below) => entry_named(Some(below)).map_or(Place::Whole, Place::Entry),
        Err(_) => Place::Elsewhere,
    }
}

fn entry_named(below: Option<&Path>) -> Option<EntryId> {
    below?.components().next()?.as_os_str().to_str()?.parse().ok()
}

fn inode(path: &Path) -> Option<Inode> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

fn places(root: &Dir) -> Result<Places, OpError> {
    let mut places = Places::default();
    for name in [layout::WEIGHTS, layout::HUB] {
        if let Some(dir) = root.find(name)? {
            places.whole.push(own_inode(&dir)?);
        }
    }
    for id in names::ids(root).unwrap_or_default() {
        if let Some(entry) = root.find(layout::entry(&id))? {
            places.entries.insert(own_inode(&entry)?, id);
        }
    }
    Ok(places)
}

fn own_inode(dir: &Dir) -> Result<Inode, OpError> {
    let stat = dir.own_stat()?;
    Ok((stat.st_dev, stat.st_ino))
}

/// All that is inside entries' directories. One file may be in several.
fn inodes_inside(root: &Dir) -> Result<BTreeMap<Inode, Vec<EntryId>>, OpError> {
    let mut inside: BTreeMap<Inode, Vec<EntryId>> = BTreeMap::new();
    for id in names::ids(root).unwrap_or_default() {
        let Some(entry) = root.find(layout::entry(&id))? else { continue };
        for found in
            entry.walk()?.iter().filter(|found| ops::is_dir(&found.stat) || ops::is_file(&found.stat))
        {
            inside.entry((found.stat.st_dev, found.stat.st_ino)).or_default().push(id.clone());
        }
    }
    Ok(inside)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::{Cache, RootFsPolicy};
    use super::*;

    fn mounts(path: impl Into<PathBuf>) -> Vec<ContainerMounts> {
        vec![ContainerMounts { container: "pod/main".to_owned(), host_paths: vec![path.into()] }]
    }

    /// A cache with two entries' directories, on a host whose `/` is elsewhere for us.
    fn cache() -> (tempfile::TempDir, std::sync::Arc<Cache>) {
        let host = tempfile::tempdir().unwrap();
        let cache = Cache::open(&host.path().join("mnt/nvme/stoker"), &RootFsPolicy::Allow).unwrap();
        for id in ["llama", "qwen"] {
            let tree = cache.path().join("weights").join(id).join("0123456789ab");
            std::fs::create_dir_all(tree.join("deep")).unwrap();
            std::os::unix::fs::symlink("0123456789ab", tree.parent().unwrap().join("current")).unwrap();
        }
        (host, cache)
    }

    #[test]
    fn whatever_is_mounted_of_an_entry_it_is_all_of_it() {
        let (host, cache) = cache();
        for path in ["", "/current", "/0123456789ab", "/current/deep", "/gone"] {
            let path = format!("/mnt/nvme/stoker/weights/llama{path}");
            let declared = cache.declared(&mounts(&path), host.path()).unwrap();
            let used = declared.user_of(&"llama".parse().unwrap()).unwrap();
            assert!(used.contains("pod/main"), "{path}: {used}");
            assert_eq!(declared.user_of(&"qwen".parse().unwrap()), None, "{path}");
        }
    }

    #[test]
    fn all_of_it_is_every_entry_and_what_is_above_is_none() {
        let (host, cache) = cache();
        let uses = |path: &str| {
            let declared = cache.declared(&mounts(path), host.path()).unwrap();
            ["llama", "qwen"].map(|id| declared.user_of(&id.parse().unwrap()).is_some())
        };
        assert_eq!(uses("/mnt/nvme/stoker/weights"), [true, true]);
        for path in ["/mnt/nvme/stoker", "/mnt", "/", "/nowhere/weights", "/mnt/nvme/stoker/v1/blobs"] {
            assert_eq!(uses(path), [false, false], "{path}: the agent's own mount is no use of it");
        }
        // A host that we don't see: what is written counts.
        let blind =
            cache.declared(&mounts(cache.path().join("weights/qwen/current")), Path::new("/nonexistent"));
        assert!(blind.unwrap().user_of(&"qwen".parse().unwrap()).is_some());
    }

    #[test]
    fn a_part_that_is_bound_elsewhere_is_found_by_what_it_is() {
        let (host, cache) = cache();
        let file = cache.path().join("weights/llama/0123456789ab/deep/model");
        std::fs::write(&file, "bytes").unwrap();
        // A second name is as far from its place as a bind mount of it.
        std::fs::create_dir_all(host.path().join("var/lib/kubelet/pods")).unwrap();
        std::fs::hard_link(&file, host.path().join("var/lib/kubelet/pods/0")).unwrap();
        let declared = cache.declared(&mounts("/var/lib/kubelet/pods/0"), host.path()).unwrap();
        assert!(declared.user_of(&"llama".parse().unwrap()).is_some());
        assert_eq!(declared.user_of(&"qwen".parse().unwrap()), None);
    }
}
