//! All that can be told of a tree.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use stoker::types::Digest;

/// What lies at each path, `""` being the root.
pub(super) type Look = BTreeMap<String, Seen>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    what: String,
    mode: u32,
    owner: (u32, u32),
    time: Time,
    xattrs: BTreeMap<String, Vec<u8>>,
    /// The first path of the same inode.
    link_of: String,
    links: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Time {
    At(i64, i64),
    /// While it was unpacked.
    Now,
}

impl Seen {
    /// Whether they are the same. Of a directory that the layer only implies, containerd keeps the time of unpacking,
    /// and we take over the lower's.
    pub(super) fn same(&self, theirs: &Self) -> bool {
        let implied = self.what == "directory" && theirs.time == Time::Now;
        let time = if implied { theirs.time } else { self.time };
        Self { time, ..self.clone() } == *theirs
    }
}

/// Looks at the tree at `root`; what has a later time than `begun` was stamped by its unpacking.
pub(super) fn look(root: &Path, begun: SystemTime) -> Look {
    let now = (begun - Duration::from_secs(1)).duration_since(SystemTime::UNIX_EPOCH).expect("a clock");
    let mut inodes = BTreeMap::new();
    let mut found = Look::new();
    for path in walk(root) {
        let below = path.strip_prefix(root).expect("it is below");
        let name: String = below.as_os_str().as_bytes().escape_ascii().to_string();
        let meta = path.symlink_metadata().expect("it is there");
        // The clock goes to the end of 2026 or later; tests have times before that, or well after.
        let stamped = meta.mtime() >= now.as_secs() as i64 && meta.mtime() < now.as_secs() as i64 + 3600;
        let is_root = name.is_empty();
        let seen = Seen {
            what: what(&path, &meta),
            // containerd gives the snapshot's own directory its mode and owner, before anything is unpacked.
            mode: if is_root { 0 } else { meta.mode() & 0o7777 },
            owner: if is_root { (0, 0) } else { (meta.uid(), meta.gid()) },
            time: if stamped { Time::Now } else { Time::At(meta.mtime(), meta.mtime_nsec()) },
            xattrs: xattrs(&path),
            link_of: inodes.entry(meta.ino()).or_insert_with(|| name.clone()).clone(),
            links: if meta.is_dir() { 0 } else { meta.nlink() },
        };
        found.insert(name, seen);
    }
    found
}

fn walk(root: &Path) -> Vec<PathBuf> {
    let mut found = vec![root.to_owned()];
    let mut at = 0;
    while let Some(path) = found.get(at).cloned() {
        at += 1;
        if path.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            let list = std::fs::read_dir(&path).expect("a directory");
            let mut names: Vec<PathBuf> = list.map(|entry| entry.expect("an entry").path()).collect();
            names.sort();
            found.extend(names);
        }
    }
    found
}

fn what(path: &Path, meta: &std::fs::Metadata) -> String {
    let kind = meta.file_type();
    if kind.is_dir() {
        "directory".to_owned()
    } else if kind.is_symlink() {
        format!("link to {:?}", std::fs::read_link(path).expect("a link"))
    } else if kind.is_char_device() {
        format!("character device {}", meta.rdev())
    } else if kind.is_block_device() {
        format!("block device {}", meta.rdev())
    } else if kind.is_fifo() {
        "fifo".to_owned()
    } else {
        let content = std::fs::read(path).expect("a file");
        format!("file of {} bytes, {}", content.len(), Digest::of(&content))
    }
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0u8; 64 << 10];
    let len = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    let value = |name: &[u8]| {
        let mut value = vec![0u8; 64 << 10];
        let len = rustix::fs::lgetxattr(path, name, &mut value[..]).expect("an attribute");
        value.truncate(len);
        (name.escape_ascii().to_string(), value)
    };
    names[..len].split(|&byte| byte == 0).filter(|name| !name.is_empty()).map(value).collect()
}
