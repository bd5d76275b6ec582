//! Entries that somebody on this node has asked for.

use super::*;

fn for_others(mut of: Entry) -> Entry {
    let match_labels = [("zone".to_owned(), "b".to_owned())].into();
    of.nodes = Some(NodeSelector { match_labels, fraction: None });
    of
}

fn asked_for(list: List, ids: &[&str]) -> World {
    World { requested: ids.iter().map(|name| id(name)).collect(), ..world(list) }
}

#[tokio::test]
async fn what_is_asked_for_applies_although_its_nodes_leave_this_one_out() {
    let mut few = weights("few");
    few.nodes = Some(NodeSelector { match_labels: BTreeMap::new(), fraction: Some(1e-9) });
    let list = listed([for_others(weights("a")), few, for_others(weights("c"))]);
    let plan = planned(&asked_for(list.clone(), &["a", "few"]));
    assert_eq!(steps(&plan), ["ensure a", "ensure few"]);
    let requested = plan.report.entries.iter().filter(|entry| entry.requested);
    assert_eq!(requested.map(|entry| entry.id.as_str()).collect::<Vec<_>>(), ["a", "few"]);
    assert_eq!(state(&plan, "c").0, EntryState::Skipped);

    let mut unknown = asked_for(list, &["a"]);
    unknown.facts = None;
    assert_eq!(steps(&planned(&unknown)), ["ensure a"], "its nodes no longer matter, so nobody is asked");
}

#[tokio::test]
async fn asking_revives_nothing_that_has_expired_and_lists_nothing() {
    let mut expired = for_others(weights("a"));
    expired.expires_at = Some(now().wall - SignedDuration::from_mins(1));
    let plan = planned(&asked_for(listed([expired]), &["a", "unlisted"]));
    assert!(steps(&plan).is_empty());
    assert_eq!(state(&plan, "a"), (EntryState::Skipped, Some("Expired".to_owned())));
    assert_eq!(plan.report.entries.len(), 1);
}

#[tokio::test]
async fn what_is_asked_for_counts_like_any_other_entry() {
    let entries = (0..65).map(|n| for_others(weights(&format!("w{n:02}")))).collect::<Vec<_>>();
    let mut world = world(listed(entries.clone()));
    world.requested = entries.iter().map(|entry| entry.id.clone()).collect();
    let plan = planned(&world);
    assert_eq!(state(&plan, "w64").0, EntryState::OverLimit);
    assert_ne!(state(&plan, "w63").0, EntryState::OverLimit);
}

#[tokio::test]
async fn what_is_no_longer_asked_for_leaves_like_an_unlisted_one() {
    let mut world = asked_for(listed([for_others(weights("a"))]), &["a"]);
    world.weights = Some([(id("a"), named(&weights_goods("a")))].into());
    world.checks = [(id("a"), check(&world, &for_others(weights("a")), Duration::from_secs(600)))].into();
    let plan = planned(&world);
    assert!(steps(&plan).is_empty() && state(&plan, "a").0 == EntryState::Warm);
    world.requested.clear();
    assert_eq!(steps(&planned(&world)), ["retire a"]);
}
