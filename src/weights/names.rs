use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::error::CacheError;
use super::hub;
use super::layout;
use super::manifest::Manifest;
use super::ops::{self, Dir};
use super::tree;
use crate::types::{Digest, EntryId, Revision};

/// What one entry shows in the cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// What its `current` means, if that is all there and as it should be: then it's warm.
    pub current: Option<Current>,
    /// Why there is no current.
    pub problem: Option<String>,
    /// Other revisions that still have a directory, by their 12 hex digits.
    pub other: Vec<String>,
}

/// A revision that is complete on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Current {
    /// Which one.
    pub revision: Revision,
    /// [`WeightsGoods::fingerprint`](crate::list::WeightsGoods::fingerprint) of what it was fetched for.
    pub fingerprint: Digest,
    /// Whether every file was compared with a published digest; false: recorded only.
    pub verified: bool,
    /// Of all its files.
    pub bytes: u64,
    /// How many files it has.
    pub files: usize,
    /// Where it came from, for people.
    pub source: String,
}

/// What every entry in the cache at `root` shows, without holding the cache: for somebody who only looks, while an
/// agent may be at work.
///
/// # Errors
/// When there is no cache, or the file system fails.
pub fn names_at(root: &Path) -> Result<BTreeMap<EntryId, Named>, CacheError> {
    scan(&open_to_look(root)?)
}

/// The root of a cache that is there, without holding it.
pub(super) fn open_to_look(root: &Path) -> Result<Dir, CacheError> {
    if !root.join(layout::V1).is_dir() {
        return Err(CacheError::Absent { root: root.to_owned() });
    }
    Ok(Dir::open_root(root)?)
}

pub(super) fn scan(root: &Dir) -> Result<BTreeMap<EntryId, Named>, CacheError> {
    let mut names = BTreeMap::new();
    for id in ids(root)? {
        // What is wrong with one entry doesn't hide the others.
        let named = of_entry(root, &id).unwrap_or_else(|error| {
            Some(Named { current: None, problem: Some(crate::rt::chain(&error)), other: Vec::new() })
        });
        let Some(named) = named else { continue };
        if let Some(problem) = &named.problem {
            tracing::debug!(%id, problem, "weights in the cache are not warm");
        }
        names.insert(id, named);
    }
    Ok(names)
}

/// The entries that have a directory. What else is in there isn't ours, and isn't touched.
pub(super) fn ids(root: &Dir) -> Result<Vec<EntryId>, CacheError> {
    let Some(weights) = root.find(layout::WEIGHTS)? else { return Ok(Vec::new()) };
    let mut ids = Vec::new();
    for name in weights.list()? {
        let id = name.to_str().and_then(|name| name.parse().ok());
        match id.filter(|_| matches!(weights.stat(&name), Ok(Some(stat)) if ops::is_dir(&stat))) {
            Some(id) => ids.push(id),
            None => tracing::debug!(path = %weights.path().join(&name).display(), "not an entry's directory"),
        }
    }
    Ok(ids)
}

/// The names of all trees that some entry shows, whichever.
pub(super) fn trees(root: &Dir) -> Result<BTreeSet<String>, CacheError> {
    let mut trees = BTreeSet::new();
    for id in ids(root)? {
        let names = root.open(layout::entry(&id))?.list()?;
        let names = names.into_iter().filter_map(|name| name.into_string().ok());
        trees.extend(names.filter(|name| layout::is_tree_name(name)));
    }
    Ok(trees)
}

pub(super) fn of_entry(root: &Dir, id: &EntryId) -> Result<Option<Named>, CacheError> {
    let weights = root.find(layout::WEIGHTS)?;
    let is_dir =
        |weights: &Dir| weights.stat(id.as_str()).map(|stat| stat.is_some_and(|stat| ops::is_dir(&stat)));
    let Some(weights) = weights else { return Ok(None) };
    if !is_dir(&weights)? {
        return Ok(None);
    }
    let entry = weights.open(id.as_str())?;
    let trees = entry.list()?;
    let trees = trees.iter().filter_map(|name| name.to_str()).filter(|name| layout::is_tree_name(name));
    let (current, problem) = match current(root, &entry, id)? {
        Ok(current) => (Some(current), None),
        Err(problem) => (None, Some(problem)),
    };
    let shown = current.as_ref().map(|current| current.revision.short());
    let other = trees.filter(|name| Some(*name) != shown.as_deref()).map(str::to_owned).collect();
    Ok(Some(Named { current, problem, other }))
}

/// What `current` means, or why it means nothing.
fn current(root: &Dir, entry: &Dir, id: &EntryId) -> Result<Result<Current, String>, CacheError> {
    let Some(name) = entry.read_link(layout::CURRENT)? else {
        return Ok(Err("it has no current revision".to_owned()));
    };
    let Some(name) = name.to_str().filter(|name| layout::is_tree_name(name)) else {
        return Ok(Err(format!("current points at {}, which is no revision", name.display())));
    };
    for revision in Manifest::revisions(root)? {
        if revision.short() != name {
            continue;
        }
        let Some(manifest) = Manifest::read(root, revision)? else { continue };
        let Some(request) = manifest.entries.get(id) else { continue };
        let problem = match (tree::problem(root, entry, name, &manifest.files)?, &request.hub) {
            (None, Some(place)) => hub::problem(root, place, &manifest.files)?,
            (problem, _) => problem,
        };
        return Ok(match problem {
            Some(problem) => Err(problem),
            None => Ok(Current {
                revision,
                fingerprint: request.fingerprint,
                verified: request.verified(),
                bytes: manifest.bytes(),
                files: manifest.files.len(),
                source: request.source.clone(),
            }),
        });
    }
    Ok(Err(format!("there is no manifest that explains {name}")))
}
