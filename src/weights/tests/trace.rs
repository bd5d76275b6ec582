//! Records what is done to one directory tree, through the seam, by whichever thread.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, FileType, fstat, readlinkat, statat};

use super::super::did::Did;

/// A file, directory or symbolic link, for as long as the trace lasts; the first is the root.
pub(super) type Node = usize;

/// What a node is when it gets its first name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum New {
    File(u32),
    Dir(u32),
    Link(String),
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Op {
    Name { dir: Node, name: OsString, node: Node, new: Option<New> },
    Unname { dir: Node, name: OsString },
    Move { from: Node, name: OsString, dir: Node, to: OsString },
    Exchange { from: Node, name: OsString, dir: Node, to: OsString },
    Write { file: Node, bytes: Vec<u8>, offset: u64 },
    Allocate { file: Node, size: u64 },
    Truncate { file: Node, size: u64 },
    Mode { node: Node, mode: u32 },
    Sync { node: Node },
    SyncData { node: Node },
    SyncAll,
}

#[derive(Debug, Default)]
struct Recording {
    /// By device and inode number. One that is used again gets a new node with its new name.
    nodes: HashMap<(u64, u64), Node>,
    count: usize,
    ops: Vec<Op>,
}

static RECORDINGS: Mutex<Vec<Arc<Mutex<Recording>>>> = Mutex::new(Vec::new());

/// A recording under way; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Trace(Arc<Mutex<Recording>>);

impl Trace {
    /// Of all that is done below the empty directory `root`.
    pub(super) fn of(root: &Path) -> Self {
        let stat = statat(CWD, root, AtFlags::empty()).unwrap();
        let nodes = HashMap::from([((stat.st_dev, stat.st_ino), 0)]);
        let recording = Arc::new(Mutex::new(Recording { nodes, count: 1, ops: Vec::new() }));
        RECORDINGS.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&recording));
        Self(recording)
    }

    /// What was done so far.
    pub(super) fn ops(&self) -> Vec<Op> {
        self.0.lock().unwrap().ops.clone()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let mut recordings = RECORDINGS.lock().unwrap_or_else(PoisonError::into_inner);
        recordings.retain(|other| !Arc::ptr_eq(other, &self.0));
    }
}

/// What the seam calls.
pub(in super::super) fn did(did: Did<'_>) {
    let recordings = RECORDINGS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for recording in recordings {
        recording.lock().unwrap_or_else(PoisonError::into_inner).take_in(&did);
    }
}

impl Recording {
    fn node(&self, fd: BorrowedFd<'_>) -> Option<Node> {
        let stat = fstat(fd).ok()?;
        self.nodes.get(&(stat.st_dev, stat.st_ino)).copied()
    }

    /// What is not below the root belongs to another test.
    fn take_in(&mut self, did: &Did<'_>) -> Option<()> {
        let op = match *did {
            Did::Named { dir, name } => self.named(dir, name)?,
            Did::Unnamed { dir, name } => Op::Unname { dir: self.node(dir)?, name: name.to_owned() },
            Did::Moved { from, name, dir, to } => {
                let (from, dir) = (self.node(from)?, self.node(dir)?);
                Op::Move { from, name: name.to_owned(), dir, to: to.to_owned() }
            }
            Did::Exchanged { from, name, dir, to } => {
                let (from, dir) = (self.node(from)?, self.node(dir)?);
                Op::Exchange { from, name: name.to_owned(), dir, to: to.to_owned() }
            }
            Did::Written { file, bytes, offset } => {
                Op::Write { file: self.node(file)?, bytes: bytes.to_owned(), offset }
            }
            Did::Allocated { file, size } => Op::Allocate { file: self.node(file)?, size },
            Did::Truncated { file, size } => Op::Truncate { file: self.node(file)?, size },
            Did::Mode { of, mode } => Op::Mode { node: self.node(of)?, mode },
            Did::Sync { of } => Op::Sync { node: self.node(of)? },
            Did::SyncData { of } => Op::SyncData { node: self.node(of)? },
            Did::SyncAll { of } => self.node(of).map(|_| Op::SyncAll)?,
        };
        self.ops.push(op);
        Some(())
    }

    fn named(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> Option<Op> {
        let parent = self.node(dir)?;
        let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let mode = stat.st_mode & 0o7777;
        let fresh = |new| Some(new);
        let new = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => fresh(New::Dir(mode)),
            FileType::Symlink => {
                let text = readlinkat(dir, name, Vec::new()).unwrap();
                fresh(New::Link(text.into_string().unwrap()))
            }
            // A second name, of a file that has one.
            _ if stat.st_nlink > 1 => None,
            _ => fresh(New::File(mode)),
        };
        let at = (stat.st_dev, stat.st_ino);
        let node = match &new {
            Some(_) => {
                self.count += 1;
                self.nodes.insert(at, self.count - 1);
                self.count - 1
            }
            None => *self.nodes.get(&at)?,
        };
        Some(Op::Name { dir: parent, name: name.to_owned(), node, new })
    }
}
