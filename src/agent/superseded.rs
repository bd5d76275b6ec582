//! Revisions of weights that a newer one has replaced. They stay for a while, since a pod may still be on its way to
//! them by the label that named them, and then their names go, so that their bytes can be given up. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::standing::older_may_be_labelled;
use super::step::Step;
use super::world::World;
use crate::list::{Goods, List, Listed};
use crate::types::EntryId;

/// A pod that the old label brought has begun to read after this, or won't. What it has open or mounted stays anyway.
const GRACE: Duration = Duration::from_secs(60);

/// What is in use is looked at again after this.
const AGAIN: Duration = Duration::from_secs(300);

/// When the old revisions of which entry may go.
#[derive(Debug, Clone, Default)]
pub struct Superseded {
    due: BTreeMap<EntryId, Instant>,
    /// These are being taken away.
    leaving: BTreeSet<EntryId>,
}

impl Superseded {
    /// They are being taken away.
    pub(super) fn begin(&mut self, id: &EntryId) {
        self.leaving.insert(id.clone());
    }

    /// It has ended; what is left is tried again later.
    pub(super) fn ended(&mut self, id: &EntryId, now: Instant) {
        self.leaving.remove(id);
        self.due.insert(id.clone(), now + AGAIN);
    }

    /// Whether an entry's names must not be touched just now.
    pub(super) fn is_leaving(&self, id: &EntryId) -> bool {
        self.leaving.contains(id)
    }

    /// When time alone changes something.
    pub(super) fn wake_at(&self, now: Instant) -> Option<Instant> {
        self.due.values().copied().filter(|due| *due > now).min()
    }
}

/// Takes in which entries have older revisions.
pub(super) fn take_notice(world: &mut World, now: Instant) {
    let Some(weights) = &world.weights else { return };
    let superseded = &mut world.superseded;
    let has_older = |id: &EntryId| {
        weights.get(id).is_some_and(|named| named.current.is_some() && !named.other.is_empty())
    };
    superseded.due.retain(|id, _| has_older(id));
    for id in weights.keys().filter(|id| has_older(id)) {
        superseded.due.entry(id.clone()).or_insert(now + GRACE);
    }
}

/// The old revisions that go now: of listed entries, whose label surely names none of them.
pub(super) fn leaving(world: &World, list: &List, now: Instant) -> Vec<Step> {
    if !world.settled() || list.paused || list.removals_held {
        return Vec::new();
    }
    let entries = list.entries.iter().filter_map(Listed::entry);
    let may = entries.filter(|entry| {
        let due = world.superseded.due.get(&entry.id).is_some_and(|due| now >= *due);
        due && matches!(entry.goods, Goods::Weights(_))
            && !world.superseded.is_leaving(&entry.id)
            && !world.jobs.contains_key(&entry.id)
            && !world.removing.contains(&entry.id)
            && !older_may_be_labelled(world, entry)
    });
    may.map(|entry| Step::DropOld(entry.id.clone())).collect()
}
