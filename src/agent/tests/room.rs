//! A cache that is too small: who gives way to whom, and what old revisions leave.

use super::super::{superseded, yielding};
use super::*;
use crate::agent::yielding::Lack;
use crate::node::labels;

const NEEDED: u64 = 50;

/// `high` failed for want of room; `low`, `lower`, `equal` and `must` are warm.
fn short_of_room() -> World {
    let of = |name: &str, priority: u16| Entry { priority, ..weights(name) };
    let must = Entry { required: true, ..of("must", 0) };
    let entries = [of("high", 900), of("low", 200), of("lower", 100), of("equal", 900), must];
    let mut world = world(listed(entries.clone()));
    let warm = ["low", "lower", "equal", "must"];
    world.weights = Some(warm.map(|name| (id(name), named(&weights_goods(name)))).into());
    world.checks = entries[1..]
        .iter()
        .map(|entry| (entry.id.clone(), check(&world, entry, Duration::from_secs(6000))))
        .collect();
    let failure = Failure {
        entry: Arc::new(entries[0].clone()),
        content: world.list.as_ref().unwrap().content,
        attempts: Attempts::new(RetryPolicy::ENTRY),
        retry_at: Some(Instant::now() + Duration::from_secs(900)),
        reason: Reason::new("NoSpace", "50 more bytes are needed"),
        for_good: false,
        lack: Some(Lack { needed: NEEDED, short: 40, had: 10, looked_at: None }),
    };
    world.failures = [(id("high"), failure)].into();
    world
}

#[tokio::test(start_paused = true)]
async fn only_the_less_urgent_are_asked_the_least_urgent_first() {
    let world = short_of_room();
    assert_eq!(steps(&planned(&world)), ["find 40 for high from lower low"]);
    assert_eq!(state(&planned(&world), "high"), (EntryState::Failed, Some("NoSpace".to_owned())));

    let mut looked = short_of_room();
    let lack = looked.failures.get_mut(&id("high")).unwrap().lack.as_mut().unwrap();
    lack.looked_at = Some(Instant::now());
    assert!(steps(&planned(&looked)).is_empty(), "not again at once");
    let wake = yielding::wake_at(&looked, now()).unwrap();
    tokio::time::advance(wake - Instant::now()).await;
    assert_eq!(steps(&planned(&looked)).len(), 1);

    let mut enough = short_of_room();
    enough.failures.get_mut(&id("high")).unwrap().lack.as_mut().unwrap().short = 0;
    let paused = World {
        list: Some(Arc::new(List { paused: true, ..(**world.list.as_ref().unwrap()).clone() })),
        ..world.clone()
    };
    for nobody in [enough, paused] {
        assert!(
            steps(&planned(&nobody)).iter().all(|step| !step.starts_with("find")),
            "{:?}",
            steps(&planned(&nobody))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn who_gives_way_loses_its_label_then_its_names_and_comes_back_afterwards() {
    let mut world = short_of_room();
    world.yielding.to = [(id("lower"), id("high"))].into();
    yielding::take_notice(&mut world, now());
    let label = labels(&planned(&world).report).unwrap();
    assert!(!label.contains_key("weights.stoker.dev/lower") && label.contains_key("weights.stoker.dev/low"));
    assert_eq!(state(&planned(&world), "lower"), (EntryState::Pending, Some("GivesWay".to_owned())));
    world.applied = Some(standing([("weights.stoker.dev/lower", "0123")]));
    assert!(steps(&planned(&world)).is_empty(), "the label may still stand");
    world.applied = Some(standing([]));
    assert_eq!(steps(&planned(&world)), ["retire lower"]);

    // Its names are gone; until the newcomer is there, it's left alone.
    world.weights.as_mut().unwrap().remove(&id("lower"));
    yielding::take_notice(&mut world, now());
    assert!(steps(&planned(&world)).is_empty());
    world.weights.as_mut().unwrap().insert(id("high"), named(&weights_goods("high")));
    world.failures.clear();
    yielding::take_notice(&mut world, now());
    assert!(world.yielding.to.is_empty());
    assert!(steps(&planned(&world)).contains(&"ensure lower".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn nobody_gives_way_for_one_that_no_longer_waits_for_room() {
    for change in 0..3 {
        let mut world = short_of_room();
        world.yielding.to = [(id("lower"), id("high"))].into();
        match change {
            0 => world.list = Some(Arc::new(listed([weights("lower")]))),
            1 => world.failures.get_mut(&id("high")).unwrap().lack = None,
            _ => {
                let equal = Entry { priority: 100, ..weights("high") };
                let lower = Entry { priority: 100, ..weights("lower") };
                world.list = Some(Arc::new(listed([equal, lower])));
            }
        }
        yielding::take_notice(&mut world, now());
        assert!(world.yielding.to.is_empty(), "{change}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_of_one_that_gives_way_is_stopped_first() {
    let mut world = short_of_room();
    world.yielding.to = [(id("lower"), id("high"))].into();
    let lower = Entry { priority: 100, ..weights("lower") };
    world.jobs = [(id("lower"), job(lower))].into();
    assert_eq!(steps(&planned(&world)), ["cancel lower"]);
}

#[tokio::test(start_paused = true)]
async fn old_revisions_go_after_their_time_when_no_label_names_them() {
    let mut shown = named(&weights_goods("a"));
    shown.other = vec!["0123456789ab".to_owned()];
    let mut world = world(listed([weights("a")]));
    world.weights = Some([(id("a"), shown)].into());
    world.checks = [(id("a"), check(&world, &weights("a"), Duration::from_secs(6000)))].into();
    superseded::take_notice(&mut world, Instant::now());
    assert!(steps(&planned(&world)).is_empty(), "a pod may be on its way to it");
    tokio::time::advance(world.superseded.wake_at(Instant::now()).unwrap() - Instant::now()).await;
    world.applied = Some(standing([("weights.stoker.dev/a", "0123456789ab")]));
    assert!(steps(&planned(&world)).is_empty(), "the label may still name it");
    world.applied = Some(standing([]));
    assert_eq!(steps(&planned(&world)), ["drop old a"]);

    world.superseded.begin(&id("a"));
    assert!(steps(&planned(&world)).is_empty());
    world.superseded.ended(&id("a"), Instant::now());
    assert!(steps(&planned(&world)).is_empty(), "what is in use isn't looked at without a pause");
    world.weights = Some([(id("a"), named(&weights_goods("a")))].into());
    superseded::take_notice(&mut world, Instant::now());
    assert_eq!(world.superseded.wake_at(Instant::now()), None);
}

#[tokio::test(start_paused = true)]
async fn what_is_broken_is_mended_when_its_label_is_gone() {
    let mut world = world(listed([weights("a")]));
    world.has_settled = true;
    world.weights =
        Some([(id("a"), Named { problem: Some("corrupt".to_owned()), ..Named::default() })].into());
    world.applied = Some(standing([("weights.stoker.dev/a", "0123456789ab")]));
    assert_eq!(state(&planned(&world), "a"), (EntryState::Pending, Some("LabelPending".to_owned())));
    assert!(steps(&planned(&world)).is_empty());
    world.applied = Some(standing([]));
    assert_eq!(steps(&planned(&world)), ["ensure a"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_fetched_into_a_cache_whose_disk_is_gone() {
    let mut world = world(listed([weights("a"), weights("b")]));
    world.weights = Some(BTreeMap::new());
    world.cache_problem = Some("its disk was unmounted".to_owned());
    world.jobs = [(id("b"), job(weights("b")))].into();
    assert_eq!(steps(&planned(&world)), ["cancel b"]);
    assert_eq!(state(&planned(&world), "a"), (EntryState::Pending, Some("CacheMoved".to_owned())));
}
