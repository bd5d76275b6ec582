//! What an attack would touch: a file of the host's, and what lies beside the snapshots.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::parts::Scratch;

/// Directories outside that attacks are aimed at.
pub(super) struct Canary {
    host: Scratch,
    snapshots: PathBuf,
    before: BTreeMap<PathBuf, String>,
}

impl Canary {
    /// The host's file is there from now on; `snapshots` is containerd's directory of them.
    pub(super) fn new(snapshots: &Path) -> Self {
        let host = Scratch::new("canary");
        host.file("dir/file", "untouched");
        std::os::unix::fs::symlink("file", host.join("dir/link")).unwrap();
        let before = look(host.path());
        Self { host, snapshots: snapshots.to_owned(), before }
    }

    /// The directory of the host that is attacked; it has a `file` and a `link` to that.
    pub(super) fn dir(&self) -> String {
        self.host.join("dir").to_str().unwrap().to_owned()
    }

    /// Not a byte, a name, a time, a link count or an attribute has changed; beside the snapshots' directories there is
    /// nothing, and beside their file systems nothing but what overlayfs works with.
    #[track_caller]
    pub(super) fn assert_untouched(&self, what: &str) {
        assert_eq!(look(self.host.path()), self.before, "{what}: something on the host changed");
        let above = self.snapshots.parent().unwrap();
        let beside = names(above);
        let own = |name: &String| name == "metadata.db" || name == "snapshots";
        assert!(beside.iter().all(own), "{what}: {beside:?} beside the snapshots");
        for snapshot in names(&self.snapshots) {
            assert!(snapshot.parse::<u64>().is_ok(), "{what}: {snapshot:?} among the snapshots");
            let within = names(&self.snapshots.join(&snapshot));
            assert!(within.iter().all(|name| name == "fs" || name == "work"), "{what}: {within:?}");
        }
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// All that can be seen of everything below `dir`, but for what reading changes.
fn look(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut seen = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = path.symlink_metadata().unwrap();
        let content = if meta.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        if meta.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let [modified, changed] = [(meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec())];
        let owner = (meta.uid(), meta.gid(), meta.mode(), meta.nlink(), meta.ino());
        seen.insert(path, format!("{owner:?} {modified:?} {changed:?} {content:?}"));
    }
    seen
}
