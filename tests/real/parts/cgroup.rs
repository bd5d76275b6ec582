//! The cgroups of what is run on behalf of scratch directories, with cgroup v1 and v2.

use std::path::{Path, PathBuf};
use std::time::Duration;

const ROOT: &str = "/sys/fs/cgroup";
const PREFIX: &str = "stoker-real-";

/// How long a removal waits for processes that are being ended.
const WAIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);

/// The cgroup for whatever is run on behalf of a scratch directory, relative to the root of each hierarchy.
pub(super) fn cgroup_of(scratch: &Path) -> String {
    format!("{PREFIX}{}", scratch.file_name().unwrap_or_default().to_string_lossy())
}

/// That cgroup's directories: one with cgroup v2, one in each hierarchy with v1.
pub(super) fn cgroups_of(scratch: &Path) -> Vec<PathBuf> {
    let name = cgroup_of(scratch);
    roots().into_iter().map(|root| root.join(&name)).filter(|cgroup| cgroup.is_dir()).collect()
}

/// The directories of all such cgroups, each with its scratch directory's name.
pub(super) fn all_cgroups() -> Vec<(String, PathBuf)> {
    let inside = roots().into_iter().flat_map(|root| directories(&root));
    let named = |cgroup: PathBuf| {
        let name = cgroup.file_name()?.to_str()?.strip_prefix(PREFIX)?.to_owned();
        Some((name, cgroup))
    };
    inside.filter_map(named).collect()
}

/// Makes a cgroup that kubelet takes as its root: in each hierarchy with v1, with all controllers with v2.
pub(super) fn make_cgroup(name: &str) {
    let root = Path::new(ROOT);
    if let Ok(controllers) = std::fs::read_to_string(root.join("cgroup.controllers")) {
        // One that can't be had is for kubelet to miss.
        for controller in controllers.split_whitespace() {
            let _ = std::fs::write(root.join("cgroup.subtree_control"), format!("+{controller}"));
        }
        std::fs::create_dir(root.join(name)).unwrap_or_else(|error| panic!("cgroup {name}: {error}"));
        return;
    }
    for hierarchy in directories(root) {
        let cgroup = hierarchy.join(name);
        // A name may be a link to another hierarchy's directory.
        if !cgroup.exists() {
            std::fs::create_dir(&cgroup).unwrap_or_else(|error| panic!("{}: {error}", cgroup.display()));
            // No process may enter a new cgroup of the hierarchy that has these before it has both.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(all) = std::fs::read(hierarchy.join(file)) {
                    let _ = std::fs::write(cgroup.join(file), all);
                }
            }
        }
    }
}

/// The processes in a cgroup and in those below it.
pub(super) fn processes_in(cgroup: &Path) -> Vec<u32> {
    let inside = std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let below = directories(cgroup).into_iter().flat_map(|below| processes_in(&below));
    inside.lines().filter_map(|pid| pid.parse().ok()).chain(below).collect()
}

/// Removes the cgroups that `find` gives. Processes that have been killed leave theirs a little later, so this is
/// tried until they are gone, but not for long.
pub(super) fn remove_cgroups(find: impl Fn() -> Vec<PathBuf>) {
    let tries = WAIT.as_millis() / POLL.as_millis();
    for _ in 0..tries {
        for cgroup in find() {
            remove_cgroup(&cgroup);
        }
        if find().is_empty() {
            return;
        }
        pause();
    }
}

#[allow(clippy::disallowed_methods, reason = "a drop can't await, and no clock of a test is asked here")]
fn pause() {
    std::thread::sleep(POLL);
}

/// Removes a cgroup and those below it; one with a process in it stays.
pub(super) fn remove_cgroup(cgroup: &Path) {
    for below in directories(cgroup) {
        remove_cgroup(&below);
    }
    let _ = std::fs::remove_dir(cgroup);
}

/// Where cgroups may be: the root itself with v2, a directory there for each hierarchy with v1.
fn roots() -> Vec<PathBuf> {
    let root = PathBuf::from(ROOT);
    let hierarchies = directories(&root);
    std::iter::once(root).chain(hierarchies).collect()
}

fn directories(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let real = |entry: &std::fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    entries.filter(real).map(|entry| entry.path()).collect()
}
