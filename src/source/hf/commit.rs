use std::collections::BTreeMap;

use crate::types::{Digest, GitOid, HubRepo, RelPath};

/// What a Hub says of one commit. It never changes: whoever knows the commit's name has the same tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubCommit {
    /// Of which repository.
    pub repo: HubRepo,
    /// What was asked for: a branch, a tag, or the commit itself.
    pub revision: RelPath,
    /// What that meant at that moment.
    pub commit: GitOid,
    /// Every file of it, wanted or not.
    pub tree: BTreeMap<RelPath, HubFile>,
}

/// One file of a commit's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubFile {
    /// Of the file itself, also where git has a pointer to it.
    pub size: u64,
    /// git's name for what git has: the bytes, or the pointer to them.
    pub oid: GitOid,
    /// Where git has a pointer: the SHA-256 of the bytes that it points at.
    pub lfs: Option<Digest>,
    /// The name of the bytes in the Hub's chunk store, 64 hex digits: for its own clients.
    pub xet: Option<String>,
}
