//! Labels that the list can't speak of: pure.
//!
//! An agent that starts without a last good list, and finds none that can be read, knows of no entry. To say that
//! nothing is listed would drop the labels of a whole fleet together with its ConfigMap. To say nothing at all would
//! leave `stoker.dev/gpu` as it was when the driver has long gone. All labels are one set, so those that nobody can
//! judge are said again as they stand.

use std::collections::{BTreeMap, BTreeSet};

use super::world::World;
use crate::list::{List, Listed};
use crate::node::{GoodsKind, goods_of_label};
use crate::types::{EntryId, Revision};

/// The labels of goods on the Node whose entries may be listed, as far as anybody can tell, and whose bytes are here:
/// what isn't here is not warm, whatever the list says.
pub(super) fn left_alone(world: &World, list: &List) -> BTreeMap<String, String> {
    let (true, Some(applied)) = (list.removals_held, &world.applied) else { return BTreeMap::new() };
    let listed: BTreeSet<&EntryId> = list.entries.iter().map(Listed::id).collect();
    let stays = |key: &str, value: &str| {
        goods_of_label(key).is_some_and(|(kind, id)| {
            !listed.contains(&id)
                && match kind {
                    GoodsKind::Image => is_pinned_here(world, value),
                    GoodsKind::Weights => is_current_here(world, &id, value),
                }
        })
    };
    let labels = applied.labels.iter().filter(|(key, value)| stays(key, value));
    labels.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Without the list nobody knows the image's name, but our pin tells that it's here and that nothing collects it.
fn is_pinned_here(world: &World, value: &str) -> bool {
    let pins = world.images.iter().flat_map(|images| &images.our_pins);
    pins.into_iter().any(|pin| Revision::of_image(pin.target).short() == value)
}

fn is_current_here(world: &World, id: &EntryId, value: &str) -> bool {
    let named = world.weights.as_ref().and_then(|weights| weights.get(id));
    let current = named.and_then(|named| named.current.as_ref());
    !world.removing.contains(id) && current.is_some_and(|current| current.revision.short() == value)
}
