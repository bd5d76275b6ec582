//! When the node is ready.

use super::*;
use crate::agent::ready::ready_by;
use crate::node::ReadyBy;

fn required(mut of: Entry) -> Entry {
    of.required = true;
    of
}

fn reached(world: &World) -> Option<ReadyBy> {
    let now = now();
    ready_by(world, &plan(world, "boot", now).report, now)
}

fn warm(world: &mut World, names: &[&str]) {
    world.weights = Some(names.iter().map(|name| (id(name), named(&weights_goods(name)))).collect());
}

#[tokio::test]
async fn it_waits_for_every_required_entry_and_for_no_other() {
    let mut world = world(listed([required(weights("a")), weights("b")]));
    assert_eq!(reached(&world), None);
    warm(&mut world, &["a"]);
    assert_eq!(reached(&world), Some(ReadyBy::AllWarm));
    world.gpu.open = false;
    assert_eq!(reached(&world), None, "nothing overrules the gate");
}

#[tokio::test]
async fn a_required_entry_that_cannot_be_read_blocks_and_one_for_other_nodes_does_not() {
    let errors = vec!["field \"image\": no".to_owned()];
    let mut list = listed([]);
    list.entries = vec![Listed::Bad { id: id("bad"), required: true, errors: errors.clone() }];
    assert_eq!(reached(&world(list.clone())), None);
    list.entries = vec![Listed::Bad { id: id("bad"), required: false, errors }];
    assert_eq!(reached(&world(list)), Some(ReadyBy::AllWarm));

    let mut elsewhere = required(weights("a"));
    let match_labels = [("zone".to_owned(), "b".to_owned())].into();
    elsewhere.nodes = Some(NodeSelector { match_labels, fraction: None });
    let mut world = world(listed([elsewhere]));
    assert_eq!(reached(&world), Some(ReadyBy::AllWarm));
    (world.facts, world.has_settled) = (None, true);
    warm(&mut world, &["a"]);
    assert_eq!(reached(&world), None, "it may be for this node");
}

#[tokio::test]
async fn a_list_that_nobody_could_ever_read_says_nothing_of_what_is_required() {
    let missing = List { known: false, removals_held: true, ..List::empty() };
    assert_eq!(reached(&world(missing)), None);
    let emptied_then_deleted = List { removals_held: true, ..listed([]) };
    assert_eq!(reached(&world(emptied_then_deleted)), Some(ReadyBy::AllWarm));
}

#[tokio::test]
async fn the_list_of_a_run_before_says_nothing_of_what_is_required_now() {
    let mut stored = world(List { current: false, ..listed([required(weights("a"))]) });
    warm(&mut stored, &["a"]);
    assert_eq!(reached(&stored), None);
    stored.settings.max_wait = Some(Duration::from_secs(60));
    stored.gate_opened_at = Some(Duration::ZERO);
    assert_eq!(reached(&stored), Some(ReadyBy::MaxWaitPassed));
}

#[tokio::test]
async fn once_reached_it_goes_only_while_the_gate_is_closed() {
    let mut world = world(listed([required(weights("new"))]));
    world.ready_by = Some(ReadyBy::AllWarm);
    assert!(planned(&world).report.ready);
    world.gpu.open = false;
    let report = planned(&world).report;
    assert!(!report.ready && report.ready_by.is_some());
    world.gpu.open = true;
    assert!(planned(&world).report.ready);
}

/// The gate opened 600 s after the boot; it's 1000 s now.
fn patient(max_wait: u64) -> World {
    let mut world = world(listed([required(weights("a"))]));
    world.settings.max_wait = Some(Duration::from_secs(max_wait));
    world.gate_opened_at = Some(Duration::from_secs(600));
    world
}

#[tokio::test]
async fn after_the_longest_wait_it_is_reached_without_the_entries_and_says_so() {
    assert_eq!(reached(&patient(400)), Some(ReadyBy::MaxWaitPassed));
    assert_eq!(reached(&patient(401)), None);
    let mut all_warm = patient(400);
    warm(&mut all_warm, &["a"]);
    assert_eq!(reached(&all_warm), Some(ReadyBy::AllWarm));
}

#[tokio::test]
async fn the_longest_wait_wakes_the_agent() {
    let started = Instant::now();
    let wait = planned(&patient(430)).wake_at.unwrap() - started;
    assert!(wait > Duration::from_secs(29) && wait < Duration::from_secs(32), "{wait:?}");
    let reached = World { ready_by: Some(ReadyBy::AllWarm), ..patient(430) };
    assert_eq!(planned(&reached).wake_at, None);
    assert_eq!(planned(&World { gate_opened_at: None, ..patient(430) }).wake_at, None);
}

#[tokio::test]
async fn the_longest_wait_counts_whatever_the_list_is_like_and_never_opens_the_gate() {
    let list = listed([required(weights("a"))]);
    let paused = List { paused: true, ..list.clone() };
    let stale = List { valid_until: Some(now().wall - SignedDuration::from_mins(6)), ..list };
    let missing = List { known: false, removals_held: true, ..List::empty() };
    for list in [paused, stale, missing] {
        let world = World { list: Some(Arc::new(list)), ..patient(400) };
        assert_eq!(reached(&world), Some(ReadyBy::MaxWaitPassed));
    }
    let mut closed = patient(400);
    closed.gpu.open = false;
    assert_eq!(reached(&closed), None);
    assert_eq!(reached(&World { gate_opened_at: None, ..patient(400) }), None);
}
