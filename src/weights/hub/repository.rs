use std::path::Path;

use super::shown::{Names, wanted};
use super::{HubPlace, Shown, tree_file};
use crate::source::HubCommit;
use crate::types::{GitOid, HubRepo, RelPath};
use crate::weights::error::{CacheError, OpError};
use crate::weights::ops::{self, Dir};
use crate::weights::tree::{self, Files};
use crate::weights::{layout, small_file};

const REFS: &str = "refs";
const SNAPSHOTS: &str = "snapshots";
const TREES: &str = "trees";

/// Tells our directories from somebody else's. Clients pass over it.
const MARK: &str = ".stoker";
const MARK_SAYS: &[u8] =
    b"This directory is a part of Stoker's cache: what is in it comes and goes with the list.\n";

/// A tree of a million files would be smaller.
const LONGEST_TREE: u64 = 512 << 20;

/// `hub/`, while nobody else changes names in the cache.
pub(in crate::weights) struct Hub<'a> {
    root: &'a Dir,
    staging: &'a Dir,
    /// A name in staging that is nobody else's.
    staged: &'a str,
}

impl<'a> Hub<'a> {
    pub(in crate::weights) fn new(root: &'a Dir, staging: &'a Dir, staged: &'a str) -> Self {
        Self { root, staging, staged }
    }

    /// Puts `files` of a commit there, beside those that `shown` entries have of it. The tree comes before the
    /// snapshot, which would count as complete without it. No ref changes.
    pub(in crate::weights) fn add(
        &self,
        commit: &HubCommit,
        files: &Files,
        shown: &[Shown],
    ) -> Result<(), CacheError> {
        let repository = self.repository(&commit.repo)?;
        let trees = repository.make(TREES, layout::PUBLIC_DIR)?;
        let name = tree_name(commit.commit);
        let path = trees.path().join(&name);
        let bytes = tree_file::bytes(commit).map_err(|cause| CacheError::Manifest { path, cause })?;
        if trees.read_file(&name, LONGEST_TREE)?.as_ref() != Some(&bytes) {
            small_file::put(&trees, &name, &bytes, self.staging, self.staged)?;
        }
        let others =
            wanted(shown).remove(&commit.repo).and_then(|mut names| names.snapshots.remove(&commit.commit));
        let mut all = others.unwrap_or_default();
        all.extend(files.iter().map(|(path, content)| (path.clone(), *content)));
        let snapshots = repository.make(SNAPSHOTS, layout::PUBLIC_DIR)?;
        Ok(tree::put(self.root, self.staging, self.staged, &snapshots, &commit.commit.hex(), &all)?)
    }

    /// Makes every directory of ours hold what `shown` entries have there, and no more. One that fails doesn't hold
    /// the others; the first failure is told.
    pub(in crate::weights) fn settle(&self, shown: &[Shown]) -> Result<(), OpError> {
        let wanted = wanted(shown);
        let hub = self.root.open(layout::HUB)?;
        let mut first = Ok(());
        for name in hub.list()? {
            let Some(repo) = name.to_str().and_then(HubRepo::of_folder) else { continue };
            let settled = match wanted.get(&repo) {
                Some(names) => self.settle_one(&hub, &repo, names),
                None => self.remove(&hub, &repo),
            };
            first = first.and(settled);
        }
        first
    }

    /// Whether there's anything to settle.
    pub(in crate::weights) fn is_empty(&self) -> Result<bool, OpError> {
        Ok(self.root.open(layout::HUB)?.list()?.is_empty())
    }

    fn settle_one(&self, hub: &Dir, repo: &HubRepo, names: &Names) -> Result<(), OpError> {
        let Some(repository) = ours(hub, repo)? else { return Ok(()) };
        let [snapshots, refs, trees] =
            [SNAPSHOTS, REFS, TREES].map(|name| repository.make(name, layout::PUBLIC_DIR));
        let (snapshots, refs, trees) = (snapshots?, refs?, trees?);
        for (name, commit) in &names.refs {
            let is_there = snapshots.stat(commit.hex())?.is_some();
            if is_there && read_ref(&refs, name)? != Some(*commit) {
                self.write_ref(&refs, name, *commit)?;
            }
        }
        remove_refs(&refs, |name| names.refs.contains_key(name))?;
        for name in commits(&snapshots, "")? {
            if !names.snapshots.contains_key(&name) {
                self.staging.rename_from(&snapshots, &name.hex(), self.staged)?;
                snapshots.sync()?;
                self.staging.remove_tree(self.staged)?;
            }
        }
        for (commit, files) in &names.snapshots {
            // Without its tree, or without its snapshot, it waits for an entry that knows it.
            if snapshots.stat(commit.hex())?.is_some() && trees.stat(tree_name(*commit))?.is_some() {
                tree::put(self.root, self.staging, self.staged, &snapshots, &commit.hex(), files)?;
            }
        }
        for name in commits(&trees, ".json")?.into_iter().filter(|it| !names.snapshots.contains_key(it)) {
            trees.unlink(tree_name(name))?;
        }
        trees.sync()
    }

    /// Takes away all that is ours, and the directory with it, if nothing else is in it.
    fn remove(&self, hub: &Dir, repo: &HubRepo) -> Result<(), OpError> {
        self.settle_one(hub, repo, &Names::default())?;
        let Some(repository) = ours(hub, repo)? else { return Ok(()) };
        let is_ours = |path: &Path| [MARK, REFS, SNAPSHOTS, TREES].iter().any(|ours| Path::new(ours) == path);
        if let Some(foreign) = repository.walk()?.iter().find(|found| !is_ours(&found.path)) {
            let path = repository.path().join(&foreign.path);
            tracing::warn!(path = %path.display(), "a repository's directory stays, for what somebody put there");
            return Ok(());
        }
        self.staging.rename_from(hub, &repo.folder(), self.staged)?;
        hub.sync()?;
        self.staging.remove_tree(self.staged)
    }

    /// The repository's directory, made where it's missing: with all that a client looks for in it, from the start.
    fn repository(&self, repo: &HubRepo) -> Result<Dir, CacheError> {
        let hub = self.root.open(layout::HUB)?;
        if let Some(stat) = hub.stat(repo.folder())? {
            let path = hub.path().join(repo.folder());
            let there = if ops::is_dir(&stat) { ours(&hub, repo)? } else { None };
            let problem = "it isn't this cache's; move it away, or take the entry off the list";
            return there.ok_or(CacheError::Unsafe { path, problem });
        }
        let made = self.staging.make(self.staged, layout::PUBLIC_DIR)?;
        let filled = [REFS, SNAPSHOTS, TREES]
            .into_iter()
            .try_for_each(|name| made.make(name, layout::PUBLIC_DIR).map(drop))
            .and_then(|()| mark(&made))
            .and_then(|()| made.sync())
            .and_then(|()| hub.rename_from(self.staging, self.staged, &repo.folder()));
        filled.inspect_err(|_| drop(self.staging.remove_tree(self.staged)))?;
        hub.sync()?;
        Ok(hub.open(repo.folder())?)
    }

    fn write_ref(&self, refs: &Dir, name: &RelPath, commit: GitOid) -> Result<(), OpError> {
        let (parent, leaf) = split(name);
        let dir = refs.make(parent, layout::PUBLIC_DIR)?;
        small_file::put(&dir, leaf, commit.hex().as_bytes(), self.staging, self.staged)?;
        parent.ancestors().skip(1).try_for_each(|above| refs.open(above)?.sync())
    }
}

fn mark(repository: &Dir) -> Result<(), OpError> {
    let file = repository.create_file(MARK, 0o644)?;
    ops::write_all_at(&file, MARK_SAYS, 0)
        .and_then(|()| ops::sync(&file))
        .map_err(|cause| OpError::new("write", &repository.path().join(MARK), cause))
}

/// The directory, if it has our mark.
fn ours(hub: &Dir, repo: &HubRepo) -> Result<Option<Dir>, OpError> {
    if !hub.stat(repo.folder())?.is_some_and(|stat| ops::is_dir(&stat)) {
        return Ok(None);
    }
    let repository = hub.open(repo.folder())?;
    let is_marked = repository.stat(MARK)?.is_some_and(|stat| ops::is_file(&stat) && ops::is_ours(&stat));
    Ok(is_marked.then_some(repository))
}

/// The commits that something in `dir` is called after.
fn commits(dir: &Dir, ending: &str) -> Result<Vec<GitOid>, OpError> {
    let names = dir.list()?;
    Ok(names.iter().filter_map(|name| name.to_str()?.strip_suffix(ending)?.parse().ok()).collect())
}

fn tree_name(commit: GitOid) -> String {
    format!("{commit}.json")
}

fn split(path: &RelPath) -> (&Path, &str) {
    let (parent, leaf) = path.as_str().rsplit_once('/').unwrap_or(("", path.as_str()));
    (Path::new(parent), leaf)
}

/// What a ref says, if it's one that a client would take.
fn read_ref(refs: &Dir, name: &RelPath) -> Result<Option<GitOid>, OpError> {
    let (parent, leaf) = split(name);
    // Where something else stands in the way, or in its place, there is no ref.
    let Ok(Some(dir)) = refs.find(parent) else { return Ok(None) };
    if !dir.stat(leaf)?.is_some_and(|stat| ops::is_file(&stat) && stat.st_size == 40) {
        return Ok(None);
    }
    let text = dir.read_file(leaf, 40)?;
    Ok(text.and_then(|text| String::from_utf8(text).ok()?.parse().ok()))
}

/// Takes away the refs that `keep` doesn't name, and the directories that are empty then.
fn remove_refs(refs: &Dir, keep: impl Fn(&RelPath) -> bool) -> Result<(), OpError> {
    let found = refs.walk()?;
    // What is in a directory comes before the directory.
    for found in found.iter().rev() {
        let Some(leaf) = found.path.file_name() else { continue };
        let parent = refs.open(found.path.parent().unwrap_or(Path::new("")))?;
        if ops::is_dir(&found.stat) {
            parent.remove_dir(leaf)?;
            continue;
        }
        let name = found.path.to_str().and_then(|path| path.parse::<RelPath>().ok());
        if !name.as_ref().is_some_and(&keep) {
            parent.unlink(leaf)?;
            parent.sync()?;
        }
    }
    refs.sync()
}

/// Whether the ref of an entry means what the entry has.
pub(in crate::weights) fn points(root: &Dir, place: &HubPlace) -> Result<bool, OpError> {
    let Some(reference) = place.reference() else { return Ok(true) };
    let Some(refs) = root.find(layout::hub_repository(&place.repo).join(REFS))? else { return Ok(false) };
    Ok(read_ref(&refs, reference)? == Some(place.commit))
}

/// What keeps a client from finding these files of an entry in `hub/`, each another name of its blob. It's a look at
/// names; bytes aren't read. A ref may mean what another entry has found since.
pub(in crate::weights) fn problem(
    root: &Dir,
    place: &HubPlace,
    files: &Files,
) -> Result<Option<String>, OpError> {
    let at = layout::hub_repository(&place.repo);
    let missing =
        |what: &str| Ok(Some(format!("{}/{what} is missing, or not what it should be", at.display())));
    let Some(repository) = root.find(&at)? else { return missing("") };
    let commit = place.commit.hex();
    let snapshot = Path::new(SNAPSHOTS).join(&commit);
    let Some(snapshot) = repository.find(&snapshot)? else {
        return missing(&format!("{SNAPSHOTS}/{commit}"));
    };
    if let Some(path) = tree::not_linked(root, &snapshot, files)? {
        return missing(&format!("{SNAPSHOTS}/{commit}/{path}"));
    }
    let name = format!("{TREES}/{}", tree_name(place.commit));
    if !repository.stat(&name)?.is_some_and(|stat| ops::is_file(&stat)) {
        return missing(&name);
    }
    let Some(reference) = place.reference() else { return Ok(None) };
    let refs = repository.find(REFS)?;
    let means = refs.map(|refs| read_ref(&refs, reference)).transpose()?.flatten();
    match means {
        Some(commit) if repository.stat(format!("{SNAPSHOTS}/{commit}"))?.is_some() => Ok(None),
        _ => missing(&format!("{REFS}/{reference}")),
    }
}
