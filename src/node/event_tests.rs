use super::super::GoodsKind;
use super::super::report::tests::{entry, report};
use super::*;
use crate::types::GpuReason;

const TAINT: &str = "stoker.dev/not-ready";
const WARN_AFTER: Duration = Duration::from_secs(20 * 60);

struct Told {
    book: EventBook,
    on: OnNode,
}

impl Told {
    fn new() -> Self {
        Self { book: EventBook::new(WARN_AFTER), on: OnNode::default() }
    }

    fn due(&mut self, report: &Report) -> Vec<NodeEvent> {
        self.book.due(report, &self.on, &[TAINT.to_owned()], Instant::now())
    }

    fn reasons(&mut self, report: &Report) -> Vec<&'static str> {
        self.due(report).into_iter().map(|event| event.reason).collect()
    }
}

fn open() -> Report {
    let mut report = report();
    report.gpu.open = true;
    report.gpu.phase = GpuPhase::Ready;
    report.gpu.reason = GpuReason::DriverReady;
    report
}

fn broken(id: &str, state: EntryState, code: &str, message: &str) -> EntryReport {
    let mut entry = entry(id, GoodsKind::Image, state);
    entry.reason = Some(Reason::new(code, message));
    entry
}

#[tokio::test(start_paused = true)]
async fn the_way_of_a_node_is_told_once() {
    let mut told = Told::new();
    let mut report = report();
    assert!(told.due(&report).is_empty());
    report = open();
    assert_eq!(told.reasons(&report), ["GPUReady"]);
    report.ready = true;
    let ready = told.due(&report);
    assert!(ready.len() == 1 && ready[0].reason == "Ready" && !ready[0].warning);
    assert!(told.due(&report).is_empty());
    report.gpu.open = false;
    report.gpu.reason = GpuReason::GpuLost;
    let closed = told.due(&report);
    assert!(closed[0].reason == "GPUNotReady" && closed[0].warning);
    assert_eq!(closed[0].message, GpuReason::GpuLost.advice());
}

#[tokio::test(start_paused = true)]
async fn a_restarted_agent_tells_nothing_that_the_node_says_already() {
    let mut told = Told::new();
    told.on.labels = [GPU_LABEL, READY_LABEL].map(|key| (key.to_owned(), String::new())).into();
    let mut starting = report();
    starting.settled = false;
    assert!(told.due(&starting).is_empty());
    let mut report = open();
    report.ready = true;
    assert!(told.due(&report).is_empty());
}

#[tokio::test(start_paused = true)]
async fn each_problem_is_told_once_while_it_lasts_and_again_when_it_comes_back() {
    let mut told = Told::new();
    let mut report = report();
    report.list.errors = vec!["line 3: not a list".to_owned()];
    report.entries = vec![
        broken("a", EntryState::Invalid, "Invalid", "entry a: image: it is empty"),
        broken("b", EntryState::Warm, Reason::LAST_GOOD_VERSION, "weights: unknown scheme"),
        broken("c", EntryState::Failed, "Denied", "403, try 1"),
        broken("d", EntryState::Failed, "Unreachable", "a reset"),
    ];
    let events = told.due(&report);
    let reasons: Vec<_> = events.iter().map(|event| event.reason).collect();
    assert_eq!(reasons, ["EntryFailed", "EntryInvalid", "ListInvalid"]);
    assert!(events.iter().all(|event| event.warning));
    assert_eq!(events[0].message, "entry c: Denied: 403, try 1");
    assert!(events[1].message.contains("a: image: it is empty; entry b: weights: unknown scheme"));
    report.entries[2].reason = Some(Reason::new("Denied", "403, try 2"));
    assert!(told.due(&report).is_empty());
    report.list.errors.clear();
    assert!(told.due(&report).is_empty());
    report.list.errors = vec!["line 3: not a list".to_owned()];
    assert_eq!(told.reasons(&report), ["ListInvalid"]);
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_fails_again_and_again_is_told_once() {
    let mut told = Told::new();
    let mut report = open();
    told.due(&report);
    report.entries = vec![broken("a", EntryState::Failed, "NotFound", "no such tag")];
    assert_eq!(told.reasons(&report), ["EntryFailed"]);
    for _ in 0..10 {
        for state in [EntryState::Fetching, EntryState::Failed] {
            report.entries[0].state = state;
            tokio::time::advance(Duration::from_secs(450)).await;
            assert!(told.due(&report).is_empty());
        }
    }
    report.entries[0] = entry("a", GoodsKind::Image, EntryState::Warm);
    assert!(told.due(&report).is_empty());
    report.entries[0] = broken("a", EntryState::Failed, "NotFound", "no such tag");
    assert_eq!(told.reasons(&report), ["EntryFailed"], "it had come, and failed anew");
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_stays_shut_is_told_after_the_given_time() {
    let mut told = Told::new();
    let mut report = report();
    report.gpu.reason = GpuReason::DriverNotLoaded;
    assert!(told.due(&report).is_empty());
    assert_eq!(told.book.wake_at(), Some(Instant::now() + WARN_AFTER));
    tokio::time::advance(WARN_AFTER).await;
    let events = told.due(&report);
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].reason, "GPUNotReady");
    assert!(events[0].message.contains("more than 20 minutes: the nvidia kernel module is not loaded yet"));
    assert!(told.due(&report).is_empty() && told.book.wake_at().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_taint_that_the_driver_may_not_tolerate_is_named_as_the_likely_cause() {
    let mut told = Told::new();
    told.on.taints.insert(TAINT.to_owned());
    let mut report = report();
    report.gpu.expected = 8;
    told.due(&report);
    tokio::time::advance(WARN_AFTER).await;
    let events = told.due(&report);
    assert_eq!(events[0].reason, "DriverMayNotTolerateTaint");
    for part in [TAINT, "kubectl describe", "toleration"] {
        assert!(events[0].message.contains(part), "{}", events[0].message);
    }
    assert!(told.due(&report).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_node_without_gpus_that_may_proceed_is_never_shut() {
    let mut told = Told::new();
    let mut report = report();
    report.gpu.phase = GpuPhase::NotApplicable;
    told.due(&report);
    tokio::time::advance(WARN_AFTER).await;
    assert!(told.due(&report).is_empty());
    report.gate_passed = false;
    told.due(&report);
    tokio::time::advance(WARN_AFTER).await;
    assert_eq!(told.reasons(&report), ["GPUNotReady"]);
}

#[tokio::test(start_paused = true)]
async fn there_are_a_handful_a_minute_and_the_rest_is_gathered() {
    let mut told = Told::new();
    let mut report = open();
    let mut count = 0;
    for n in 0..60 {
        report.entries.push(broken(&format!("e{n}"), EntryState::Failed, "NotFound", &"x".repeat(60)));
        count += told.due(&report).len();
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert!(count <= 7, "{count} events in a minute");
    tokio::time::sleep_until(told.book.wake_at().unwrap()).await;
    let rest = told.due(&report);
    assert!(rest.len() == 1 && rest[0].message.len() <= MAX_MESSAGE);
    assert!(rest[0].message.contains(" more"), "{}", rest[0].message);
    assert_eq!(told.book.wake_at(), None);
}

#[test]
fn one_long_line_is_cut() {
    let text = joined(&["ü".repeat(MAX_MESSAGE)]);
    assert!(text.len() <= MAX_MESSAGE && text.ends_with('…'));
}
