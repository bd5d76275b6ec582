//! Whether anybody has a file of an entry open, mapped or executing: the kernel's word, by a lease.
//!
//! It sees every process of the node, in whatever mount namespace, and by whatever name it came to the file. It doesn't
//! see one that has a directory mounted and nothing open yet: what containers declare is `declared.rs`'.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::OpError;
use super::layout;
use super::ops::{self, Dir};
use super::syscalls;
use crate::types::EntryId;

/// The first file below `tree` that somebody has, if anybody has one. One file at a time is open for it.
///
/// A file that other entries show too may be theirs to read: `others` says which inodes those are, and is asked only
/// when it matters.
pub(super) fn first_below(
    tree: &Dir,
    others: &mut impl FnMut() -> Result<BTreeSet<u64>, OpError>,
) -> Result<Option<PathBuf>, OpError> {
    for found in tree.walk()?.iter().filter(|found| ops::is_file(&found.stat)) {
        if is_idle(tree, &found.path)? || others()?.contains(&found.stat.st_ino) {
            continue;
        }
        return Ok(Some(tree.path().join(&found.path)));
    }
    Ok(None)
}

fn is_idle(tree: &Dir, path: &Path) -> Result<bool, OpError> {
    let dir = tree.open(path.parent().unwrap_or(Path::new("")))?;
    let leaf = path.file_name().and_then(|leaf| leaf.to_str());
    // A name that isn't text is none of ours.
    let Some(file) = leaf.map(|leaf| dir.open_file(leaf)).transpose()?.flatten() else { return Ok(true) };
    lease(&file).map_err(|e| OpError::new("take a lease on", &tree.path().join(path), e))
}

/// Tries so often before somebody counts as having a file.
const TRIES: usize = 5;
const BETWEEN: Duration = Duration::from_millis(4);

/// Takes the write lease on a file, which ends with the handle; false when somebody else has the file. A process that
/// we are just starting has all our open files until it has begun: that passes.
pub(super) fn lease(file: &File) -> io::Result<bool> {
    for _ in 1..TRIES {
        if syscalls::take_write_lease(file)? {
            return Ok(true);
        }
        pause(BETWEEN);
    }
    syscalls::take_write_lease(file)
}

/// The inodes of all files that entries other than `id` show.
pub(super) fn inodes_of_others(root: &Dir, id: &EntryId) -> Result<BTreeSet<u64>, OpError> {
    let Some(weights) = root.find(layout::WEIGHTS)? else { return Ok(BTreeSet::new()) };
    let mut inodes = BTreeSet::new();
    for name in weights.list()?.iter().filter(|name| *name != id.as_str()) {
        let Some(entry) = weights.find(Path::new(name)).ok().flatten() else { continue };
        inodes.extend(
            entry.walk()?.iter().filter(|found| ops::is_file(&found.stat)).map(|found| found.stat.st_ino),
        );
    }
    Ok(inodes)
}

/// For the few conditions that the kernel tells nobody about. On threads that may block only.
#[expect(clippy::disallowed_methods, reason = "nothing can be waited on, and it isn't async code")]
pub(super) fn pause(time: Duration) {
    std::thread::sleep(time);
}
