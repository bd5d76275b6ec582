use super::world::World;
use crate::list::Goods;
use crate::node::GoodsKind;

/// How many more jobs may be started.
pub(super) struct Slots {
    images: usize,
    weights: usize,
}

impl Slots {
    pub(super) fn of(world: &World) -> Self {
        let images = world.jobs.values().filter(|job| matches!(job.entry.goods, Goods::Image(_))).count();
        let weights = world.jobs.len() - images;
        Self {
            images: world.settings.image_jobs.saturating_sub(images),
            weights: world.settings.weights_jobs.saturating_sub(weights),
        }
    }

    pub(super) fn take(&mut self, kind: GoodsKind) -> bool {
        let free = match kind {
            GoodsKind::Image => &mut self.images,
            GoodsKind::Weights => &mut self.weights,
        };
        let taken = *free > 0;
        *free = free.saturating_sub(1);
        taken
    }
}
