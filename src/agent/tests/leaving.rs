//! What is removed, and what holds it back.

use super::*;

#[tokio::test]
async fn weights_off_the_list_keep_their_names_until_their_label_is_gone() {
    let mut world = world(listed([]));
    world.weights = Some([(id("gone"), named(&weights_goods("gone")))].into());
    world.applied = Some(standing([("weights.stoker.dev/gone", "0123")]));
    let plan = planned(&world);
    assert!(steps(&plan).is_empty() && plan.report.entries.is_empty() && !plan.report.done);
    world.applied = Some(standing([]));
    assert_eq!(steps(&planned(&world)), ["retire gone"]);
}

#[tokio::test]
async fn weights_that_are_listed_again_wait_until_their_names_are_removed() {
    let mut world = world(listed([weights("back")]));
    world.weights = Some([(id("back"), named(&weights_goods("back")))].into());
    world.removing = [id("back")].into();
    let plan = planned(&world);
    assert_eq!(state(&plan, "back"), (EntryState::Pending, Some("Removing".to_owned())));
    assert!(steps(&plan).is_empty() && plan.report.entries[0].revision.is_none());
    assert!(!plan.report.done);
}

#[tokio::test]
async fn nothing_leaves_while_the_list_is_held_paused_or_not_all_is_known() {
    let mut world = world(listed([]));
    world.weights = Some([(id("gone"), named(&weights_goods("gone")))].into());
    let removes = |world: &World| !steps(&planned(world)).is_empty();
    assert!(removes(&world));

    let held = List { removals_held: true, ..listed([]) };
    let paused = List { paused: true, ..listed([]) };
    for list in [held, paused] {
        let world = World { list: Some(Arc::new(list)), ..world.clone() };
        assert!(!removes(&world));
    }
    for unknown in [World { list: None, ..world.clone() }, World { images: None, ..world.clone() }] {
        assert!(!removes(&unknown) && !planned(&unknown).report.settled);
    }
}

#[tokio::test]
async fn pins_go_when_nobody_lists_the_image_and_stay_when_somebody_does() {
    let mut world = world(listed([image("a", "nginx:1")]));
    let mut seen = images([("nginx:1", present("kept"))]);
    let pin = |name: &str, target: &str| Pin { name: name.to_owned(), target: Digest::of(target.as_bytes()) };
    seen.our_pins = vec![pin("docker.io/library/nginx:1", "kept"), pin("docker.io/library/old:1", "gone")];
    world.images = Some(Arc::new(seen));
    world.checks = [(id("a"), check(&world, &image("a", "nginx:1"), Duration::from_secs(600)))].into();
    assert_eq!(steps(&planned(&world)), ["unpin docker.io/library/old:1"]);
}

#[tokio::test]
async fn a_pin_goes_after_its_label_and_not_while_an_image_is_being_made_warm() {
    let mut world = world(listed([]));
    let mut seen = images([]);
    seen.our_pins = vec![Pin { name: "docker.io/library/old:1".to_owned(), target: Digest::of(b"gone") }];
    world.images = Some(Arc::new(seen));
    let revision = Revision::of_image(Digest::of(b"gone")).short();
    world.applied = Some(standing([("image.stoker.dev/a", &revision)]));
    let plan = planned(&world);
    assert!(steps(&plan).is_empty() && !plan.report.done, "what waits for a label is still to be done");
    world.applied = Some(standing([]));
    assert_eq!(steps(&planned(&world)), ["unpin docker.io/library/old:1"]);

    // The new entry may be the same image by another name.
    let list = listed([image("b", "nginx:1")]);
    let mut seen = Images::clone(world.images.as_ref().unwrap());
    seen.asked.insert("nginx:1".parse().unwrap());
    let world = World { list: Some(Arc::new(list)), images: Some(Arc::new(seen)), ..world };
    assert_eq!(steps(&planned(&world)), ["ensure b"]);
}

#[tokio::test]
async fn a_pin_that_the_list_no_longer_wants_goes_although_the_image_stays_labelled() {
    let mut unpinned = image("a", "nginx:1");
    unpinned.goods = Goods::Image(ImageGoods { reference: "nginx:1".parse().unwrap(), pin: false });
    let mut world = world(listed([unpinned.clone()]));
    let mut seen = images([("nginx:1", present("x"))]);
    seen.our_pins = vec![Pin { name: "docker.io/library/nginx:1".to_owned(), target: Digest::of(b"x") }];
    world.images = Some(Arc::new(seen));
    world.checks = [(id("a"), check(&world, &unpinned, Duration::from_secs(600)))].into();
    let revision = Revision::of_image(Digest::of(b"x")).short();
    world.applied = Some(standing([("image.stoker.dev/a", &revision)]));
    assert_eq!(steps(&planned(&world)), ["unpin docker.io/library/nginx:1"]);
}

#[tokio::test]
async fn a_sweep_that_began_before_the_list_was_known_says_nothing_of_its_images() {
    let mut world = world(listed([image("a", "nginx:1")]));
    let pin = Pin { name: "docker.io/library/nginx:1".to_owned(), target: Digest::of(b"x") };
    let early = Images { our_pins: vec![pin.clone()], ..images([]) };
    world.images = Some(Arc::new(early.clone()));
    let plan = planned(&world);
    assert_eq!((steps(&plan), plan.report.settled), (Vec::new(), false), "neither pulled again nor unpinned");
    assert_eq!(state(&plan, "a"), (EntryState::Pending, Some("Starting".to_owned())));

    let swept = Images { our_pins: vec![pin], ..images([("nginx:1", present("x"))]) };
    world.images = Some(Arc::new(swept));
    assert!(planned(&world).report.settled);

    // Later a new image is listed: what was settled stays so, and its pin waits until it was asked for.
    world.has_settled = true;
    world.images = Some(Arc::new(early));
    let plan = planned(&world);
    assert_eq!((steps(&plan), plan.report.settled), (Vec::new(), true));
}

#[tokio::test]
async fn an_expired_entry_and_one_for_other_nodes_are_not_listed_here() {
    let mut expired = weights("expired");
    expired.expires_at = Some("2026-11-24T11:00:00Z".parse().unwrap());
    let mut elsewhere = weights("elsewhere");
    let labels = [("zone".to_owned(), "b".to_owned())].into();
    elsewhere.nodes = Some(NodeSelector { match_labels: labels, fraction: None });
    let mut world = world(listed([expired, elsewhere]));
    world.weights = Some([(id("expired"), named(&weights_goods("expired")))].into());
    let plan = planned(&world);
    assert_eq!(state(&plan, "expired"), (EntryState::Skipped, Some("Expired".to_owned())));
    assert_eq!(state(&plan, "elsewhere").0, EntryState::Skipped);
    assert_eq!(steps(&plan), ["retire expired"]);
}

#[tokio::test]
async fn a_list_past_its_time_starts_nothing_and_drops_nothing() {
    let mut list = listed([weights("a"), weights("b")]);
    list.valid_until = Some(now().wall - SignedDuration::from_mins(6));
    let mut world = world(list.clone());
    world.weights = Some([(id("b"), named(&weights_goods("b")))].into());
    let plan = planned(&world);
    assert!(steps(&plan).is_empty());
    assert_eq!(state(&plan, "a"), (EntryState::Pending, Some("ListExpired".to_owned())));
    assert_eq!(state(&plan, "b").0, EntryState::Warm);

    // Not even what was to expire since: the list that would have kept it may be the one that didn't come.
    let mut expired = weights("b");
    expired.expires_at = Some(now().wall - SignedDuration::from_mins(1));
    world.list = Some(Arc::new(List { valid_until: list.valid_until, ..listed([expired]) }));
    assert!(steps(&planned(&world)).is_empty());

    list.valid_until = Some(now().wall - SignedDuration::from_mins(4));
    world.list = Some(Arc::new(list));
    assert_eq!(steps(&planned(&world)), ["ensure a", "ensure b"], "another clock may be some minutes off");
}
