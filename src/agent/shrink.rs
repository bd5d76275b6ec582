//! Unneeded bytes that go although nobody here needs their room: the kubelet does. Pure.
//!
//! Where the cache is on a disk that the kubelet watches, it keeps below the kubelet's threshold as images do: what no
//! entry needs goes before an image or a pod does. On a disk of its own it may fill up to its reserve.

use super::world::World;

/// How many bytes are to be given up now. At one percent below the threshold it begins, and it ends six below it.
pub(super) fn shrink(world: &World) -> Option<u64> {
    let threshold = world.settings.gc_threshold;
    let (begin, end) = (threshold.pins_give_way()?, threshold.pins_come_back()?);
    let room = world.room.filter(|_| world.settings.on_kubelets_disk && !world.settings.once)?;
    if world.shrinking || room.spare == 0 || room.full < begin {
        return None;
    }
    let over = u64::from(room.full.saturating_sub(end));
    Some((room.total / 100).saturating_mul(over).min(room.spare))
}

#[cfg(test)]
mod tests {
    use super::super::world::Settings;
    use super::*;
    use crate::image::GcThreshold;
    use crate::weights::Room;

    fn world(full: u8, spare: u64) -> World {
        let mut settings = Settings::new("node-a");
        (settings.on_kubelets_disk, settings.gc_threshold) = (true, GcThreshold(85));
        let room = Some(Room { free: 0, spare, full, total: 1000 });
        World { room, ..World::new(settings) }
    }

    #[test]
    fn it_shrinks_to_the_low_water_mark_and_by_no_more_than_there_is() {
        assert_eq!(shrink(&world(83, 500)), None);
        assert_eq!(shrink(&world(84, 500)), Some(50));
        assert_eq!(shrink(&world(99, 500)), Some(200));
        assert_eq!(shrink(&world(99, 30)), Some(30));
        assert_eq!(shrink(&world(99, 0)), None);
    }

    #[test]
    fn not_twice_at_once_not_on_its_own_disk_and_not_for_a_kubelet_that_removes_nothing() {
        assert_eq!(shrink(&World { shrinking: true, ..world(99, 500) }), None);
        let mut own = world(99, 500);
        own.settings.on_kubelets_disk = false;
        assert_eq!(shrink(&own), None);
        let mut never = world(99, 500);
        never.settings.gc_threshold = GcThreshold(100);
        assert_eq!(shrink(&never), None);
    }
}
