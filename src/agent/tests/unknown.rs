//! What isn't known yet: this node's labels, or the list itself.

use super::*;
use crate::node::labels;

fn selecting(mut of: Entry, key: &str, value: &str) -> Entry {
    let match_labels = [(key.to_owned(), value.to_owned())].into();
    of.nodes = Some(NodeSelector { match_labels, fraction: None });
    of
}

fn labelled(key: &str, value: &str) -> Option<Arc<NodeFacts>> {
    let labels = [(key.to_owned(), value.to_owned())].into();
    Some(Arc::new(NodeFacts { name: "node-a".to_owned(), labels }))
}

#[tokio::test]
async fn until_the_nodes_labels_are_known_only_what_asks_for_them_waits() {
    let zone = selecting(weights("zone"), "zone", "b");
    let mut some = weights("some");
    some.nodes = Some(NodeSelector { match_labels: BTreeMap::new(), fraction: Some(1.0) });
    let mut world = world(listed([zone, some, weights("all")]));
    world.facts = None;
    world.has_settled = true;
    world.weights = Some([(id("zone"), named(&weights_goods("zone")))].into());
    let plan = planned(&world);
    assert_eq!(steps(&plan), ["ensure some", "ensure all"], "a fraction asks for the name alone");
    assert_eq!(state(&plan, "zone"), (EntryState::Pending, Some("NodeUnknown".to_owned())));
    assert!(labels(&plan.report).unwrap().contains_key("weights.stoker.dev/zone"), "what is there stays");
    assert!(!plan.report.done);
}

#[tokio::test]
async fn a_job_goes_on_while_the_nodes_labels_are_unknown() {
    let zone = selecting(weights("zone"), "zone", "b");
    let mut world = world(listed([zone.clone()]));
    world.facts = None;
    world.jobs = [(id("zone"), job(zone))].into();
    assert!(steps(&planned(&world)).is_empty());
    world.facts = labelled("zone", "a");
    assert_eq!(steps(&planned(&world)), ["cancel zone"]);
}

#[tokio::test]
async fn an_images_pin_stays_while_the_nodes_labels_are_unknown() {
    let mut world = world(listed([selecting(image("a", "nginx:1"), "zone", "b")]));
    let mut seen = images([("nginx:1", present("x"))]);
    seen.our_pins = vec![Pin { name: "docker.io/library/nginx:1".to_owned(), target: Digest::of(b"x") }];
    world.images = Some(Arc::new(seen));
    world.has_settled = true;
    world.facts = None;
    assert!(steps(&planned(&world)).is_empty());
    world.facts = labelled("zone", "a");
    assert_eq!(steps(&planned(&world)), ["unpin docker.io/library/nginx:1"]);
}

#[tokio::test]
async fn a_label_of_the_node_that_changes_starts_and_ends_an_entry() {
    let mut world = world(listed([selecting(weights("a"), "zone", "b")]));
    assert_eq!(state(&planned(&world), "a").0, EntryState::Skipped);
    world.facts = labelled("zone", "b");
    assert_eq!(steps(&planned(&world)), ["ensure a"]);

    // It leaves like an unlisted one: the label first.
    world.weights = Some([(id("a"), named(&weights_goods("a")))].into());
    world.facts = labelled("zone", "c");
    world.applied = Some(standing([("weights.stoker.dev/a", "0123")]));
    let plan = planned(&world);
    assert!(steps(&plan).is_empty() && !labels(&plan.report).unwrap().contains_key("weights.stoker.dev/a"));
    world.applied = Some(standing([]));
    assert_eq!(steps(&planned(&world)), ["retire a"]);
}

/// What `without_document` makes of nothing.
fn missing() -> List {
    List {
        known: false,
        removals_held: true,
        errors: vec!["the ConfigMap stoker-list does not exist".to_owned()],
        ..List::empty()
    }
}

fn revision_of(target: &str) -> String {
    Revision::of_image(Digest::of(target.as_bytes())).short()
}

/// A node with an earlier life: two sets of weights and two images are labelled, and of each one is still here.
fn with_a_past(list: List) -> World {
    let mut world = world(list);
    world.weights = Some([(id("here"), named(&weights_goods("here")))].into());
    let pin = Pin { name: "docker.io/library/nginx:1".to_owned(), target: Digest::of(b"pinned") };
    world.images = Some(Arc::new(Images { our_pins: vec![pin], ..images([]) }));
    world.applied = Some(standing([
        ("weights.stoker.dev/here", revision_of("revision").as_str()),
        ("weights.stoker.dev/gone", "0123"),
        ("image.stoker.dev/here", &revision_of("pinned")),
        ("image.stoker.dev/gone", "4567"),
        ("stoker.dev/ready", "true"),
    ]));
    world
}

#[tokio::test]
async fn a_list_that_nobody_could_ever_read_drops_no_label_of_what_is_here() {
    let unreadable = List { content: Some(Digest::of(b"entries: [")), ..missing() };
    for list in [missing(), unreadable] {
        let plan = planned(&with_a_past(list));
        let said = labels(&plan.report).unwrap();
        let keys: Vec<&str> = said.keys().map(String::as_str).collect();
        assert_eq!(keys, ["image.stoker.dev/here", "stoker.dev/gpu", "weights.stoker.dev/here"]);
        assert!(steps(&plan).is_empty(), "and nothing is removed");
        assert!(!plan.report.list.known && !plan.report.list.errors.is_empty());
    }
}

#[tokio::test]
async fn without_a_list_the_label_of_the_gpus_still_tells_how_they_are() {
    let mut world = with_a_past(missing());
    world.gpu.open = false;
    world.gpu.phase = GpuPhase::Failed;
    let said = labels(&planned(&world).report).unwrap();
    assert!(!said.contains_key("stoker.dev/gpu") && said.contains_key("weights.stoker.dev/here"));
}

#[tokio::test]
async fn labels_that_are_left_alone_go_when_the_list_is_there_and_does_not_name_them() {
    let world = with_a_past(listed([]));
    let said = labels(&planned(&world).report).unwrap();
    assert_eq!(said.keys().collect::<Vec<_>>(), ["stoker.dev/gpu"]);
}

#[tokio::test]
async fn an_entry_without_a_readable_id_may_be_any_of_those_that_are_labelled() {
    let list = List { removals_held: true, ..listed([weights("other")]) };
    let plan = planned(&with_a_past(list));
    assert!(labels(&plan.report).unwrap().contains_key("weights.stoker.dev/here"));
    assert_eq!(steps(&plan), ["ensure other"]);
}

#[tokio::test]
async fn names_that_are_being_removed_are_never_labelled_again_for_want_of_a_list() {
    let mut world = with_a_past(missing());
    world.removing = [id("here")].into();
    assert!(!labels(&planned(&world).report).unwrap().contains_key("weights.stoker.dev/here"));
}
