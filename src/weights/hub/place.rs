use serde::{Deserialize, Serialize};

use crate::source::HubCommit;
use crate::types::{GitOid, HubRepo, RelPath};

/// Where an entry's files are in `hub/`. Kept in its manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::weights) struct HubPlace {
    pub(in crate::weights) repo: HubRepo,
    /// As the list has it.
    pub(in crate::weights) revision: RelPath,
    /// What that meant.
    pub(in crate::weights) commit: GitOid,
    /// What it meant before, where the same files were of another commit then: its snapshot stays until the entry's
    /// next change, since a pod may be about to open the rest of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(in crate::weights) before: Option<GitOid>,
}

impl HubPlace {
    pub(in crate::weights) fn of(commit: &HubCommit) -> Self {
        let HubCommit { repo, revision, commit, .. } = commit.clone();
        Self { repo, revision, commit, before: None }
    }

    /// The same after `earlier`, for the same files.
    pub(in crate::weights) fn after(self, earlier: &Self) -> Self {
        let before = match earlier.commit == self.commit {
            true => earlier.before,
            false => Some(earlier.commit),
        };
        Self { before: before.filter(|_| earlier.repo == self.repo), ..self }
    }

    /// Whether it's the same place, whatever was there before.
    pub(in crate::weights) fn is(&self, commit: &HubCommit) -> bool {
        (&self.repo, &self.revision, self.commit) == (&commit.repo, &commit.revision, commit.commit)
    }

    /// The ref that must point at the commit: a commit's own name needs none.
    pub(super) fn reference(&self) -> Option<&RelPath> {
        Some(&self.revision).filter(|revision| revision.as_str().parse::<GitOid>().is_err())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(repo: &str, digit: char) -> HubPlace {
        let commit = digit.to_string().repeat(40).parse().unwrap();
        HubPlace { repo: repo.parse().unwrap(), revision: "main".parse().unwrap(), commit, before: None }
    }

    #[test]
    fn the_commit_before_is_remembered_within_a_repository() {
        let (one, two) = (place("a/b", '1'), place("a/b", '2'));
        let second = two.clone().after(&one);
        assert_eq!(second.before, Some(one.commit));
        assert_eq!(two.clone().after(&second).before, Some(one.commit), "nothing has changed");
        assert_eq!(place("a/b", '3').after(&second).before, Some(two.commit));
        assert_eq!(place("a/c", '3').after(&second).before, None);
    }

    #[test]
    fn a_commit_needs_no_ref() {
        assert!(place("a/b", '1').reference().is_some());
        let pinned = HubPlace { revision: "1".repeat(40).parse().unwrap(), ..place("a/b", '1') };
        assert_eq!(pinned.reference(), None);
    }
}
