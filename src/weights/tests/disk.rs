//! What a power cut may leave of a trace: everything that was made durable, and any part of the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::bed::set_mode;
use super::trace::{New, Node, Op};

/// What becomes of an operation that nothing has made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Kept,
    Lost,
    /// Of a write, the first part.
    Torn,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Thing {
    File { mode: u32, bytes: Vec<u8> },
    Dir { mode: u32, names: BTreeMap<OsString, Node> },
    Link(String),
}

/// A file system's content.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Disk(BTreeMap<Node, Thing>);

/// Whether each operation is durable at the end of `ops`: a later one made it so.
pub(super) fn durable(ops: &[Op]) -> Vec<bool> {
    let (mut all, mut synced, mut data) = (false, BTreeSet::new(), BTreeSet::new());
    // Names that a durable move took: what is durable elsewhere was there before.
    let mut moved: BTreeSet<(Node, &OsString)> = BTreeSet::new();
    let mut durable: Vec<bool> = ops
        .iter()
        .rev()
        .map(|op| match op {
            Op::SyncAll => {
                all = true;
                true
            }
            Op::Sync { node } => {
                synced.insert(*node);
                true
            }
            Op::SyncData { node } => {
                data.insert(*node);
                true
            }
            _ if all => true,
            Op::Name { dir, name, .. } => synced.contains(dir) || moved.remove(&(*dir, name)),
            Op::Unname { dir, .. } => synced.contains(dir),
            // One transaction, on every file system with a journal.
            Op::Move { from, name, dir, .. } | Op::Exchange { from, name, dir, .. } => {
                let is_durable = synced.contains(from) || synced.contains(dir);
                if is_durable {
                    moved.insert((*from, name));
                }
                is_durable
            }
            Op::Write { file, .. } | Op::Allocate { file, .. } | Op::Truncate { file, .. } => {
                synced.contains(file) || data.contains(file)
            }
            Op::Mode { node, .. } => synced.contains(node),
        })
        .collect();
    durable.reverse();
    durable
}

impl Disk {
    /// After `ops`, of which each that isn't `durable` has the fate that `choose` gives it.
    pub(super) fn after(ops: &[Op], durable: &[bool], mut choose: impl FnMut(usize) -> Fate) -> Self {
        let mut disk = Self(BTreeMap::from([(0, Thing::Dir { mode: 0o755, names: BTreeMap::new() })]));
        // What a node is doesn't depend on which of its names arrives.
        for op in ops {
            if let Op::Name { node, new: Some(new), .. } = op {
                let thing = match new.clone() {
                    New::File(mode) => Thing::File { mode, bytes: Vec::new() },
                    New::Dir(mode) => Thing::Dir { mode, names: BTreeMap::new() },
                    New::Link(text) => Thing::Link(text),
                };
                disk.0.insert(*node, thing);
            }
        }
        for (at, op) in ops.iter().enumerate() {
            let fate = if durable[at] { Fate::Kept } else { choose(at) };
            match (op, fate) {
                (_, Fate::Lost) => {}
                (Op::Write { file, bytes, offset }, Fate::Torn) => {
                    disk.write(*file, &bytes[..bytes.len() / 2], *offset);
                }
                (op, _) => disk.apply(op),
            }
        }
        disk.forget_unnamed();
        disk
    }

    fn names(&mut self, dir: Node) -> &mut BTreeMap<OsString, Node> {
        match self.0.get_mut(&dir) {
            Some(Thing::Dir { names, .. }) => names,
            other => panic!("{dir} is no directory: {other:?}"),
        }
    }

    fn bytes(&mut self, file: Node) -> &mut Vec<u8> {
        match self.0.get_mut(&file) {
            Some(Thing::File { bytes, .. }) => bytes,
            other => panic!("{file} is no file: {other:?}"),
        }
    }

    fn write(&mut self, file: Node, bytes: &[u8], offset: u64) {
        let (all, end) = (self.bytes(file), offset as usize + bytes.len());
        all.resize(all.len().max(end), 0);
        all[offset as usize..end].copy_from_slice(bytes);
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Name { dir, name, node, .. } => {
                self.names(*dir).insert(name.clone(), *node);
            }
            Op::Unname { dir, name } => {
                self.names(*dir).remove(name);
            }
            Op::Move { from, name, dir, to } => {
                // Without the name that was lost before it, there's nothing to move.
                if let Some(node) = self.names(*from).remove(name) {
                    self.names(*dir).insert(to.clone(), node);
                }
            }
            Op::Exchange { from, name, dir, to } => {
                let (one, other) = (self.names(*from).remove(name), self.names(*dir).remove(to));
                self.names(*dir).extend(one.map(|one| (to.clone(), one)));
                self.names(*from).extend(other.map(|other| (name.clone(), other)));
            }
            Op::Write { file, bytes, offset } => self.write(*file, bytes, *offset),
            Op::Allocate { file, size } => {
                let bytes = self.bytes(*file);
                bytes.resize(bytes.len().max(*size as usize), 0);
            }
            Op::Truncate { file, size } => self.bytes(*file).resize(*size as usize, 0),
            Op::Mode { node, mode: new } => match self.0.get_mut(node) {
                Some(Thing::File { mode, .. } | Thing::Dir { mode, .. }) => *mode = *new,
                other => panic!("{node} has no mode: {other:?}"),
            },
            Op::Sync { .. } | Op::SyncData { .. } | Op::SyncAll => {}
        }
    }

    fn forget_unnamed(&mut self) {
        let (mut seen, mut next) = (BTreeSet::from([0]), vec![0]);
        while let Some(node) = next.pop() {
            if let Some(Thing::Dir { names, .. }) = self.0.get(&node) {
                next.extend(names.values().filter(|node| seen.insert(**node)));
            }
        }
        self.0.retain(|node, _| seen.contains(node));
    }

    /// Makes all of it anew below `root`, an empty directory.
    pub(super) fn make(&self, root: &Path) {
        let mut made: BTreeMap<Node, PathBuf> = BTreeMap::new();
        self.make_dir(0, root, &mut made);
    }

    fn make_dir(&self, node: Node, path: &Path, made: &mut BTreeMap<Node, PathBuf>) {
        let Some(Thing::Dir { mode, names }) = self.0.get(&node) else { panic!("{node} is no directory") };
        for (name, node) in names {
            let path = path.join(name);
            match &self.0[node] {
                Thing::Dir { .. } => {
                    std::fs::create_dir(&path).unwrap();
                    self.make_dir(*node, &path, made);
                }
                Thing::Link(text) => symlink(text, &path).unwrap(),
                Thing::File { mode, bytes } => {
                    if let Some(first) = made.get(node) {
                        std::fs::hard_link(first, &path).unwrap();
                        continue;
                    }
                    std::fs::write(&path, bytes).unwrap();
                    set_mode(&path, *mode);
                    made.insert(*node, path);
                }
            }
        }
        set_mode(path, *mode);
    }
}
