//! What is in the cache, for people. It needs no lock, disturbs no agent, and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use jiff::Timestamp;

use super::blob;
use super::error::{CacheError, OpError};
use super::layout;
use super::manifest::Manifest;
use super::names::{self, Named};
use super::ops::{self, Dir};
use super::stock::{self, Spare};
use crate::types::{Digest, EntryId, Revision};

/// All of it, at one moment.
#[derive(Debug, Clone)]
pub struct Inventory {
    /// What entries show.
    pub shown: BTreeMap<EntryId, Shown>,
    /// What no entry shows, by revision; blobs that belong to none come last, together.
    pub unneeded: Vec<Unneeded>,
    /// What all of it takes of the disk, in bytes.
    pub bytes: u64,
}

/// What one entry shows.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Its names.
    pub named: Named,
    /// Bytes of its files that other entries show too.
    pub shared: u64,
}

/// Bytes that no entry needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unneeded {
    /// Which revision they are of, if they are of one.
    pub revision: Option<Revision>,
    /// For which entries it was fetched.
    pub ids: Vec<EntryId>,
    /// Where it came from.
    pub source: String,
    /// What they take of the disk.
    pub bytes: u64,
    /// How many blobs they are.
    pub blobs: usize,
    /// Since when.
    pub since: Timestamp,
}

/// Looks.
///
/// # Errors
/// When there is no cache, or the file system fails.
pub fn inventory_at(root: &Path) -> Result<Inventory, CacheError> {
    let root = names::open_to_look(root)?;
    let stock = stock::take_stock(&root)?;
    let named = names::scan(&root)?;
    let mut files: BTreeMap<EntryId, BTreeMap<u64, u64>> = BTreeMap::new();
    for id in named.keys() {
        files.insert(id.clone(), files_of(&root, id)?);
    }
    let shown = named.into_iter().map(|(id, named)| {
        let is_shared =
            |inode: &u64| files.iter().any(|(other, files)| *other != id && files.contains_key(inode));
        let own = files.get(&id).into_iter().flatten();
        let shared = own.filter(|(inode, _)| is_shared(inode)).map(|(_, bytes)| bytes).sum();
        (id.clone(), Shown { named, shared })
    });
    Ok(Inventory { shown: shown.collect(), unneeded: unneeded(&root, &stock.spare)?, bytes: stock.bytes })
}

fn files_of(root: &Dir, id: &EntryId) -> Result<BTreeMap<u64, u64>, OpError> {
    let Some(entry) = root.find(layout::entry(id))? else { return Ok(BTreeMap::new()) };
    let found = entry.walk()?;
    let files = found.iter().filter(|found| ops::is_file(&found.stat));
    Ok(files.map(|found| (found.stat.st_ino, u64::try_from(found.stat.st_size).unwrap_or(0))).collect())
}

/// Each spare blob counts once, for the first revision that has it.
fn unneeded(root: &Dir, spare: &[Spare]) -> Result<Vec<Unneeded>, CacheError> {
    let mut left: BTreeMap<Digest, Spare> = spare.iter().map(|spare| (spare.digest, *spare)).collect();
    let mut found = Vec::new();
    for revision in Manifest::revisions(root)? {
        let Some(manifest) = Manifest::read(root, revision)? else { continue };
        let digests: BTreeSet<Digest> = manifest.files.values().map(|content| content.sha256).collect();
        let own: Vec<Spare> = digests.iter().filter_map(|digest| left.remove(digest)).collect();
        let source = manifest.entries.values().next().map(|request| request.source.clone());
        let ids = manifest.entries.into_keys().collect();
        found.extend(together(&own, Some(revision), ids, source.unwrap_or_default()));
    }
    found.sort_by_key(|unneeded| unneeded.since);
    let rest: Vec<Spare> = left.into_values().collect();
    found.extend(together(&rest, None, Vec::new(), String::new()));
    Ok(found)
}

/// As a whole they are unneeded since the last of them is.
fn together(
    spare: &[Spare],
    revision: Option<Revision>,
    ids: Vec<EntryId>,
    source: String,
) -> Option<Unneeded> {
    let since = spare.iter().map(|spare| spare.since).max()?;
    let bytes = spare.iter().map(|spare| spare.bytes).fold(0, u64::saturating_add);
    Some(Unneeded { revision, ids, source, bytes, blobs: spare.len(), since })
}

/// One blob, and who shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobUse {
    /// What its bytes should be.
    pub digest: Digest,
    /// How many there are.
    pub bytes: u64,
    /// Its places in entries, as `ID: PATH`.
    pub places: Vec<String>,
}

/// The blobs that an entry shows, or all that there are.
///
/// # Errors
/// When there is no cache, or the file system fails.
pub fn blobs_at(root: &Path, id: Option<&EntryId>) -> Result<Vec<BlobUse>, CacheError> {
    let root = names::open_to_look(root)?;
    let mut places: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for shown in names::ids(&root)?.iter().filter(|shown| id.is_none_or(|id| id == *shown)) {
        let Some(entry) = root.find(layout::entry(shown))? else { continue };
        for found in entry.walk()?.iter().filter(|found| ops::is_file(&found.stat)) {
            // Without the name of the tree, which is the revision's.
            let path: std::path::PathBuf = found.path.components().skip(1).collect();
            places.entry(found.stat.st_ino).or_default().push(format!("{shown}: {}", path.display()));
        }
    }
    let mut blobs = Vec::new();
    stock::for_each_blob(&root, |digest, stat| {
        let own = places.get(&stat.st_ino).cloned();
        if id.is_none() || own.is_some() {
            let bytes = u64::try_from(stat.st_size).unwrap_or(0);
            blobs.push(BlobUse { digest, bytes, places: own.unwrap_or_default() });
        }
    })?;
    Ok(blobs)
}

/// Reads a blob to its end and compares: `Some(false)` if its bytes are wrong, `None` if it's gone.
///
/// # Errors
/// When it can't be read.
pub fn verify_blob(root: &Path, digest: Digest) -> Result<Option<bool>, CacheError> {
    let root = names::open_to_look(root)?;
    let (fan, name) = layout::blob(digest);
    let Some(dir) = root.find(fan)? else { return Ok(None) };
    let Some(file) = dir.open_file(&name)? else { return Ok(None) };
    let found = blob::hash(&file).map_err(|cause| OpError::new("read", &dir.path().join(&name), cause))?;
    Ok(Some(found == digest))
}

/// Has the agent find out that a blob's bytes are wrong: within a minute its label goes, and it's fetched again.
///
/// # Errors
/// When it isn't ours to mark.
pub fn mark_corrupt(root: &Path, digest: Digest) -> Result<(), CacheError> {
    Ok(blob::suspect(&names::open_to_look(root)?, digest)?)
}
