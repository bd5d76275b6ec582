use std::sync::Arc;

use jiff::Timestamp;

use super::Entry;
use crate::types::{Digest, EntryId};

/// What the agent works from: the newest document, with the last good version of every entry that is broken
/// in it.
#[derive(Debug, Clone, PartialEq)]
pub struct List {
    /// Past it nothing new is started; nothing is dropped.
    pub valid_until: Option<Timestamp>,
    /// Start nothing, drop nothing.
    pub paused: bool,
    /// In the document's order; entries kept because the newest document is unreadable come too.
    pub entries: Vec<Listed>,
    /// True while an entry's id, or the whole document, can't be read: then nothing may be removed, since what
    /// can't be read might be what is about to be removed.
    pub removals_held: bool,
    /// Problems of the whole document: unreadable, empty, too large. Each is a sentence that names the next step.
    pub errors: Vec<String>,
    /// Things that are ignored: unknown fields. Each names entry and field.
    pub warnings: Vec<String>,
    /// Whether some document, this one or one before it, could be read as a whole. If not, that nothing is listed
    /// means nothing: nobody knows what should be here.
    pub known: bool,
    /// Whether the document was looked for in this run of the agent. If not, this is what a run before has stored: it's
    /// worked from, but what has been listed since isn't known yet.
    pub current: bool,
    /// SHA-256 of the newest document's bytes, or `None` when none was ever read.
    pub content: Option<Digest>,
}

/// One line of the list, whatever became of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Listed {
    /// It is valid.
    Good(Arc<Entry>),
    /// It is broken in the newest document; this is how it last was valid.
    LastGood {
        /// The last valid version.
        entry: Arc<Entry>,
        /// What is wrong with the newest, each with the field's name.
        errors: Vec<String>,
    },
    /// It is broken and was never valid.
    Bad {
        /// Its id.
        id: EntryId,
        /// Whether its `required` could be read and is true.
        required: bool,
        /// What is wrong, each with the field's name.
        errors: Vec<String>,
    },
}

impl Listed {
    /// The entry's id.
    #[must_use]
    pub fn id(&self) -> &EntryId {
        match self {
            Self::Good(entry) | Self::LastGood { entry, .. } => &entry.id,
            Self::Bad { id, .. } => id,
        }
    }

    /// The version to work with, if there is one.
    #[must_use]
    pub fn entry(&self) -> Option<&Arc<Entry>> {
        match self {
            Self::Good(entry) | Self::LastGood { entry, .. } => Some(entry),
            Self::Bad { .. } => None,
        }
    }

    /// What is wrong with it in the newest document.
    #[must_use]
    pub fn errors(&self) -> &[String] {
        match self {
            Self::Good(_) => &[],
            Self::LastGood { errors, .. } | Self::Bad { errors, .. } => errors,
        }
    }
}

impl List {
    /// Nothing listed, nothing wrong: what `entries: []` makes.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            valid_until: None,
            paused: false,
            entries: Vec::new(),
            removals_held: false,
            errors: Vec::new(),
            warnings: Vec::new(),
            known: true,
            current: true,
            content: None,
        }
    }
}
