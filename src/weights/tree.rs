//! One revision as a directory of hard links: built in staging, looked at, shown to pods, taken away.
//!
//! The order in [`show`] is the only one that survived crashes replayed write by write: bytes, then names of blobs
//! (both before this is called), then each directory of the tree, then the tree's name and its parents', then
//! `current`, each durable before the next begins.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::blob;
use super::error::{CacheError, OpError};
use super::in_use;
use super::layout;
use super::manifest::Content;
use super::ops::{self, Dir};
use crate::types::{EntryId, RelPath, Revision};

pub(super) type Files = BTreeMap<RelPath, Content>;

/// What keeps the tree `name` of an entry from being exactly these files, each another name of its blob: `None`
/// where nothing does. It's a look at names and lengths; bytes aren't read.
pub(super) fn problem(root: &Dir, entry: &Dir, name: &str, files: &Files) -> Result<Option<String>, OpError> {
    if !entry.stat(name)?.is_some_and(|stat| ops::is_dir(&stat)) {
        return Ok(Some(format!("{name} is missing, or not a directory")));
    }
    let tree = entry.open(name)?;
    if ops::mode_of(&tree.own_stat()?) != layout::PUBLIC_DIR {
        return Ok(Some(format!("{name} can't be read by pods")));
    }
    let dirs = directories(files);
    let found = tree.walk()?;
    let mut seen = 0;
    for found in &found {
        let path = found.path.display();
        if ops::is_dir(&found.stat) {
            if !dirs.contains(found.path.as_path()) {
                return Ok(Some(format!("{path} doesn't belong there")));
            }
            if ops::mode_of(&found.stat) != layout::PUBLIC_DIR {
                return Ok(Some(format!("{path} can't be read by pods")));
            }
            continue;
        }
        let wanted = found.path.to_str().and_then(|path| path.parse::<RelPath>().ok());
        let Some(content) = wanted.and_then(|path| files.get(&path)) else {
            return Ok(Some(format!("{path} doesn't belong there")));
        };
        if blob::is_suspect(&found.stat) {
            return Ok(Some(format!("{path} no longer has the bytes that its digest promises")));
        }
        if !blob::looks_right(&found.stat, content.size) {
            return Ok(Some(format!("{path} has a wrong length, owner or mode")));
        }
        let (fan, name) = layout::blob(content.sha256);
        let blob = root.find(fan)?.map(|dir| dir.stat(name)).transpose()?.flatten();
        if blob.map(|blob| (blob.st_dev, blob.st_ino)) != Some((found.stat.st_dev, found.stat.st_ino)) {
            return Ok(Some(format!("{path} is not its blob")));
        }
        seen += 1;
    }
    Ok((seen < files.len()).then(|| format!("{} of {} files are missing", files.len() - seen, files.len())))
}

/// Every directory below the tree's top that these files need.
fn directories(files: &Files) -> BTreeSet<&Path> {
    files.keys().flat_map(|path| path.as_path().ancestors().skip(1)).collect()
}

/// Makes `files` what an entry's `current` means, in one step for whoever looks. All their blobs must be there.
pub(super) fn show(
    root: &Dir,
    staging: &Dir,
    staged: &str,
    id: &EntryId,
    revision: Revision,
    files: &Files,
) -> Result<(), CacheError> {
    let name = revision.short();
    let entry = root.make(layout::entry(id), layout::PUBLIC_DIR)?;
    let before = entry.read_link(layout::CURRENT)?;
    put(root, staging, staged, &entry, &name, files)?;
    root.open(layout::WEIGHTS)?.sync()?;
    if before.as_deref().is_none_or(|before| before != name.as_str()) {
        staging.symlink(&name, staged)?;
        entry.rename_from(staging, staged, layout::CURRENT).inspect_err(|_| drop(staging.unlink(staged)))?;
    }
    entry.sync()?;
    // The tree before this one stays: a pod may be reading it by name. Those before that one go.
    let keep = |tree: &str| tree == name || before.as_deref().is_some_and(|before| before == tree);
    match remove_trees(root, &entry, staging, staged, id, keep) {
        Ok(None) => {}
        Ok(Some(path)) => tracing::info!(%id, path = %path.display(), "an old revision is in use, and stays"),
        Err(error) => tracing::warn!(%id, error = crate::rt::chain(&error), "an old revision stays"),
    }
    Ok(())
}

/// Makes the directory `name` in `parent` exactly these files, from one moment to the next, durably.
pub(super) fn put(
    root: &Dir,
    staging: &Dir,
    staged: &str,
    parent: &Dir,
    name: &str,
    files: &Files,
) -> Result<(), OpError> {
    if problem(root, parent, name, files)?.is_none() {
        // Complete, but perhaps by a run that ended before it was durable.
        sync_all_directories(&parent.open(name)?)?;
    } else {
        build(root, staging, staged, files).inspect_err(|_| drop(staging.remove_tree(staged)))?;
        if parent.stat(name)?.is_some() {
            parent.exchange_with(staging, staged, name)?;
            staging.remove_tree(staged)?;
        } else {
            parent.rename_from(staging, staged, name)?;
        }
    }
    parent.sync()
}

/// The first of these files that isn't in `tree` as another name of its blob. What else is there doesn't matter.
pub(super) fn not_linked(root: &Dir, tree: &Dir, files: &Files) -> Result<Option<RelPath>, OpError> {
    let identity = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
    for (path, content) in files {
        let parent = tree.find(path.as_path().parent().unwrap_or(Path::new("")))?;
        let leaf = path.as_path().file_name().unwrap_or_default();
        let there = parent.map(|parent| parent.stat(leaf)).transpose()?.flatten();
        let (fan, name) = layout::blob(content.sha256);
        let blob = root.find(fan)?.map(|dir| dir.stat(name)).transpose()?.flatten();
        if there.is_none() || there.map(identity) != blob.map(identity) {
            return Ok(Some(path.clone()));
        }
    }
    Ok(None)
}

/// Links every file into a new tree in staging, and makes its directories durable.
fn build(root: &Dir, staging: &Dir, staged: &str, files: &Files) -> Result<(), OpError> {
    let tree = staging.make(staged, layout::PUBLIC_DIR)?;
    let mut open: Option<(&Path, Dir)> = None;
    for (path, content) in files {
        let parent = path.as_path().parent().unwrap_or(Path::new(""));
        let leaf = path.as_path().file_name().unwrap_or_default();
        let dir = match open.take().filter(|(path, _)| *path == parent) {
            Some((_, dir)) => dir,
            None => tree.make(parent, layout::PUBLIC_DIR)?,
        };
        let (fan, name) = layout::blob(content.sha256);
        if !dir.link_from(&root.open(fan)?, &name, leaf)? {
            return Err(OpError::new("link", &dir.path().join(leaf), rustix::io::Errno::EXIST));
        }
        open = Some((parent, dir));
    }
    sync_all_directories(&tree)
}

fn sync_all_directories(tree: &Dir) -> Result<(), OpError> {
    for found in tree.walk()?.iter().rev().filter(|found| ops::is_dir(&found.stat)) {
        tree.open(&found.path)?.sync()?;
    }
    tree.sync()
}

/// Takes away the trees of an entry that `keep` doesn't name. Each vanishes at once, into staging. Gives a file that
/// somebody has open, if there is one: then its tree stays, or is back again after a moment, if it was opened just then.
pub(super) fn remove_trees(
    root: &Dir,
    entry: &Dir,
    staging: &Dir,
    staged: &str,
    id: &EntryId,
    keep: impl Fn(&str) -> bool,
) -> Result<Option<PathBuf>, OpError> {
    let names = entry.list()?;
    let trees = names.iter().filter_map(|name| name.to_str()).filter(|name| layout::is_tree_name(name));
    let (kept, leaving): (Vec<&str>, Vec<&str>) = trees.partition(|name| keep(name));
    let mut others = || inodes_of_others(root, entry, id, &kept);
    let mut used = None;
    for name in leaving {
        if let Some(path) = in_use::first_below(&entry.open(name)?, &mut others)? {
            used.get_or_insert(path);
            continue;
        }
        staging.rename_from(entry, name, staged)?;
        // From here on nobody finds it any more; who found it before has it open, or has it mounted.
        if let Some(path) = in_use::first_below(&staging.open(staged)?, &mut others)? {
            entry.rename_from(staging, staged, name)?;
            used.get_or_insert(path);
            continue;
        }
        entry.sync()?;
        staging.remove_tree(staged)?;
    }
    Ok(used)
}

/// Files that are also shown elsewhere: whoever has one open may have come to it there.
fn inodes_of_others(root: &Dir, entry: &Dir, id: &EntryId, kept: &[&str]) -> Result<BTreeSet<u64>, OpError> {
    let mut inodes = in_use::inodes_of_others(root, id)?;
    for name in kept {
        let files = entry.open(name)?.walk()?;
        inodes.extend(files.iter().filter(|found| ops::is_file(&found.stat)).map(|found| found.stat.st_ino));
    }
    Ok(inodes)
}

/// What became of an entry's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retired {
    /// They are gone.
    Gone,
    /// They are gone, but this directory stays: something is in it that the cache didn't put there.
    Foreign(PathBuf),
    /// They stay: somebody has this file open or mapped.
    InUse(PathBuf),
}

/// A file of the entry that somebody has open or mapped, if there is one.
pub(super) fn first_in_use(root: &Dir, id: &EntryId) -> Result<Option<PathBuf>, OpError> {
    let Some(entry) = root.find(layout::entry(id))? else { return Ok(None) };
    let mut others = || in_use::inodes_of_others(root, id);
    let names = entry.list()?;
    for name in names.iter().filter_map(|name| name.to_str()).filter(|name| layout::is_tree_name(name)) {
        if let Some(path) = in_use::first_below(&entry.open(name)?, &mut others)? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Takes away all that an entry shows: `current` first, so that nobody finds half a tree by it. What turns out to be in
/// use meanwhile is shown again.
pub(super) fn hide(root: &Dir, staging: &Dir, staged: &str, id: &EntryId) -> Result<Retired, OpError> {
    let Some(entry) = root.find(layout::entry(id))? else { return Ok(Retired::Gone) };
    let current = entry.read_link(layout::CURRENT)?;
    if entry.unlink(layout::CURRENT)? {
        entry.sync()?;
    }
    if let Some(path) = remove_trees(root, &entry, staging, staged, id, |_| false)? {
        // It was opened just now. What it belongs to is shown again, if that is what was shown.
        let current = current.as_deref().and_then(OsStr::to_str);
        if let Some(name) = current.filter(|name| matches!(entry.stat(name), Ok(Some(_)))) {
            staging.symlink(name, staged)?;
            entry.rename_from(staging, staged, layout::CURRENT)?;
            entry.sync()?;
        }
        return Ok(Retired::InUse(path));
    }
    let weights = root.open(layout::WEIGHTS)?;
    let gone = weights.remove_dir(id.as_str())? || weights.stat(id.as_str())?.is_none();
    weights.sync()?;
    Ok(if gone { Retired::Gone } else { Retired::Foreign(entry.path().to_owned()) })
}
