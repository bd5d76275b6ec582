use std::collections::BTreeMap;

use jiff::Timestamp;

use super::HubPlace;
use crate::types::{EntryId, GitOid, HubRepo, RelPath};
use crate::weights::error::CacheError;
use crate::weights::manifest::Manifest;
use crate::weights::ops::Dir;
use crate::weights::tree::Files;
use crate::weights::{layout, names};

/// One revision of an entry that came from a Hub and has a directory under `weights/`.
#[derive(Debug, Clone)]
pub(in crate::weights) struct Shown {
    pub(super) place: HubPlace,
    pub(super) files: Files,
    /// Whether the entry's `current` means it.
    pub(super) is_current: bool,
    pub(super) created: Timestamp,
}

/// All of them, without those of the entry `except`.
pub(in crate::weights) fn shown(root: &Dir, except: Option<&EntryId>) -> Result<Vec<Shown>, CacheError> {
    let mut shown = Vec::new();
    let revisions = Manifest::revisions(root)?;
    for id in names::ids(root)?.into_iter().filter(|id| Some(id) != except) {
        let entry = root.open(layout::entry(&id))?;
        let current = entry.read_link(layout::CURRENT)?;
        for name in entry.list()? {
            let of_tree = |revision: &&crate::types::Revision| name.to_str() == Some(&revision.short());
            for revision in revisions.iter().filter(of_tree) {
                let Some(mut manifest) = Manifest::read(root, *revision)? else { continue };
                let Some(request) = manifest.entries.remove(&id) else { continue };
                let Some(place) = request.hub else { continue };
                let is_current = current.as_ref() == Some(&name);
                let created = request.created;
                shown.push(Shown { place, files: manifest.files, is_current, created });
            }
        }
    }
    Ok(shown)
}

/// What belongs into one repository's directory.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Names {
    pub(super) snapshots: BTreeMap<GitOid, Files>,
    pub(super) refs: BTreeMap<RelPath, GitOid>,
}

/// What belongs into each repository's directory. Where entries have found different commits under one revision, its
/// ref means the one that was found last.
pub(super) fn wanted(shown: &[Shown]) -> BTreeMap<HubRepo, Names> {
    let mut in_time: Vec<&Shown> = shown.iter().collect();
    in_time.sort_by_key(|shown| shown.created);
    let mut wanted = BTreeMap::<HubRepo, Names>::new();
    for Shown { place, files, is_current, .. } in in_time {
        let names = wanted.entry(place.repo.clone()).or_default();
        for commit in [Some(place.commit), place.before].into_iter().flatten() {
            let all = names.snapshots.entry(commit).or_default();
            all.extend(files.iter().map(|(path, content)| (path.clone(), *content)));
        }
        if let Some(reference) = place.reference().filter(|_| *is_current) {
            names.refs.insert(reference.clone(), place.commit);
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Digest;
    use crate::weights::manifest::Content;

    fn commit(digit: char) -> GitOid {
        digit.to_string().repeat(40).parse().unwrap()
    }

    fn files(names: &[&str]) -> Files {
        let file =
            |name: &&str| (name.parse().unwrap(), Content { size: 1, sha256: Digest::of(name.as_bytes()) });
        names.iter().map(file).collect()
    }

    fn one(repo: &str, digit: char, names: &[&str], is_current: bool, second: i64) -> Shown {
        let place = HubPlace {
            repo: repo.parse().unwrap(),
            revision: "main".parse().unwrap(),
            commit: commit(digit),
            before: None,
        };
        let created = Timestamp::from_second(second).unwrap();
        Shown { place, files: files(names), is_current, created }
    }

    #[test]
    fn entries_share_a_snapshot_and_the_newest_has_the_ref() {
        let mut newest = one("a/b", '2', &["x"], true, 9);
        newest.place.before = Some(commit('0'));
        let shown = [
            newest,
            one("a/b", '1', &["x", "y"], true, 2),
            one("a/b", '1', &["y", "z"], true, 1),
            one("a/b", '3', &["old"], false, 99),
            one("c/d", '1', &["x"], false, 1),
        ];
        let wanted = wanted(&shown);
        let ours = &wanted[&"a/b".parse().unwrap()];
        let snapshots = [('0', &["x"][..]), ('1', &["x", "y", "z"]), ('2', &["x"]), ('3', &["old"])];
        assert_eq!(ours.snapshots, snapshots.map(|(digit, names)| (commit(digit), files(names))).into());
        assert_eq!(ours.refs, BTreeMap::from([("main".parse().unwrap(), commit('2'))]));
        assert!(wanted[&"c/d".parse().unwrap()].refs.is_empty(), "an old revision has no ref");
    }
}
