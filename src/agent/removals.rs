//! What leaves: names of weights and pins of images that nobody lists. Pure.
//!
//! Label first, bytes after: a name or a pin goes only when the cluster has confirmed that its label is gone.

use std::collections::{BTreeMap, BTreeSet};

use super::standing::is_stale;
use super::step::Step;
use super::world::{Now, World};
use crate::image::to_unpin;
use crate::list::{Entry, Goods, List};
use crate::node::{GoodsKind, goods_label};
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
            Goods::Image(goods) if goods.pin => {
                let references = [Some(&goods.reference), world.last_warm.get(&entry.id)];
                let images = world.images.iter();
                let targets = images.flat_map(|images| {
                    references.into_iter().flatten().filter_map(|reference| images.by_ref.get(reference))
                });
                self.pinned.extend(targets.map(|presence| presence.target));
            }
            Goods::Image(_) => {}
        }
    }
}

/// What leaves.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// The removals to do now.
    pub(super) steps: Vec<Step>,
    /// Others wait for a label to go.
    pub(super) waiting: bool,
}

/// What leaves, when `said` are the labels that the node should carry now, and images are being pulled if `pulling`.
pub(super) fn removals(
    world: &World,
    list: &List,
    wanted: &Wanted,
    said: &BTreeMap<String, String>,
    pulling: bool,
    now: Now,
) -> Leaving {
    let mut leaving = Leaving::default();
    let Some(applied) = &world.applied else { return leaving };
    if !world.settled() || list.paused || list.removals_held || is_stale(list, now) {
        return leaving;
    }
    for id in world.weights.iter().flat_map(|weights| weights.keys()) {
        let in_use =
            wanted.weights.contains(id) || world.jobs.contains_key(id) || world.removing.contains(id);
        if in_use {
            continue;
        }
        if applied.labels.contains_key(&goods_label(GoodsKind::Weights, id)) {
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
        let labelled = outdated_labels(world, said);
        let is_labelled = |target: &Digest| labelled.contains(Revision::of_image(*target).short().as_str());
        let targets = images.our_pins.iter().map(|pin| pin.target);
        let kept = wanted.pinned.iter().copied().chain(targets.filter(is_labelled)).collect();
        let pins = to_unpin(&images.our_pins, &kept);
        leaving.waiting |= pins.len() < to_unpin(&images.our_pins, &wanted.pinned).len();
        if !pins.is_empty() {
            leaving.steps.push(Step::Unpin(pins));
        }
    }
    leaving
}

/// The values of labels that the node still carries and should not.
fn outdated_labels<'a>(world: &'a World, said: &BTreeMap<String, String>) -> BTreeSet<&'a str> {
    let labels = world.applied.iter().flat_map(|applied| &applied.labels);
    labels.filter(|(key, value)| said.get(*key) != Some(*value)).map(|(_, value)| value.as_str()).collect()
}
