//! Where one entry stands, given what is known: pure.

use tokio::time::Instant;

use super::ready::gate_is_open;
use super::world::{Failure, GateMode, Now, World};
use crate::list::{Entry, Goods, ImageGoods, List, WeightsGoods};
use crate::node::{EntryState, GoodsKind, Reason, goods_label};
use crate::types::{GpuPhase, Revision};

/// What is there of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// The revision that is warm and carries the label; of an older version of the entry, perhaps.
    pub(super) warm: Option<Revision>,
    /// Whether what is warm is what the entry, as it now is, asks for.
    pub(super) satisfied: bool,
    /// Whether all of it was checked against a published digest.
    pub(super) verified: bool,
    /// Warm, but something beside the bytes is wrong: the pin is missing.
    pub(super) mend: bool,
}

/// Why an entry isn't started now.
pub(super) struct Hold {
    pub(super) state: EntryState,
    pub(super) reason: Reason,
    /// When time alone ends it.
    pub(super) until: Option<Instant>,
    /// It won't end by itself in this run.
    pub(super) for_good: bool,
}

/// Image or weights.
pub(super) fn kind(goods: &Goods) -> GoodsKind {
    match goods {
        Goods::Image(_) => GoodsKind::Image,
        Goods::Weights(_) => GoodsKind::Weights,
    }
}

/// Where its bytes come from, for people.
pub(super) fn source(goods: &Goods) -> String {
    match goods {
        Goods::Image(image) => image.reference.to_string(),
        Goods::Weights(weights) => weights.uri.to_string(),
    }
}

pub(super) fn standing(world: &World, entry: &Entry) -> Standing {
    match &entry.goods {
        Goods::Image(goods) => image_standing(world, entry, goods),
        Goods::Weights(goods) => weights_standing(world, entry, goods),
    }
}

fn image_standing(world: &World, entry: &Entry, goods: &ImageGoods) -> Standing {
    let unpacked = |reference| {
        world
            .images
            .as_ref()
            .and_then(|images| images.by_ref.get(reference))
            .filter(|presence| presence.unpacked)
    };
    if let Some(presence) = unpacked(&goods.reference) {
        return Standing {
            warm: Some(Revision::of_image(presence.target)),
            satisfied: true,
            verified: true,
            mend: goods.pin && !presence.pinned,
        };
    }
    let older = world.last_warm.get(&entry.id).and_then(unpacked);
    Standing {
        warm: older.map(|presence| Revision::of_image(presence.target)),
        satisfied: false,
        verified: true,
        mend: false,
    }
}

fn weights_standing(world: &World, entry: &Entry, goods: &WeightsGoods) -> Standing {
    let named = world.weights.as_ref().and_then(|weights| weights.get(&entry.id));
    let current = named.and_then(|named| named.current.as_ref());
    let refused = |verified: bool| world.settings.verified_only && !verified;
    match current {
        Some(current) if !refused(current.verified) => Standing {
            warm: Some(current.revision),
            satisfied: current.fingerprint == goods.fingerprint(),
            verified: current.verified,
            mend: false,
        },
        _ => Standing { warm: None, satisfied: false, verified: false, mend: false },
    }
}

/// Whether its source can have something newer. A digest never moves.
pub(super) fn moves(entry: &Entry) -> bool {
    match &entry.goods {
        Goods::Image(goods) => goods.reference.digest().is_none(),
        Goods::Weights(_) => true,
    }
}

/// Whether its source should be looked at again, although it's warm. A digest never moves, so it needs no look.
pub(super) fn check_due(world: &World, list: &List, entry: &Entry, standing: Standing, now: Now) -> bool {
    let moves = moves(entry);
    let Some(check) = world.checks.get(&entry.id).filter(|check| *check.entry == *entry) else {
        return moves || standing.mend;
    };
    let asked_for_another = check.content != list.content;
    (moves && (asked_for_another || now.monotonic >= check.due))
        || (standing.mend && now.monotonic >= check.mend_at)
}

/// Whether anything may be started at all; the node as a whole, not this entry, is the reason if not. With `--once`
/// only the driver is waited for: nobody comes to mend the list, or to put a GPU in.
pub(super) fn node_hold(world: &World, list: &List, now: Now) -> Option<Hold> {
    let hold = |code, message: String| Hold {
        state: EntryState::Pending,
        reason: Reason::new(code, message),
        until: None,
        for_good: world.settings.once,
    };
    if list.paused {
        return Some(hold("Paused", "the list says paused: true".to_owned()));
    }
    if is_stale(list, now) {
        return Some(hold("ListExpired", "the list is past its validUntil; push a newer one".to_owned()));
    }
    if world.settings.gate == GateMode::Label || world.gate_opened || gate_is_open(world) {
        return None;
    }
    let advice = world.gpu.reason.advice().to_owned();
    Some(match world.gpu.phase {
        GpuPhase::NotApplicable => hold("NoGpu", advice),
        _ => Hold { for_good: false, ..hold("GateClosed", advice) },
    })
}

/// Clocks of a cluster disagree.
pub(super) const CLOCK_TOLERANCE: jiff::SignedDuration = jiff::SignedDuration::from_mins(5);

/// Past `validUntil`, and not just by another clock.
pub(super) fn is_stale(list: &List, now: Now) -> bool {
    list.valid_until.is_some_and(|until| now.wall.duration_since(until) > CLOCK_TOLERANCE)
}

/// Past `expiresAt`: then the entry isn't listed any more.
pub(super) fn is_expired(entry: &Entry, now: Now) -> bool {
    entry.expires_at.is_some_and(|at| now.wall >= at)
}

/// Why this entry isn't started, beside what holds the whole node: its store is away, it failed lately, or what it
/// would replace is still spoken of.
pub(super) fn entry_hold(world: &World, list: &List, entry: &Entry, now: Now) -> Option<Hold> {
    if let Some(failure) = failed_before(world, list, entry)
        && failure.retry_at.is_none_or(|at| at > now.monotonic)
    {
        return Some(Hold {
            state: EntryState::Failed,
            reason: failure.reason.clone(),
            until: failure.retry_at,
            for_good: failure.for_good,
        });
    }
    if let Goods::Image(goods) = &entry.goods
        && let Some(vanishing) = world.vanishing.get(&entry.id)
        && let Some(hold) = vanishing.hold(goods, now.monotonic)
    {
        return Some(hold);
    }
    let reason = match (&entry.goods, &world.images, &world.weights) {
        // With `--once` it is tried all the same: then the tries are counted, and end.
        (Goods::Image(_), Some(images), _) if !images.connected && !world.settings.once => {
            Reason::new("ContainerdUnavailable", images.problem.clone().unwrap_or_default())
        }
        // A sweep that wasn't asked for it says nothing about it; the next one begins as soon as it's listed.
        (Goods::Image(goods), Some(images), _)
            if images.connected && !images.asked.contains(&goods.reference) =>
        {
            Reason::new("Starting", "containerd has not been asked for it yet")
        }
        (Goods::Image(_), None, _) => Reason::new("Starting", "containerd has not been asked yet"),
        (Goods::Weights(_), _, None) => Reason::new("Starting", "the cache has not been read yet"),
        (Goods::Weights(_), _, Some(_)) if world.cache_problem.is_some() => {
            Reason::new("CacheMoved", world.cache_problem.clone().unwrap_or_default())
        }
        (Goods::Weights(_), _, Some(_)) if world.superseded.is_leaving(&entry.id) => {
            Reason::new("Removing", "the names of its older revisions are being removed")
        }
        (Goods::Weights(_), _, Some(_)) if broken_may_be_labelled(world, entry) => {
            Reason::new("LabelPending", "the API server has not confirmed that its label is gone")
        }
        (Goods::Weights(_), _, Some(_)) if older_may_be_labelled(world, entry) => Reason::new(
            "LabelPending",
            "the API server has not confirmed the label of the revision before it",
        ),
        (Goods::Image(_), Some(_), _) | (Goods::Weights(_), _, Some(_)) => return None,
    };
    Some(Hold { state: EntryState::Pending, reason, until: None, for_good: false })
}

/// How it failed last, if it's the same entry in the same list.
pub(super) fn failed_before<'w>(world: &'w World, list: &List, entry: &Entry) -> Option<&'w Failure> {
    let failure = world.failures.get(&entry.id)?;
    (*failure.entry == *entry && failure.content == list.content).then_some(failure)
}

/// Whether the node's label may still stand for weights that turned out not to be as they should: mending them takes
/// away what it stands for.
fn broken_may_be_labelled(world: &World, entry: &Entry) -> bool {
    let named = world.weights.as_ref().and_then(|weights| weights.get(&entry.id));
    let is_broken = named.is_some_and(|named| named.current.is_none() && named.problem.is_some());
    let applied = world.applied.as_ref().filter(|_| is_broken && world.has_settled);
    applied
        .is_some_and(|applied| applied.values(&goods_label(GoodsKind::Weights, &entry.id)).next().is_some())
}

/// Whether the node's label may still name a revision of these weights that isn't the current one. The cache keeps
/// the one before the current; switched once more, it would take away what that label stands for.
pub(super) fn older_may_be_labelled(world: &World, entry: &Entry) -> bool {
    let named = world.weights.as_ref().and_then(|weights| weights.get(&entry.id));
    let older = named.map(|named| named.other.as_slice()).unwrap_or_default();
    let key = goods_label(GoodsKind::Weights, &entry.id);
    match &world.applied {
        Some(applied) => applied.values(&key).any(|value| older.iter().any(|older| older == value)),
        None => !older.is_empty(),
    }
}
