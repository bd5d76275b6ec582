use super::world::World;
use crate::list::Goods;
use crate::node::GoodsKind;

/// How many more jobs may be started.
pub(super) struct Slots {
    images: Free,
    weights: Free,
}

/// What is required doesn't wait for what isn't: it may have as many jobs as there were nothing else. Those under way
/// then begin no new transfer until it's there (`fetch::Urgency`).
#[derive(Default)]
struct Free {
    any: usize,
    required: usize,
}

impl Slots {
    pub(super) fn of(world: &World) -> Self {
        let free = |is_image: bool, limit: usize| {
            let jobs = world.jobs.values().map(|job| &job.entry);
            let of_this_kind = jobs.filter(|entry| matches!(entry.goods, Goods::Image(_)) == is_image);
            let (all, required) = of_this_kind
                .fold((0, 0), |(all, required), entry| (all + 1, required + usize::from(entry.required)));
            Free { any: limit.saturating_sub(all), required: limit.saturating_sub(required) }
        };
        Self {
            images: free(true, world.settings.image_jobs),
            weights: free(false, world.settings.weights_jobs),
        }
    }

    pub(super) fn take(&mut self, kind: GoodsKind, is_required: bool) -> bool {
        let free = match kind {
            GoodsKind::Image => &mut self.images,
            GoodsKind::Weights => &mut self.weights,
        };
        let taken = if is_required { free.required > 0 } else { free.any > 0 };
        if taken {
            free.any = free.any.saturating_sub(1);
            free.required = free.required.saturating_sub(usize::from(is_required));
        }
        taken
    }
}
