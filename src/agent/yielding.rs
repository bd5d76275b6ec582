//! Sets of weights that give way to another one for which the cache has no room: those of lower priority only, label
//! first, and never one that a container or a process uses. Pure.
//!
//! What gives way is not listed any more, as far as removals care: its label goes, then its names, and its bytes are
//! given up when the newcomer asks for room again. It comes back when the newcomer no longer waits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::choice::{Choice, choice};
use super::plan::in_order_of_work;
use super::standing::standing;
use super::step::Step;
use super::world::{Now, World};
use crate::list::{Entry, Goods, List, Listed};
use crate::node::Reason;
use crate::types::EntryId;

/// A search that found nothing is made again after this: containers end, and files are closed.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// What gives way, and the search for it.
#[derive(Debug, Clone, Default)]
pub struct Yielding {
    /// Who gives way, to whom.
    pub to: BTreeMap<EntryId, EntryId>,
    /// A search is under way.
    pub looking: bool,
}

impl Yielding {
    /// Why an entry is left alone.
    pub(super) fn reason(&self, id: &EntryId) -> Option<Reason> {
        let newcomer = self.to.get(id)?;
        let message = format!(
            "the cache has no room for {newcomer}, which is more urgent, so this one gives its room up; it comes back \
             when there is room for both"
        );
        Some(Reason::new("GivesWay", message))
    }
}

/// What the lack of room of one entry comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// Bytes that it has to write.
    pub needed: u64,
    /// Bytes that others would have to give up for it.
    pub short: u64,
    /// Bytes that there were for it, when it was last looked.
    pub had: u64,
    /// When it was last looked who could give way.
    pub looked_at: Option<Instant>,
}

/// Who no longer gives way, because nobody waits for its room.
pub(super) fn take_notice(world: &mut World, now: Now) {
    let Some(list) = world.list.clone() else { return };
    let mut to = std::mem::take(&mut world.yielding.to);
    to.retain(|id, newcomer| {
        let find = |id: &EntryId| list.entries.iter().filter_map(Listed::entry).find(|entry| entry.id == *id);
        let (Some(own), Some(newcomer)) = (find(id), find(newcomer)) else { return false };
        let waits = !standing(world, newcomer).satisfied
            && matches!(choice(world, newcomer, now), Choice::Ours)
            && (world.failures.get(&newcomer.id).is_none_or(|failure| failure.lack.is_some())
                || world.jobs.contains_key(&newcomer.id));
        waits && rank(own) < rank(newcomer)
    });
    world.yielding.to = to;
}

/// The search that is due, if one is.
pub(super) fn search(world: &World, list: &List, now: Now) -> Option<Step> {
    if world.yielding.looking || world.settings.once || !world.settled() || list.paused || list.removals_held
    {
        return None;
    }
    let ours = |entry: &&Arc<Entry>| matches!(choice(world, entry, now), Choice::Ours);
    in_order_of_work(list).into_iter().filter_map(Listed::entry).filter(ours).find_map(|newcomer| {
        let lack = world.failures.get(&newcomer.id)?.lack.as_ref()?;
        let waits = world.yielding.to.values().any(|other| *other == newcomer.id);
        let is_due = lack.looked_at.is_none_or(|at| now.monotonic >= at + LOOK_AGAIN);
        if lack.short == 0 || waits || !is_due || world.jobs.contains_key(&newcomer.id) {
            return None;
        }
        let candidates = candidates(world, list, newcomer, now);
        let step = || Step::FindRoom {
            newcomer: newcomer.id.clone(),
            short: lack.short,
            candidates: candidates.clone(),
        };
        (!candidates.is_empty()).then(step)
    })
}

/// Why an entry waits for room, with what would make some if nobody used it.
pub(super) fn with_what_stays(world: &World, entry: &Entry, reason: Reason) -> Reason {
    let lacks = world.failures.get(&entry.id).is_some_and(|failure| failure.lack.is_some());
    if !lacks || world.stuck.is_empty() {
        return reason;
    }
    let stays: Vec<String> =
        world.stuck.iter().map(|(id, stuck)| format!("{id}: {}", stuck.problem)).collect();
    Reason {
        message: format!("{} — off the list, and still there: {}", reason.message, stays.join("; ")),
        ..reason
    }
}

/// When the next search is due, though nothing happens.
pub(super) fn wake_at(world: &World, now: Now) -> Option<Instant> {
    let looked = world.failures.values().filter_map(|failure| failure.lack.as_ref()?.looked_at);
    looked.map(|at| at + LOOK_AGAIN).filter(|at| *at > now.monotonic).min()
}

/// Listed sets that are in the cache and less urgent than the newcomer, the least urgent first.
fn candidates(world: &World, list: &List, newcomer: &Entry, now: Now) -> Vec<EntryId> {
    let Some(weights) = &world.weights else { return Vec::new() };
    let may = |entry: &&Arc<Entry>| {
        matches!(entry.goods, Goods::Weights(_))
            && weights.contains_key(&entry.id)
            && !world.jobs.contains_key(&entry.id)
            && !world.removing.contains(&entry.id)
            && !world.yielding.to.contains_key(&entry.id)
            && !matches!(choice(world, entry, now), Choice::Unknown(_))
            && rank(entry) < rank(newcomer)
    };
    let mut found: Vec<_> =
        in_order_of_work(list).into_iter().filter_map(Listed::entry).filter(may).collect();
    // Of equals the one that is worked on last goes first.
    found.reverse();
    found.sort_by_key(|entry| rank(entry));
    found.into_iter().map(|entry| entry.id.clone()).collect()
}

/// Who is worth more room. When it's needed plays no part: what is needed later is still needed.
fn rank(entry: &Entry) -> (bool, u16) {
    (entry.required, entry.priority)
}
