//! Images that somebody takes away again and again: an unpinned one that the kubelet collects for want of disk space,
//! or a pinned one that a person removes. Pulled at once each time, it would cost the network its size each time.

use std::time::Duration;

use tokio::time::Instant;

use super::standing::Hold;
use super::world::World;
use crate::list::{Goods, ImageGoods, Listed};
use crate::node::{EntryState, Reason};
use crate::rt::{Attempts, RetryPolicy};
use crate::types::{EntryId, ErrorKind};

/// What stayed this long and then went has not gone again soon. Longer than the kubelet takes between two collections.
const LASTING: Duration = Duration::from_secs(600);

/// The first time it comes back at once; from the second on it waits.
const AGAIN: RetryPolicy = RetryPolicy {
    first: Duration::from_secs(30),
    longest: Duration::from_secs(3600),
    retries: None,
    jitter: RetryPolicy::HALF,
};

/// With `--once` nobody waits for hours.
const AGAIN_ONCE: RetryPolicy = RetryPolicy {
    first: Duration::from_secs(2),
    longest: Duration::from_secs(20),
    retries: Some(3),
    jitter: RetryPolicy::HALF,
};

/// What is remembered of one image that was warm in this run.
#[derive(Debug, Clone)]
pub struct Vanishing {
    goods: ImageGoods,
    warm_since: Option<Instant>,
    times: Attempts,
    back: Back,
}

/// When it's pulled again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Back {
    Now,
    At(Instant),
    Never,
}

impl Vanishing {
    fn new(goods: &ImageGoods, now: Instant, once: bool) -> Self {
        let times = Attempts::new(if once { AGAIN_ONCE } else { AGAIN });
        Self { goods: goods.clone(), warm_since: Some(now), times, back: Back::Now }
    }

    fn is_there(&mut self, now: Instant) {
        self.warm_since.get_or_insert(now);
        self.back = Back::Now;
    }

    fn is_gone(&mut self, now: Instant, random: f64) {
        let Some(since) = self.warm_since.take() else { return };
        if now.duration_since(since) >= LASTING {
            self.times.succeeded();
        }
        let wait = self.times.failed_with(ErrorKind::Local, random);
        self.back = match wait {
            _ if self.times.failed() <= 1 => Back::Now,
            Some(wait) => Back::At(now + wait),
            None => Back::Never,
        };
    }

    /// Why it isn't pulled again yet.
    pub(super) fn hold(&self, goods: &ImageGoods, now: Instant) -> Option<Hold> {
        let held = match self.back {
            Back::Now => false,
            Back::At(at) => at > now,
            Back::Never => true,
        };
        (held && self.warm_since.is_none() && self.goods == *goods).then(|| Hold {
            state: EntryState::Failed,
            reason: Reason::new(
                "Vanished",
                format!(
                    "it was removed from containerd {} times, each time soon after it was pulled; find out who removes \
                     it (the kubelet does when its image file system is full: give it room, or set pin: true)",
                    self.times.failed()
                ),
            ),
            until: match self.back {
                Back::At(at) => Some(at),
                Back::Now | Back::Never => None,
            },
            for_good: self.back == Back::Never,
        })
    }
}

/// Takes in what containerd shows now. `random` is uniform in `0.0..1.0`.
pub(super) fn take_notice(world: &mut World, now: Instant, random: f64) {
    let (Some(list), Some(images)) = (&world.list, &world.images) else { return };
    // While it's away, nobody knows what it still has.
    if !images.connected {
        return;
    }
    let listed = |id: &EntryId| list.entries.iter().any(|listed| listed.id() == id);
    world.vanishing.retain(|id, _| listed(id));
    for entry in list.entries.iter().filter_map(Listed::entry) {
        let Goods::Image(goods) = &entry.goods else { continue };
        if !images.asked.contains(&goods.reference) {
            continue;
        }
        let there = images.by_ref.get(&goods.reference).is_some_and(|presence| presence.unpacked);
        let known = world.vanishing.get_mut(&entry.id).filter(|known| known.goods == *goods);
        match (known, there) {
            (Some(known), true) => known.is_there(now),
            (Some(known), false) => known.is_gone(now, random),
            (None, true) => {
                let new = Vanishing::new(goods, now, world.settings.once);
                world.vanishing.insert(entry.id.clone(), new);
            }
            (None, false) => {}
        }
    }
}
