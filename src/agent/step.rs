use std::collections::BTreeMap;
use std::sync::Arc;

use super::boot::BootState;
use crate::list::Entry;
use crate::node::Reason;
use crate::types::{EntryId, ErrorKind, Progress, Revision};
use crate::weights::{Freed, GiveWay, Named, Room, Shortage};

/// What the planner asks for. Each is carried out by a job of its own and answered by one [`Outcome`].
#[derive(Debug, Clone)]
pub enum Step {
    /// Make this entry warm, or look whether its source has something newer.
    Ensure {
        /// The version of the entry to work on.
        entry: Arc<Entry>,
        /// Ask the source even if what is there would do.
        recheck: bool,
        /// Where the job tells how far it is.
        progress: Arc<Progress>,
    },
    /// Stop this entry's job: it's no longer wanted as it was.
    Cancel(EntryId),
    /// Take our pins off these image records, which aren't listed any more.
    Unpin(Vec<String>),
    /// Remove the names of weights that aren't listed any more. Their label is gone already.
    Retire(EntryId),
    /// Remove the names of an entry's revisions that aren't the current one.
    DropOld(EntryId),
    /// Look which of these sets of weights would have to give way, so that there is room for a more urgent one.
    FindRoom {
        /// For whom.
        newcomer: EntryId,
        /// Bytes that must come back.
        short: u64,
        /// Who may give way, the least urgent first.
        candidates: Vec<EntryId>,
    },
    /// Measure how much room the cache has.
    Measure,
    /// Give up so many bytes that no entry needs.
    Shrink(u64),
    /// Read again what the cache holds.
    Rescan,
    /// Keep this over a restart of the agent.
    Remember(BootState),
}

/// What came of a step.
#[derive(Debug)]
pub enum Outcome {
    /// An ensure ended well.
    Warmed {
        /// Which entry, at which version.
        entry: Arc<Entry>,
        /// What is there now.
        warmed: Warmed,
    },
    /// An ensure ended badly.
    Failed {
        /// Which entry, at which version.
        entry: Arc<Entry>,
        /// What to make of it.
        kind: ErrorKind,
        /// A CamelCase word for it.
        code: &'static str,
        /// The whole chain of causes.
        message: String,
        /// The room that was missing, if that is what was wrong.
        shortage: Option<Shortage>,
    },
    /// Pins were taken off, or it failed; the next sweep tells.
    Unpinned(Result<(), String>),
    /// Names were removed, or it failed.
    Retired {
        /// Whose.
        id: EntryId,
        /// Whether anything of it stays.
        result: Result<(), Stays>,
    },
    /// Older revisions were removed, or are in use, or it failed.
    DroppedOld(EntryId, Result<(), Stays>),
    /// Who would have to give way, or the whole chain of causes.
    RoomFound {
        /// For whom.
        newcomer: EntryId,
        /// Who gives way, and who can't.
        result: Result<GiveWay, String>,
    },
    /// How much room the cache has.
    Measured(Result<Room, String>),
    /// What was given up.
    Shrunk(Result<Freed, String>),
    /// The cache's directory isn't the one that was opened.
    CacheMoved(String),
    /// What the cache holds.
    Scanned(Result<BTreeMap<EntryId, Named>, String>),
    /// The state was kept, or it failed.
    Remembered(Result<BootState, String>),
}

/// Why names stay that nobody lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stays {
    /// Somebody uses them: who.
    InUse(String),
    /// They can't be removed: why, and what to do.
    Stuck(String),
}

/// What an ensure found or made.
#[derive(Debug, Clone)]
pub enum Warmed {
    /// An image at this target.
    Image {
        /// The digest that the reference points at.
        revision: Revision,
        /// Whether anything was pulled.
        pulled: bool,
        /// Why it was left to containerd, if it was.
        left_to_containerd: Option<Reason>,
    },
    /// A set of weights.
    Weights {
        /// What its name in the cache now shows.
        named: Named,
        /// The revision that `current` now points at.
        revision: Revision,
        /// Bytes that travelled.
        fetched: u64,
    },
}

impl Warmed {
    /// What is there now.
    #[must_use]
    pub fn revision(&self) -> Revision {
        match self {
            Self::Image { revision, .. } | Self::Weights { revision, .. } => *revision,
        }
    }

    /// Whether anything had to be brought for it.
    #[must_use]
    pub fn moved_bytes(&self) -> bool {
        match self {
            Self::Image { pulled, .. } => *pulled,
            Self::Weights { fetched, .. } => *fetched > 0,
        }
    }
}
