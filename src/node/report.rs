use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::types::{Digest, EntryId, GpuState, Progress, Revision};

/// Everything the agent knows, at one moment. Published on a watch; the doors and the node's labels are made
/// from it and from nothing else.
#[derive(Debug, Clone)]
pub struct Report {
    /// Where the GPUs stand.
    pub gpu: GpuState,
    /// Where the list stands.
    pub list: ListReport,
    /// One for each listed entry, in the order in which they are worked on.
    pub entries: Vec<EntryReport>,
    /// The gate was open at some moment of this boot, or a node without GPUs was told to proceed: before that
    /// nothing is said to be warm here, since no pod could use it.
    pub gate_passed: bool,
    /// `stoker.dev/ready`: reached once a boot.
    pub ready: bool,
    /// Why it was reached; it stays known while the gate is closed again.
    pub ready_by: Option<ReadyBy>,
    /// Whether list, gate, images and cache have each reported once; before that nothing is said to the cluster.
    pub settled: bool,
    /// Labels of goods that are on the Node and that the list, as far as it can be read, doesn't speak of. They stay
    /// as they are: unreadable is not empty.
    pub left_alone: BTreeMap<String, String>,
    /// Grows whenever a report says other labels than the one before it. See [`Applied`](super::Applied).
    pub labels_version: u64,
    /// Whether nothing is left to do until something changes: every entry is warm, or has failed for good.
    pub done: bool,
    /// The boot this was said in.
    pub boot_id: String,
}

/// Why `stoker.dev/ready` was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ReadyBy {
    /// Every required entry was warm.
    AllWarm,
    /// `--max-wait` passed since the gate's opening; required entries were still missing.
    MaxWaitPassed,
}

/// Where the list stands.
#[derive(Debug, Clone, Default)]
pub struct ListReport {
    /// Whether some document could ever be read as a whole. Before that nobody knows what is listed.
    pub known: bool,
    /// SHA-256 of the document in force.
    pub content: Option<Digest>,
    /// Problems of the whole document.
    pub errors: Vec<String>,
    /// What was ignored in it.
    pub warnings: Vec<String>,
    /// The list says to start and drop nothing.
    pub paused: bool,
    /// It is past `validUntil`.
    pub stale: bool,
    /// Removals wait until the document is mended.
    pub removals_held: bool,
}

/// One listed entry.
#[derive(Debug, Clone)]
pub struct EntryReport {
    /// Its id.
    pub id: EntryId,
    /// Image or weights; `None` when it's so broken that it can't be told.
    pub kind: Option<GoodsKind>,
    /// Whether `stoker.dev/ready` waits for it.
    pub required: bool,
    /// Where it stands.
    pub state: EntryState,
    /// Why it stands there; always given where the state isn't warm or fetching. While it's tried again it's still why the
    /// try before failed.
    pub reason: Option<Reason>,
    /// The revision that is warm and carries the label. A new revision may be on its way beside it.
    pub revision: Option<Revision>,
    /// Where its bytes come from, for people; never with a signature.
    pub source: String,
    /// Whether every file was checked against a digest that the source or the list published. False: recorded only.
    pub verified: bool,
    /// Somebody on this node has asked for it: it applies here whatever its `nodes` says.
    pub requested: bool,
    /// Bytes of the job under way.
    pub progress: Option<Arc<Progress>>,
}

impl EntryReport {
    /// Whether it has failed and is being fetched once more; the reason is that of the failure. Where each change of state
    /// is written or told, this is none: it comes and goes with every try.
    #[must_use]
    pub fn is_tried_again(&self) -> bool {
        let failed_before = |reason: &Reason| reason.code != Reason::LAST_GOOD_VERSION;
        self.state == EntryState::Fetching && self.reason.as_ref().is_some_and(failed_before)
    }
}

/// What an entry wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GoodsKind {
    /// A container image.
    Image,
    /// Files.
    Weights,
}

/// Where an entry stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EntryState {
    /// It will be fetched when what the reason names has happened.
    Pending,
    /// It's being fetched, and nothing of it is warm yet.
    Fetching,
    /// It's complete, verified, durable and usable by a pod now.
    Warm,
    /// It can't be fetched until something changes, or is tried again later; the reason tells which.
    Failed,
    /// It isn't for this node.
    Skipped,
    /// The list says it badly, and never said it well.
    Invalid,
    /// More entries apply to this node than it takes.
    OverLimit,
}

/// Why: a CamelCase word for machines and a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Stable, low-cardinality: `GateClosed`, `NotFound`, `Corrupt`, …
    pub code: String,
    /// What happened, with the whole chain of causes, and the next step. Never a secret.
    pub message: String,
}

impl Reason {
    /// The code for an entry that is worked on as it last was good, because the newest list says it badly.
    pub const LAST_GOOD_VERSION: &str = "LastGoodVersion";
    /// The code for an entry that is skipped since it's past its `expiresAt`.
    pub const EXPIRED: &str = "Expired";
    /// The code for an entry that is skipped since `nodes` leaves it out here.
    pub const NOT_FOR_THIS_NODE: &str = "NotForThisNode";

    /// A reason.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn report() -> Report {
        Report {
            gpu: GpuState::unknown(),
            list: ListReport::default(),
            entries: Vec::new(),
            gate_passed: true,
            ready: false,
            ready_by: None,
            settled: true,
            left_alone: BTreeMap::new(),
            labels_version: 1,
            done: false,
            boot_id: "boot".to_owned(),
        }
    }

    pub(crate) fn entry(id: &str, kind: GoodsKind, state: EntryState) -> EntryReport {
        EntryReport {
            id: id.parse().unwrap(),
            kind: Some(kind),
            required: false,
            state,
            reason: None,
            revision: Some(Revision::of_image(Digest::of(id.as_bytes()))),
            source: format!("source/{id}"),
            verified: true,
            requested: false,
            progress: None,
        }
    }
}
