//! When `--once` is at its end.

use super::*;

fn once(list: List) -> World {
    let mut world = world(list);
    world.settings.once = true;
    world
}

fn failed(of: &Entry, retry_at: Option<Instant>) -> Failure {
    Failure {
        entry: Arc::new(of.clone()),
        content: Some(Digest::of(b"list")),
        attempts: Attempts::new(RetryPolicy::ENTRY),
        retry_at,
        reason: Reason::new("ContainerdUnavailable", "no such socket"),
        for_good: retry_at.is_none(),
        lack: None,
    }
}

#[tokio::test]
async fn a_list_that_starts_nothing_is_an_end() {
    let paused = List { paused: true, ..listed([weights("a")]) };
    let stale =
        List { valid_until: Some(now().wall - SignedDuration::from_mins(6)), ..listed([weights("a")]) };
    for list in [paused, stale] {
        let plan = planned(&once(list.clone()));
        assert!(plan.report.done && state(&plan, "a").0 == EntryState::Pending);
        assert!(!planned(&world(list)).report.done, "an agent that stays may see the list change");
    }
}

#[tokio::test]
async fn a_host_without_a_gpu_is_an_end_and_a_driver_that_is_not_there_yet_is_not() {
    let mut world = once(listed([weights("a")]));
    world.gate_opened = false;
    world.gpu =
        GpuState { phase: GpuPhase::NotApplicable, reason: GpuReason::NoNvidiaDevice, ..GpuState::unknown() };
    let plan = planned(&world);
    assert_eq!((plan.report.done, state(&plan, "a").1), (true, Some("NoGpu".to_owned())));
    world.gpu.phase = GpuPhase::Waiting;
    assert!(!planned(&world).report.done);
}

#[tokio::test]
async fn a_containerd_that_never_answers_is_an_end_once_the_tries_are_used_up() {
    let of = image("i", "nginx");
    let mut world = once(listed([of.clone()]));
    world.images = Some(Arc::new(Images { connected: false, ..images([]) }));
    let plan = planned(&world);
    assert_eq!((steps(&plan), plan.report.done), (vec!["ensure i".to_owned()], false));
    world.failures = [(id("i"), failed(&of, Some(Instant::now() + Duration::from_secs(2))))].into();
    assert!(!planned(&world).report.done);
    world.failures = [(id("i"), failed(&of, None))].into();
    let plan = planned(&world);
    assert!(plan.report.done && !plan.report.settled && state(&plan, "i").0 == EntryState::Failed);
}
