use std::sync::Arc;

use super::{HubCommit, RemoteFile};

/// The files that a set of weights means, and what holds them together.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// Sorted by path; each path once, and none both a file and a directory.
    pub files: Vec<RemoteFile>,
    /// The commit that all of them are of, where they come from a Hugging Face Hub.
    pub commit: Option<Arc<HubCommit>>,
}

impl From<Vec<RemoteFile>> for Listing {
    fn from(files: Vec<RemoteFile>) -> Self {
        Self { files, commit: None }
    }
}
