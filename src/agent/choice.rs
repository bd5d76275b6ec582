//! Whether an entry is for this node, as far as that is known: pure.

use super::standing::is_expired;
use super::world::{Now, World};
use crate::list::{Applies, Entry, applies};
use crate::node::Reason;

/// What becomes of a listed entry on this node.
pub(super) enum Choice {
    /// It applies here.
    Ours,
    /// Nobody has told yet which labels this node has. What is there of it stays, and nothing is started.
    Unknown(Reason),
    /// It doesn't apply here: as if it weren't listed.
    Skipped(Reason),
}

pub(super) fn choice(world: &World, entry: &Entry, now: Now) -> Choice {
    if is_expired(entry, now) {
        return Choice::Skipped(Reason::new(Reason::EXPIRED, "it is past its expiresAt"));
    }
    if world.requested.contains(&entry.id) {
        return Choice::Ours;
    }
    let asks_for_labels = entry.nodes.as_ref().is_some_and(|nodes| !nodes.match_labels.is_empty());
    if world.facts.is_none() && asks_for_labels {
        let message = "it is for nodes with certain labels, and the API server has not told this node's yet";
        return Choice::Unknown(Reason::new("NodeUnknown", message));
    }
    match applies(entry, &world.node()) {
        Applies::Yes => Choice::Ours,
        Applies::No(why) => Choice::Skipped(Reason::new(Reason::NOT_FOR_THIS_NODE, why)),
    }
}
