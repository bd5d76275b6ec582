//! Images that give way on a disk that is nearly full.

use super::super::pressure::take_notice;
use super::*;
use crate::image::GcThreshold;

/// Four images: `first` and `last` stand for the same one, `must` is required.
fn full(percent: u8) -> World {
    let entry =
        |name: &str, priority: u16, required: bool, of: &str| Entry { priority, required, ..image(name, of) };
    let entries = [
        entry("first", 900, false, "a:1"),
        entry("must", 100, true, "b:1"),
        entry("least", 200, false, "c:1"),
        entry("last", 100, false, "d:1"),
    ];
    let mut world = world(listed(entries.clone()));
    let mut seen =
        images([("a:1", present("a")), ("b:1", present("b")), ("c:1", present("c")), ("d:1", present("a"))]);
    seen.fullness = Some(percent);
    let pin =
        |name: &str| Pin { name: format!("docker.io/library/{name}:1"), target: Digest::of(name.as_bytes()) };
    seen.our_pins = ["a", "b", "c"].map(pin).into();
    world.images = Some(Arc::new(seen));
    world.checks = entries
        .iter()
        .map(|entry| (entry.id.clone(), check(&world, entry, Duration::from_secs(6000))))
        .collect();
    world
}

fn set(world: &mut World, percent: u8) {
    let images = Images { fullness: Some(percent), ..(**world.images.as_ref().unwrap()).clone() };
    world.images = Some(Arc::new(images));
}

fn gave_way(world: &World) -> Vec<&str> {
    world.pressure.gave_way.iter().map(EntryId::as_str).collect()
}

#[tokio::test(start_paused = true)]
async fn the_least_urgent_gives_way_label_first_and_then_the_next() {
    let mut world = full(83);
    take_notice(&mut world, now());
    assert!(gave_way(&world).is_empty());
    set(&mut world, 84);
    take_notice(&mut world, now());
    assert_eq!(gave_way(&world), ["least"]);
    // Until the cluster has taken the label's going, the pin stays.
    let value = Revision::of_image(Digest::of(b"c")).short();
    world.applied = Some(standing([("image.stoker.dev/least", &value)]));
    let plan = planned(&world);
    assert_eq!(state(&plan, "least"), (EntryState::Pending, Some("DiskPressure".to_owned())));
    assert!(steps(&plan).is_empty(), "{:?}", steps(&plan));
    world.applied = Some(standing([]));
    assert_eq!(steps(&planned(&world)), ["unpin docker.io/library/c:1"]);
    for warm in ["first", "must", "last"] {
        assert_eq!(state(&planned(&world), warm), (EntryState::Warm, None));
    }

    // The kubelet has its time; then the next one goes, with all that stand for it, and after it nobody may.
    take_notice(&mut world, now());
    assert_eq!(gave_way(&world), ["least"]);
    tokio::time::advance(world.pressure.wake_at().unwrap() - Instant::now()).await;
    take_notice(&mut world, now());
    assert_eq!(gave_way(&world), ["first", "last", "least"]);
    tokio::time::advance(Duration::from_secs(3600)).await;
    take_notice(&mut world, now());
    assert_eq!((gave_way(&world).len(), world.pressure.wake_at()), (3, None), "what is required never does");
}

#[tokio::test(start_paused = true)]
async fn it_comes_back_when_there_is_room() {
    let mut world = full(99);
    take_notice(&mut world, now());
    for (percent, stays) in [(84, true), (80, true), (79, true), (78, false)] {
        set(&mut world, percent);
        let back = full(percent);
        take_notice(&mut world, now());
        assert_eq!(gave_way(&world).is_empty(), !stays, "{percent}");
        assert!(gave_way(&back).is_empty());
    }
    // Its image is still there: it's warm again at once, and its pin is mended.
    assert_eq!(state(&planned(&world), "least"), (EntryState::Warm, None));
}

#[tokio::test(start_paused = true)]
async fn what_is_being_fetched_unknown_or_off_the_list_is_left_alone() {
    let mut world = full(99);
    let least = image("least", "c:1");
    world.jobs = [(id("least"), job(least))].into();
    take_notice(&mut world, now());
    assert_eq!(gave_way(&world), ["first", "last"]);

    let mut away = full(99);
    away.images = Some(Arc::new(Images { connected: false, ..(**away.images.as_ref().unwrap()).clone() }));
    take_notice(&mut away, now());
    assert!(gave_way(&away).is_empty());

    let mut never = full(100);
    never.settings.gc_threshold = GcThreshold(100);
    take_notice(&mut never, now());
    assert!(gave_way(&never).is_empty(), "a kubelet that removes nothing");

    take_notice(&mut world, now());
    world.list = Some(Arc::new(listed([image("other", "x:1")])));
    take_notice(&mut world, now());
    assert!(gave_way(&world).is_empty());
    let unpinned = Goods::Image(ImageGoods { reference: "c:1".parse().unwrap(), pin: false });
    let mut kept = full(99);
    kept.list = Some(Arc::new(listed([Entry { goods: unpinned, ..image("least", "c:1") }])));
    let mut seen = (**kept.images.as_ref().unwrap()).clone();
    seen.our_pins.clear();
    kept.images = Some(Arc::new(seen));
    take_notice(&mut kept, now());
    assert!(gave_way(&kept).is_empty(), "it has no pin to lose");
}
