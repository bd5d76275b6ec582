//! Which images give way when the disk they are on is nearly full: the kubelet may not remove what is pinned, and ends
//! pods instead. Pure.
//!
//! An entry that gives way loses its label first, then its pin; whether its image goes is the kubelet's business. One
//! image at a time, the least urgent first, and never one that is required.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::choice::{Choice, choice};
use super::plan::in_order_of_work;
use super::removals::targets;
use super::world::{Now, World};
use crate::list::{Entry, Listed};
use crate::node::Reason;
use crate::types::{Digest, EntryId};

/// How long the kubelet has to remove what gave way, before the next one does: it looks every ten seconds whether the
/// disk is so full that it must end pods, and removes images first.
const PACE: Duration = Duration::from_secs(30);

/// What gave way in this run, and may not come back yet.
#[derive(Debug, Clone, Default)]
pub struct Pressure {
    /// These entries.
    pub gave_way: BTreeSet<EntryId>,
    /// Before this, no other does.
    next_at: Option<Instant>,
}

impl Pressure {
    /// When time alone changes something.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.next_at
    }

    /// Why an entry is left alone.
    pub(super) fn reason(id: &EntryId, world: &World) -> Option<Reason> {
        let full = world.images.as_ref().and_then(|images| images.fullness)?;
        let threshold = world.settings.gc_threshold;
        let back = threshold.pins_come_back()?;
        world.pressure.gave_way.contains(id).then(|| {
            let message = format!(
                "the disk of containerd's images is {full} % full, and from {} % on the kubelet removes images: this one \
                 isn't required, so it may; it comes back when the disk is less than {back} % full",
                threshold.0
            );
            Reason::new("DiskPressure", message)
        })
    }
}

/// Takes in how full the disk is now.
pub(super) fn take_notice(world: &mut World, now: Now) {
    let mut pressure = std::mem::take(&mut world.pressure);
    let (begin, end) =
        (world.settings.gc_threshold.pins_give_way(), world.settings.gc_threshold.pins_come_back());
    let full = world
        .images
        .as_ref()
        .filter(|images| images.connected && !world.settings.once)
        .and_then(|images| images.fullness);
    if let (Some(full), Some(begin), Some(end), Some(list)) = (full, begin, end, &world.list) {
        pressure.gave_way.retain(|id| list.entries.iter().any(|listed| listed.id() == id));
        if full < end {
            pressure = Pressure::default();
        } else if full < begin {
            pressure.next_at = None;
        } else if pressure.next_at.is_none_or(|at| now.monotonic >= at) {
            let next = next(world, &pressure.gave_way, now);
            pressure.next_at = (!next.is_empty()).then(|| now.monotonic + PACE);
            for id in &next {
                tracing::warn!(entry = %id, percent = full, "its image gives way: the disk is nearly full");
            }
            pressure.gave_way.extend(next);
        }
    }
    world.pressure = pressure;
}

/// The entries of the image that gives way next: all that stand for the same one.
fn next(world: &World, gave_way: &BTreeSet<EntryId>, now: Now) -> Vec<EntryId> {
    let (Some(list), Some(images)) = (&world.list, &world.images) else { return Vec::new() };
    let mut by_target: BTreeMap<Digest, Vec<(usize, &Arc<Entry>)>> = BTreeMap::new();
    for (place, entry) in in_order_of_work(list).into_iter().filter_map(Listed::entry).enumerate() {
        if !matches!(choice(world, entry, now), Choice::Skipped(_)) {
            let targets = targets(world, entry).into_iter();
            targets.for_each(|target| by_target.entry(target).or_default().push((place, entry)));
        }
    }
    let pinned = |target: &Digest| images.our_pins.iter().any(|pin| pin.target == *target);
    let may = |(_, entry): &(usize, &Arc<Entry>)| {
        !entry.required && !gave_way.contains(&entry.id) && !world.jobs.contains_key(&entry.id)
    };
    let candidates = by_target.into_iter().filter(|(target, of)| pinned(target) && of.iter().all(may));
    // The one whose most urgent entry, which is its first, comes last.
    let least = candidates.max_by_key(|(_, of)| of.first().map(|(place, _)| *place));
    least.into_iter().flat_map(|(_, of)| of).map(|(_, entry)| entry.id.clone()).collect()
}
