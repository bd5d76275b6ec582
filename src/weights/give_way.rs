//! Which sets of weights would have to go so that so many bytes come back. Looks and decides; takes nothing away.

use std::collections::{BTreeMap, BTreeSet};

use super::cache::Cache;
use super::declared::Declared;
use super::error::CacheError;
use super::layout;
use super::names;
use super::ops;
use super::stock;
use super::tree;
use crate::types::EntryId;

/// What came of a search for sets that may go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GiveWay {
    /// These would have to go. None, if all that may go aren't enough.
    pub go: Vec<EntryId>,
    /// These may not, and why.
    pub in_use: Vec<(EntryId, String)>,
}

/// The files of one set, by inode, with what each takes of the disk.
type Files = BTreeMap<u64, u64>;

impl Cache {
    /// Which of these sets, of which the first may go soonest, give way so that `short` bytes come back. None that a
    /// container or a process uses.
    ///
    /// # Errors
    /// When the file system fails.
    pub fn sets_to_give_way(
        &self,
        candidates: &[EntryId],
        short: u64,
        declared: &Declared,
    ) -> Result<GiveWay, CacheError> {
        let mut found = GiveWay::default();
        let mut sets = Vec::new();
        for id in candidates {
            match self.user_of(id, declared)? {
                Some(user) => found.in_use.push((id.clone(), user)),
                None => sets.push((id.clone(), self.files_of(id)?)),
            }
        }
        let mut kept = BTreeSet::new();
        for id in names::ids(&self.root)? {
            if !sets.iter().any(|(candidate, _)| *candidate == id) {
                kept.extend(self.files_of(&id)?.into_keys());
            }
        }
        found.go = enough(&sets, &kept, short);
        Ok(found)
    }

    /// Who uses the entry's files, in words: a container that has them mounted, or a process that has one open.
    ///
    /// # Errors
    /// When the file system fails.
    pub fn user_of(&self, id: &EntryId, declared: &Declared) -> Result<Option<String>, CacheError> {
        if let Some(user) = declared.user_of(id) {
            return Ok(Some(user));
        }
        let _unread = self.reading();
        let used = tree::first_in_use(&self.root, id)?;
        Ok(used.map(|path| format!("a process has {} open or mapped", path.display())))
    }

    fn files_of(&self, id: &EntryId) -> Result<Files, CacheError> {
        let Some(entry) = self.root.find(layout::entry(id))? else { return Ok(Files::new()) };
        let found = entry.walk()?;
        let files = found.iter().filter(|found| ops::is_file(&found.stat));
        Ok(files.map(|found| (found.stat.st_ino, stock::allocated(&found.stat))).collect())
    }
}

/// The first sets that together give `short` bytes back, without those among them whose going isn't needed. A file that
/// several sets have comes back with the last of them, and not at all if one that stays has it.
fn enough(sets: &[(EntryId, Files)], kept: &BTreeSet<u64>, short: u64) -> Vec<EntryId> {
    let back = |chosen: &BTreeSet<usize>| -> u64 {
        let stays = |inode: &u64| {
            kept.contains(inode)
                || sets
                    .iter()
                    .enumerate()
                    .any(|(n, (_, files))| !chosen.contains(&n) && files.contains_key(inode))
        };
        let going = chosen.iter().filter_map(|n| sets.get(*n)).flat_map(|(_, files)| files);
        let going: BTreeMap<&u64, &u64> = going.filter(|(inode, _)| !stays(inode)).collect();
        going.into_values().fold(0, |sum, bytes| sum.saturating_add(*bytes))
    };
    let mut chosen = BTreeSet::new();
    let mut is_enough = short == 0;
    for n in 0..sets.len() {
        if is_enough {
            break;
        }
        chosen.insert(n);
        is_enough = back(&chosen) >= short;
    }
    if !is_enough {
        return Vec::new();
    }
    // The last ones are the most urgent: whichever of them isn't needed stays.
    for n in chosen.clone().into_iter().rev() {
        chosen.remove(&n);
        if back(&chosen) < short {
            chosen.insert(n);
        }
    }
    chosen.into_iter().filter_map(|n| sets.get(n)).map(|(id, _)| id.clone()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(name: usize, files: &[(u64, u64)]) -> (EntryId, Files) {
        (format!("s{name}").parse().unwrap(), files.iter().copied().collect())
    }

    fn ids(chosen: &[EntryId]) -> Vec<&str> {
        chosen.iter().map(EntryId::as_str).collect()
    }

    #[test]
    fn the_least_urgent_go_and_none_in_vain() {
        let sets = [set(0, &[(1, 5)]), set(1, &[(2, 50)]), set(2, &[(3, 50)])];
        let nobody = BTreeSet::new();
        assert_eq!(ids(&enough(&sets, &nobody, 5)), ["s0"]);
        assert_eq!(ids(&enough(&sets, &nobody, 50)), ["s1"], "the small one would not help");
        assert_eq!(ids(&enough(&sets, &nobody, 52)), ["s0", "s1"]);
        assert_eq!(ids(&enough(&sets, &nobody, 106)), Vec::<&str>::new());
    }

    #[test]
    fn what_is_shared_comes_back_with_the_last() {
        let sets = [set(0, &[(1, 10), (2, 10)]), set(1, &[(2, 10)]), set(2, &[(9, 10)])];
        let nobody = BTreeSet::new();
        assert_eq!(ids(&enough(&sets, &nobody, 20)), ["s0", "s1"]);
        assert_eq!(ids(&enough(&sets, &[2].into(), 20)), ["s0", "s2"]);
    }

    proptest! {
        /// Against every choice that there is.
        #[test]
        fn it_is_enough_whenever_anything_is_and_nothing_goes_in_vain(
            made in prop::collection::vec(prop::collection::btree_map(0_u64..8, 1_u64..10, 0..4), 0..6),
            kept in prop::collection::btree_set(0_u64..8, 0..3),
            short in 1_u64..30,
        ) {
            // A file has one size, in whatever set.
            let sets: Vec<(EntryId, Files)> = made.iter().enumerate()
                .map(|(n, files)| set(n, &files.keys().map(|inode| (*inode, inode % 5 + 1)).collect::<Vec<_>>()))
                .collect();
            let back = |chosen: &BTreeSet<usize>| -> u64 {
                (0..8_u64)
                    .filter(|inode| !kept.contains(inode))
                    .filter(|inode| {
                        let users: Vec<usize> =
                            (0..sets.len()).filter(|n| sets[*n].1.contains_key(inode)).collect();
                        !users.is_empty() && users.iter().all(|user| chosen.contains(user))
                    })
                    .map(|inode| inode % 5 + 1)
                    .sum()
            };
            let chosen = enough(&sets, &kept, short);
            let chosen: BTreeSet<usize> =
                (0..sets.len()).filter(|n| chosen.contains(&sets[*n].0)).collect();
            let all: BTreeSet<usize> = (0..sets.len()).collect();
            if back(&all) < short {
                prop_assert!(chosen.is_empty());
            } else {
                prop_assert!(back(&chosen) >= short);
                for n in &chosen {
                    let mut without = chosen.clone();
                    without.remove(n);
                    prop_assert!(back(&without) < short, "{n} goes in vain");
                }
                // Nobody more urgent than the first sets that would do.
                let last = (0..sets.len()).find(|last| back(&(0..=*last).collect()) >= short).unwrap();
                prop_assert!(chosen.iter().all(|n| *n <= last));
            }
        }
    }
}
