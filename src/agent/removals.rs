//! What leaves: names of weights and pins of images that nobody lists. Pure.
//!
//! Label first, bytes after: a name or a pin goes only when it's sure that its label is gone, and that nobody is about
//! to write it. The node task may still hold an older report that said it, so it must have taken the newest first.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::standing::is_stale;
use super::step::Step;
use super::world::{Now, World};
use crate::image::to_unpin;
use crate::list::{Entry, Goods, List, Listed};
use crate::node::{Applied, GoodsKind, goods_label};
use crate::types::{Digest, EntryId, Revision};

/// What is listed, as far as removals care: also entries that are over the limit or broken.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Ids whose names in the cache stay.
    pub(super) weights: BTreeSet<EntryId>,
    /// Targets of images whose pins stay.
    pub(super) pinned: BTreeSet<Digest>,
    /// Some entry can't be read and never could: it might be an image that is pinned.
    unreadable: bool,
}

impl Wanted {
    /// An entry that can't be read keeps whatever it may stand for.
    pub(super) fn keep_unreadable(&mut self, id: &EntryId) {
        self.weights.insert(id.clone());
        self.unreadable = true;
    }

    pub(super) fn add(&mut self, world: &World, entry: &Entry) {
        match &entry.goods {
            Goods::Weights(_) => {
                self.weights.insert(entry.id.clone());
            }
            Goods::Image(goods) if goods.pin => self.pinned.extend(targets(world, entry)),
            Goods::Image(_) => {}
        }
    }
}

/// What containerd has for an entry: its image, and the one that was warm before.
pub(super) fn targets(world: &World, entry: &Entry) -> BTreeSet<Digest> {
    let (Goods::Image(goods), Some(images)) = (&entry.goods, &world.images) else { return BTreeSet::new() };
    let references = [Some(&goods.reference), world.last_warm.get(&entry.id)];
    let there = references.into_iter().flatten().filter_map(|reference| images.by_ref.get(reference));
    there.map(|presence| presence.target).collect()
}

/// What leaves.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// The removals to do now.
    pub(super) steps: Vec<Step>,
    /// Others wait for a label to go.
    pub(super) waiting: bool,
    /// When what could not be removed is tried again.
    pub(super) retry_at: Option<Instant>,
}

impl Leaving {
    fn retry_at_or_before(&mut self, at: Instant) {
        self.retry_at = Some(self.retry_at.map_or(at, |earlier| earlier.min(at)));
    }
}

/// The labels that the node should carry now, and their version.
pub(super) struct Saying<'a> {
    pub(super) labels: &'a BTreeMap<String, String>,
    pub(super) version: u64,
}

/// What leaves, while `saying` this; images are being pulled if `pulling`.
pub(super) fn removals(
    world: &World,
    list: &List,
    wanted: &Wanted,
    saying: &Saying<'_>,
    pulling: bool,
    now: Now,
) -> Leaving {
    let mut leaving = Leaving::default();
    let Some(applied) = &world.applied else { return leaving };
    let has_been_taken = applied.labels_version >= saying.version;
    if !world.settled() {
        return leaving;
    }
    // Then nothing leaves but what the disk has no room for.
    let is_held = list.paused || list.removals_held || is_stale(list, now);
    for id in world.weights.iter().filter(|_| !is_held).flat_map(|weights| weights.keys()) {
        let in_use =
            wanted.weights.contains(id) || world.jobs.contains_key(id) || world.removing.contains(id);
        if in_use {
            continue;
        }
        let retry_at = world.stuck.get(id).map(|stuck| stuck.retry_at).filter(|at| *at > now.monotonic);
        let may_be_labelled = || applied.values(&goods_label(GoodsKind::Weights, id)).next().is_some();
        if let Some(at) = retry_at {
            leaving.retry_at_or_before(at);
        } else if !has_been_taken || may_be_labelled() {
            leaving.waiting = true;
        } else {
            leaving.steps.push(Step::Retire(id.clone()));
        }
    }
    // A pull pins what it has just made before it is known here; its pins are looked at when it's over.
    if let Some(images) = &world.images
        && images.connected
        && world.images_were_asked_for()
        && !pulling
        && !wanted.unreadable
        && !world.unpinning
    {
        let labelled = outdated_labels(world, saying.labels);
        let is_labelled = |target: &Digest| labelled.contains(Revision::of_image(*target).short().as_str());
        let targets = images.our_pins.iter().map(|pin| pin.target);
        let may_be_labelled = |target: &Digest| !has_been_taken || is_labelled(target);
        let mut wanted = wanted.pinned.clone();
        if is_held {
            let gave_way = targets_that_gave_way(world, list);
            wanted.extend(targets.clone().filter(|target| !gave_way.contains(target)));
        }
        let kept = wanted.iter().copied().chain(targets.filter(may_be_labelled)).collect();
        let pins = to_unpin(&images.our_pins, &kept);
        leaving.waiting |= pins.len() < to_unpin(&images.our_pins, &wanted).len();
        match world.stuck_pins.as_ref().map(|stuck| stuck.retry_at).filter(|at| *at > now.monotonic) {
            _ if pins.is_empty() => {}
            Some(at) => leaving.retry_at_or_before(at),
            None => leaving.steps.push(Step::Unpin(pins)),
        }
    }
    leaving
}

fn targets_that_gave_way(world: &World, list: &List) -> BTreeSet<Digest> {
    let entries = list.entries.iter().filter_map(Listed::entry);
    let gave_way = entries.filter(|entry| world.pressure.gave_way.contains(&entry.id));
    gave_way.flat_map(|entry| targets(world, entry)).collect()
}

/// The values of labels that the node may still carry and should not.
fn outdated_labels<'a>(world: &'a World, said: &BTreeMap<String, String>) -> BTreeSet<&'a str> {
    let labels = world.applied.iter().flat_map(Applied::may_stand);
    let outdated = labels.filter(|(key, value)| said.get(*key).map(String::as_str) != Some(*value));
    outdated.map(|(_, value)| value).collect()
}
