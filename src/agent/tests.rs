//! The planner, case by case: a world in, steps and states out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::time::Instant;

use super::plan::{Plan, plan};
use super::step::Step;
use super::world::{Check, Failure, GateMode, Job, NoGpu, Now, Settings, World};
use crate::image::{Images, Pin, Presence};
use crate::list::{Entry, Goods, ImageGoods, List, Listed, NodeFacts, NodeSelector, WeightsGoods};
use crate::node::{EntryState, Reason};
use crate::rt::{Attempts, RetryPolicy};
use crate::types::{Digest, EntryId, Globs, GpuPhase, GpuReason, GpuState, ImageRef, Progress, Revision};
use crate::weights::{Current, Named};

fn id(text: &str) -> EntryId {
    text.parse().unwrap()
}

fn entry(name: &str, goods: Goods) -> Entry {
    Entry {
        id: id(name),
        goods,
        required: false,
        priority: 500,
        needed_by: None,
        expires_at: None,
        nodes: None,
        credentials: None,
    }
}

fn image(name: &str, reference: &str) -> Entry {
    entry(name, Goods::Image(ImageGoods { reference: reference.parse().unwrap(), pin: true }))
}

fn weights(name: &str) -> Entry {
    entry(name, Goods::Weights(weights_goods(name)))
}

fn weights_goods(name: &str) -> WeightsGoods {
    WeightsGoods {
        uri: format!("s3://bucket/{name}/").parse().unwrap(),
        index: false,
        globs: Globs::all(),
        sha256: BTreeMap::new(),
    }
}

fn listed(entries: impl IntoIterator<Item = Entry>) -> List {
    let entries = entries.into_iter().map(|entry| Listed::Good(Arc::new(entry))).collect();
    List { entries, content: Some(Digest::of(b"list")), ..List::empty() }
}

/// A world in which everything has reported and the gate is open.
fn world(list: List) -> World {
    let node = NodeFacts { name: "node-a".to_owned(), labels: BTreeMap::new() };
    let mut world = World::new(Settings::new(node));
    world.list = Some(Arc::new(list));
    world.gpu = GpuState {
        phase: GpuPhase::Ready,
        reason: GpuReason::DriverReady,
        open: true,
        ..GpuState::unknown()
    };
    world.gate_opened = true;
    let asked = world.listed_images().cloned().collect();
    world.images = Some(Arc::new(Images { asked, ..images([]) }));
    world.weights = Some(BTreeMap::new());
    world
}

fn images<const N: usize>(present: [(&str, Presence); N]) -> Images {
    let by_ref: BTreeMap<ImageRef, Presence> =
        present.into_iter().map(|(text, presence)| (text.parse().unwrap(), presence)).collect();
    Images {
        connected: true,
        problem: None,
        asked: by_ref.keys().cloned().collect(),
        by_ref,
        our_pins: Vec::new(),
    }
}

fn present(target: &str) -> Presence {
    Presence {
        target: Digest::of(target.as_bytes()),
        config: Digest::of(b"config"),
        unpacked: true,
        pinned_by_us: true,
        pinned: true,
    }
}

fn named(goods: &WeightsGoods) -> Named {
    Named {
        current: Some(Current {
            revision: Revision::of_image(Digest::of(b"revision")),
            fingerprint: goods.fingerprint(),
            verified: true,
            bytes: 1,
            files: 1,
            source: goods.uri.to_string(),
        }),
        ..Named::default()
    }
}

fn check(world: &World, of: &Entry, due_in: Duration) -> Check {
    let at = Instant::now();
    let content = world.list.as_ref().and_then(|list| list.content);
    Check { at, due: at + due_in, mend_at: at + due_in, content, entry: Arc::new(of.clone()) }
}

fn now() -> Now {
    Now { wall: "2026-11-24T12:00:00Z".parse().unwrap(), monotonic: Instant::now() }
}

fn planned(world: &World) -> Plan {
    plan(world, "boot", now())
}

/// What the plan starts, by entry, and what it removes.
fn steps(plan: &Plan) -> Vec<String> {
    let said = |step: &Step| match step {
        Step::Ensure { entry, .. } => format!("ensure {}", entry.id),
        Step::Cancel(id) => format!("cancel {id}"),
        Step::Unpin(pins) => {
            format!("unpin {}", pins.join(" "))
        }
        Step::Retire(id) => format!("retire {id}"),
        Step::Rescan => "rescan".to_owned(),
    };
    plan.steps.iter().map(said).collect()
}

fn state(plan: &Plan, name: &str) -> (EntryState, Option<String>) {
    let entry = plan.report.entries.iter().find(|entry| entry.id == id(name)).unwrap();
    (entry.state, entry.reason.as_ref().map(|reason| reason.code.clone()))
}

#[tokio::test]
async fn what_is_listed_and_not_there_is_fetched_in_the_order_of_work() {
    let mut required = weights("c");
    required.required = true;
    let mut urgent = weights("b");
    urgent.needed_by = Some("2026-11-24T13:00:00Z".parse().unwrap());
    let plan = planned(&world(listed([weights("a"), urgent, required])));
    assert_eq!(steps(&plan), ["ensure c", "ensure b", "ensure a"]);
    assert_eq!(state(&plan, "a"), (EntryState::Fetching, None));
    assert!(!plan.report.done);
}

#[tokio::test]
async fn more_than_the_slots_wait_their_turn_and_images_do_not_wait_for_weights() {
    let entries = ["a", "b", "c", "d"].map(weights).into_iter().chain([image("i", "nginx")]);
    let plan = planned(&world(listed(entries)));
    assert_eq!(steps(&plan), ["ensure a", "ensure b", "ensure c", "ensure i"]);
    assert_eq!(state(&plan, "d"), (EntryState::Pending, Some("Queued".to_owned())));
}

#[tokio::test]
async fn a_closed_gate_holds_pulling_back_only_in_pull_mode() {
    let mut world = world(listed([weights("a")]));
    world.gpu =
        GpuState { phase: GpuPhase::Waiting, reason: GpuReason::DriverNotLoaded, ..GpuState::unknown() };
    world.gate_opened = false;
    let plan = planned(&world);
    assert_eq!((steps(&plan).len(), state(&plan, "a").1), (0, Some("GateClosed".to_owned())));
    world.settings.gate = GateMode::Label;
    assert_eq!(steps(&planned(&world)), ["ensure a"]);
}

#[tokio::test]
async fn once_open_in_this_boot_pulling_goes_on_although_the_gate_closes() {
    let mut world = world(listed([weights("a")]));
    world.gpu.open = false;
    world.gpu.phase = GpuPhase::Failed;
    assert_eq!(steps(&planned(&world)), ["ensure a"]);
}

#[tokio::test]
async fn no_gpu_waits_or_proceeds_as_told() {
    let mut world = world(listed([weights("a")]));
    world.gpu =
        GpuState { phase: GpuPhase::NotApplicable, reason: GpuReason::NoNvidiaDevice, ..GpuState::unknown() };
    world.gate_opened = false;
    assert_eq!(state(&planned(&world), "a").1, Some("NoGpu".to_owned()));
    world.settings.no_gpu = NoGpu::Proceed;
    assert_eq!(steps(&planned(&world)), ["ensure a"]);
}

#[tokio::test]
async fn what_is_warm_is_left_alone_until_its_source_must_be_looked_at() {
    let of = weights("a");
    let mut world = world(listed([of.clone()]));
    world.weights = Some([(id("a"), named(&weights_goods("a")))].into());
    world.checks = [(id("a"), check(&world, &of, Duration::from_secs(600)))].into();
    let plan = planned(&world);
    assert_eq!((steps(&plan).len(), state(&plan, "a").0), (0, EntryState::Warm));
    assert!(plan.report.done && plan.report.entries[0].revision.is_some());
    assert!(plan.wake_at.unwrap() <= Instant::now() + Duration::from_secs(600));

    world.checks = [(id("a"), check(&world, &of, Duration::ZERO))].into();
    let plan = planned(&world);
    assert_eq!((steps(&plan), state(&plan, "a").0), (vec!["ensure a".to_owned()], EntryState::Warm));
}

#[tokio::test]
async fn a_digest_needs_no_look_but_a_tag_does() {
    let by_digest = format!("nginx@{}", Digest::of(b"x"));
    let mut world = world(listed([image("d", &by_digest), image("t", "nginx:1")]));
    let by_ref = [(by_digest.as_str(), present("x")), ("nginx:1", present("y"))];
    world.images = Some(Arc::new(images(by_ref)));
    assert_eq!(steps(&planned(&world)), ["ensure t"]);
}

#[tokio::test]
async fn a_digest_that_was_pulled_long_ago_does_not_keep_the_agent_awake() {
    let by_digest = format!("nginx@{}", Digest::of(b"x"));
    let mut world = world(listed([image("d", &by_digest)]));
    world.images = Some(Arc::new(images([(by_digest.as_str(), present("x"))])));
    world.checks = [(id("d"), check(&world, &image("d", &by_digest), Duration::ZERO))].into();
    let plan = planned(&world);
    assert_eq!((steps(&plan).len(), plan.wake_at), (0, None));
}

#[tokio::test]
async fn a_new_list_is_a_reason_to_look_again() {
    let of = weights("a");
    let mut world = world(listed([of.clone()]));
    world.weights = Some([(id("a"), named(&weights_goods("a")))].into());
    world.checks = [(id("a"), check(&world, &of, Duration::from_secs(600)))].into();
    let mut newer = listed([of]);
    newer.content = Some(Digest::of(b"newer"));
    world.list = Some(Arc::new(newer));
    assert_eq!(steps(&planned(&world)), ["ensure a"]);
}

#[tokio::test]
async fn the_old_revision_stays_labelled_while_a_new_request_is_fetched() {
    let mut changed = weights_goods("a");
    changed.globs = Globs::new(&["*.json".to_owned()], &[]).unwrap();
    let mut world = world(listed([entry("a", Goods::Weights(changed))]));
    world.weights = Some([(id("a"), named(&weights_goods("a")))].into());
    let plan = planned(&world);
    assert_eq!(steps(&plan), ["ensure a"]);
    assert_eq!(state(&plan, "a").0, EntryState::Fetching);
    assert!(plan.report.entries[0].revision.is_some());
}

#[tokio::test]
async fn the_old_image_stays_labelled_and_pinned_while_a_new_tag_is_pulled() {
    let mut world = world(listed([image("a", "nginx:2")]));
    let mut seen = images([("nginx:1", present("old"))]);
    seen.asked.insert("nginx:2".parse().unwrap());
    seen.our_pins = vec![Pin { name: "docker.io/library/nginx:1".to_owned(), target: Digest::of(b"old") }];
    world.images = Some(Arc::new(seen));
    world.last_warm = [(id("a"), "nginx:1".parse::<ImageRef>().unwrap())].into();
    let plan = planned(&world);
    assert_eq!(steps(&plan), ["ensure a"]);
    assert_eq!(plan.report.entries[0].revision, Some(Revision::of_image(Digest::of(b"old"))));
    assert!(plan.watched_images.len() == 2);
}

#[tokio::test]
async fn an_image_record_without_its_snapshot_is_not_warm() {
    let mut world = world(listed([image("a", "nginx:1")]));
    let hollow = Presence { unpacked: false, ..present("x") };
    world.images = Some(Arc::new(images([("nginx:1", hollow)])));
    let plan = planned(&world);
    assert_eq!((steps(&plan), plan.report.entries[0].revision), (vec!["ensure a".to_owned()], None));
}

#[tokio::test]
async fn a_failure_waits_for_its_time_and_holds_nobody_else() {
    let (bad, good) = (weights("bad"), weights("good"));
    let mut world = world(listed([bad.clone(), good]));
    let failure = Failure {
        entry: Arc::new(bad),
        content: Some(Digest::of(b"list")),
        attempts: Attempts::new(RetryPolicy::ENTRY),
        retry_at: Some(Instant::now() + Duration::from_secs(9)),
        reason: Reason::new("NotFound", "no such bucket"),
        for_good: false,
    };
    world.failures = [(id("bad"), failure.clone())].into();
    let plan = planned(&world);
    assert_eq!(steps(&plan), ["ensure good"]);
    assert_eq!(state(&plan, "bad"), (EntryState::Failed, Some("NotFound".to_owned())));
    assert!(plan.wake_at.unwrap() <= Instant::now() + Duration::from_secs(9));

    world.failures =
        [(id("bad"), Failure { content: Some(Digest::of(b"older list")), ..failure.clone() })].into();
    assert_eq!(
        steps(&planned(&world)),
        ["ensure bad", "ensure good"],
        "another list is a reason to try again"
    );

    world.failures = [(id("bad"), Failure { retry_at: Some(Instant::now()), ..failure })].into();
    assert_eq!(steps(&planned(&world)), ["ensure bad", "ensure good"], "its time has come");
}

#[tokio::test]
async fn what_failed_for_good_is_an_end() {
    let bad = weights("bad");
    let mut world = world(listed([bad.clone()]));
    let failure = Failure {
        entry: Arc::new(bad),
        content: Some(Digest::of(b"list")),
        attempts: Attempts::new(RetryPolicy::ENTRY),
        retry_at: None,
        reason: Reason::new("NotFound", "no such bucket"),
        for_good: true,
    };
    world.failures = [(id("bad"), failure)].into();
    assert!(planned(&world).report.done);
}

#[tokio::test]
async fn weights_off_the_list_keep_their_names_until_their_label_is_gone() {
    let mut world = world(listed([]));
    world.weights = Some([(id("gone"), named(&weights_goods("gone")))].into());
    world.applied.labels = [("weights.stoker.dev/gone".to_owned(), "0123".to_owned())].into();
    let plan = planned(&world);
    assert!(steps(&plan).is_empty() && plan.report.entries.is_empty() && !plan.report.done);
    world.applied.labels.clear();
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
    world.applied.labels = [("image.stoker.dev/a".to_owned(), revision)].into();
    let plan = planned(&world);
    assert!(steps(&plan).is_empty() && !plan.report.done, "what waits for a label is still to be done");
    world.applied.labels.clear();
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
    world.applied.labels = [("image.stoker.dev/a".to_owned(), revision)].into();
    assert_eq!(steps(&planned(&world)), ["unpin docker.io/library/nginx:1"]);
}

#[tokio::test]
async fn a_sweep_that_began_before_the_list_was_known_says_nothing_of_its_images() {
    let mut world = world(listed([image("a", "nginx:1")]));
    let pin = Pin { name: "docker.io/library/nginx:1".to_owned(), target: Digest::of(b"x") };
    let early = Images { our_pins: vec![pin.clone()], ..images([]) };
    world.images = Some(Arc::new(early.clone()));
    let plan = planned(&world);
    assert_eq!((steps(&plan), plan.report.settled), (vec!["ensure a".to_owned()], false));

    let swept = Images { our_pins: vec![pin], ..images([("nginx:1", present("x"))]) };
    world.images = Some(Arc::new(swept));
    assert!(planned(&world).report.settled);

    // Later a new image is listed: what was settled stays so, and its pin waits until it was asked for.
    world.has_settled = true;
    world.images = Some(Arc::new(early));
    let plan = planned(&world);
    assert_eq!((steps(&plan), plan.report.settled), (vec!["ensure a".to_owned()], true));
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

#[tokio::test]
async fn a_job_whose_entry_changed_or_left_is_stopped_first() {
    let job = |of: Entry| Job {
        entry: Arc::new(of),
        progress: Arc::new(Progress::default()),
        content: Some(Digest::of(b"list")),
        stopping: false,
    };
    let mut moved = weights("a");
    moved.goods = Goods::Weights(weights_goods("elsewhere"));
    let mut world = world(listed([moved]));
    world.jobs = [(id("a"), job(weights("a"))), (id("gone"), job(weights("gone")))].into();
    assert_eq!(steps(&planned(&world)), ["cancel a", "cancel gone"]);
    world.jobs.values_mut().for_each(|job| job.stopping = true);
    assert!(steps(&planned(&world)).is_empty(), "told once; the successor waits until it has ended");
}

#[tokio::test]
async fn a_job_goes_on_when_only_its_priority_changes() {
    let mut hurried = weights("a");
    hurried.priority = 900;
    let mut world = world(listed([hurried]));
    let job = Job {
        entry: Arc::new(weights("a")),
        progress: Arc::new(Progress::default()),
        content: None,
        stopping: false,
    };
    world.jobs = [(id("a"), job)].into();
    assert!(steps(&planned(&world)).is_empty());
}

#[tokio::test]
async fn entries_over_the_limit_are_said_and_keep_what_they_have() {
    let mut world = world(listed((0..66).map(|n| weights(&format!("w{n:02}")))));
    world.weights = Some([(id("w65"), named(&weights_goods("w65")))].into());
    let plan = planned(&world);
    assert_eq!(state(&plan, "w65"), (EntryState::OverLimit, Some("OverLimit".to_owned())));
    assert!(!steps(&plan).contains(&"retire w65".to_owned()));
}

#[tokio::test]
async fn a_bad_entry_keeps_its_last_good_version_or_is_invalid() {
    let errors = vec!["field \"priority\": too high".to_owned()];
    let mut list = listed([]);
    list.entries = vec![
        Listed::LastGood { entry: Arc::new(weights("kept")), errors: errors.clone() },
        Listed::Bad { id: id("bad"), required: true, errors },
    ];
    let mut world = world(list);
    world.weights =
        Some([(id("kept"), named(&weights_goods("kept"))), (id("bad"), named(&weights_goods("bad")))].into());
    world.checks = [(id("kept"), check(&world, &weights("kept"), Duration::from_secs(600)))].into();
    let plan = planned(&world);
    assert_eq!(state(&plan, "kept"), (EntryState::Warm, Some("LastGoodVersion".to_owned())));
    assert_eq!(state(&plan, "bad"), (EntryState::Invalid, Some("Invalid".to_owned())));
    assert!(plan.report.entries.iter().any(|entry| entry.required && entry.state == EntryState::Invalid));
    assert!(steps(&plan).is_empty(), "what can't be read is not what is removed");
}

#[tokio::test]
async fn images_wait_for_containerd_and_weights_do_not() {
    let mut world = world(listed([image("i", "nginx"), weights("w")]));
    let away = Images { connected: false, problem: Some("no such socket".to_owned()), ..images([]) };
    world.images = Some(Arc::new(away));
    let plan = planned(&world);
    assert_eq!(steps(&plan), ["ensure w"]);
    assert_eq!(state(&plan, "i"), (EntryState::Pending, Some("ContainerdUnavailable".to_owned())));
    assert!(!plan.report.settled, "a containerd that was never reached has said nothing about an image");

    let mut seen = images([("nginx", present("x"))]);
    seen.connected = false;
    world.images = Some(Arc::new(seen));
    let plan = planned(&world);
    assert!(plan.report.settled);
    assert_eq!(state(&plan, "i").0, EntryState::Warm, "what was last seen stays while containerd restarts");
}

#[tokio::test]
async fn nothing_is_started_before_it_is_known_what_is_there() {
    let world = world(listed([image("i", "nginx"), weights("w")]));
    let plan = planned(&World { images: None, weights: None, ..world });
    assert!(steps(&plan).is_empty());
    assert_eq!(state(&plan, "w"), (EntryState::Pending, Some("Starting".to_owned())));
    assert_eq!(state(&plan, "i"), (EntryState::Pending, Some("Starting".to_owned())));
}

#[tokio::test]
async fn a_node_without_containerd_settles_when_only_weights_are_listed() {
    let mut world = world(listed([weights("w")]));
    world.images = Some(Arc::new(Images { connected: false, ..images([]) }));
    assert!(planned(&world).report.settled);
}

#[test]
fn the_moments_of_the_wall_clock_wake_the_agent() {
    let mut soon = weights("a");
    soon.expires_at = Some(now().wall + SignedDuration::from_secs(30));
    let started = Instant::now();
    let wake = planned(&world(listed([soon]))).wake_at.unwrap();
    let wait = wake.duration_since(started);
    assert!(wait > Duration::from_secs(29) && wait < Duration::from_secs(32), "{wait:?}");
}

#[test]
fn a_list_that_is_valid_for_ever_is_no_trouble() {
    let list = List { valid_until: Some(jiff::Timestamp::MAX), ..listed([weights("a")]) };
    assert_eq!(steps(&planned(&world(list))), ["ensure a"]);
}
