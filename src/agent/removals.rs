//! What leaves: names of weights and pins of images that nobody lists. Pure.
//!
//! Label first, bytes after: a name goes only when the cluster has confirmed that its label is gone.

use std::collections::BTreeSet;

use super::step::Step;
use super::world::World;
use crate::image::to_unpin;
use crate::list::{Entry, Goods, List};
use crate::node::{GoodsKind, goods_label};
use crate::types::{Digest, EntryId};

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

/// The removals to do now.
pub(super) fn removals(world: &World, list: &List, wanted: &Wanted) -> Vec<Step> {
    if !world.settled() || list.paused || list.removals_held {
        return Vec::new();
    }
    let mut steps = Vec::new();
    for id in world.weights.iter().flat_map(|weights| weights.keys()) {
        let label = goods_label(GoodsKind::Weights, id);
        let in_use = wanted.weights.contains(id)
            || world.jobs.contains_key(id)
            || world.removing.contains(id)
            || world.applied.labels.contains_key(&label);
        if !in_use {
            steps.push(Step::Retire(id.clone()));
        }
    }
    // A pull pins what it has just made before it is known here; its pins are looked at when it's over.
    let pulling = world.jobs.values().any(|job| matches!(job.entry.goods, Goods::Image(_)));
    if let Some(images) = &world.images
        && images.connected
        && world.images_were_asked_for()
        && !pulling
        && !wanted.unreadable
        && !world.unpinning
    {
        let pins = to_unpin(&images.our_pins, &wanted.pinned);
        if !pins.is_empty() {
            steps.push(Step::Unpin(pins));
        }
    }
    steps
}
