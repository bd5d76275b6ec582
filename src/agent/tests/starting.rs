//! What is started, what it waits for, and what is said of it meanwhile.

use super::*;

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
        lack: None,
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
    let plan = planned(&world);
    assert_eq!(steps(&plan), ["ensure bad", "ensure good"], "its time has come");
    assert!(plan.report.entries[0].is_tried_again(), "and why it failed stays said until it has ended");
    assert_eq!(state(&plan, "good"), (EntryState::Fetching, None));

    world.settings.weights_jobs = 0;
    let (failed, queued) = ("NotFound".to_owned(), "Queued".to_owned());
    assert_eq!(state(&planned(&world), "bad"), (EntryState::Failed, Some(failed)));
    assert_eq!(state(&planned(&world), "good"), (EntryState::Pending, Some(queued)));
}

#[tokio::test]
async fn what_is_required_waits_for_no_job_of_what_is_not() {
    let job = |entry: &Entry| Job {
        entry: Arc::new(entry.clone()),
        progress: Arc::new(Progress::default()),
        content: Some(Digest::of(b"list")),
        stopping: false,
    };
    let required = |name| Entry { required: true, ..weights(name) };
    let others = [weights("a"), weights("b"), weights("c"), weights("d")];
    let all = others.iter().cloned().chain(["r", "s"].map(required));
    let mut world = world(listed(all));
    world.settings.weights_jobs = 3;
    world.jobs = others.iter().take(3).map(|entry| (entry.id.clone(), job(entry))).collect();
    assert_eq!(steps(&planned(&world)), ["ensure r", "ensure s"], "and nothing more of the others");
    world.settings.weights_jobs = 1;
    assert_eq!(steps(&planned(&world)), ["ensure r"], "they wait for each other");
    world.jobs.insert(id("r"), job(&required("r")));
    assert_eq!(steps(&planned(&world)), Vec::<String>::new());
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
        lack: None,
    };
    world.failures = [(id("bad"), failure)].into();
    assert!(planned(&world).report.done);
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
