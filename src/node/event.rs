//! Which events people are told on the Node. Pure: reports in, events out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::cut::cut;
use super::label::GPU_LABEL;
use super::{EntryReport, EntryState, OnNode, READY_LABEL, Reason, Report};
use crate::types::{ErrorKind, GpuPhase};

/// The API server takes no longer ones, in bytes.
const MAX_MESSAGE: usize = 1024;

/// So many may come at once…
const BURST: u32 = 4;

/// …and then one in this time.
const BETWEEN: Duration = Duration::from_secs(20);

/// Causes that wait for their turn; more than that are only in the status.
const MAX_WAITING: usize = 64;

/// Something that people should be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeEvent {
    /// A warning, or just news.
    pub warning: bool,
    /// One CamelCase word.
    pub reason: &'static str,
    /// Sentences, at most 1024 bytes.
    pub message: String,
}

impl NodeEvent {
    /// Whether its cause is in the list, which every node sees at the same moment.
    #[must_use]
    pub fn is_of_the_list(&self) -> bool {
        [LIST_INVALID, ENTRY_INVALID, ENTRY_FAILED].contains(&self.reason)
    }
}

/// Remembers what was told, so that each cause is told once for as long as it lasts.
#[derive(Debug)]
pub struct EventBook {
    warn_after: Duration,
    before: Option<Milestones>,
    /// Causes that last now: told, or waiting.
    lasting: BTreeSet<Cause>,
    waiting: BTreeMap<Cause, String>,
    shut_since: Option<Instant>,
    full_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Milestones {
    gpu: bool,
    ready: bool,
}

/// The reason, and what tells this cause from others with the same one.
type Cause = (&'static str, String);

impl EventBook {
    /// `warn_after`: how long the gate may be shut before people are told.
    #[must_use]
    pub fn new(warn_after: Duration) -> Self {
        Self {
            warn_after,
            before: None,
            lasting: BTreeSet::new(),
            waiting: BTreeMap::new(),
            shut_since: None,
            full_at: None,
        }
    }

    /// The events that are due now. `taints` are the keys of the startup taints.
    pub fn due(&mut self, report: &Report, on: &OnNode, taints: &[String], now: Instant) -> Vec<NodeEvent> {
        let mut causes = problems(report);
        causes.extend(self.shut_for_long(report, on, taints, now));
        self.waiting.retain(|cause, _| causes.contains_key(cause) || is_news(cause.0));
        let before = std::mem::replace(&mut self.lasting, causes.keys().cloned().collect());
        let new = causes.into_iter().filter(|(cause, _)| !before.contains(cause));
        for (cause, line) in new.chain(self.news(report, on)) {
            if self.waiting.len() < MAX_WAITING {
                self.waiting.insert(cause, line);
            }
        }
        self.take_turns(now)
    }

    /// When time alone makes an event due.
    #[must_use]
    pub fn wake_at(&self) -> Option<Instant> {
        let warning = self.shut_since.map(|since| since + self.warn_after);
        let already = self.lasting.iter().any(|(reason, what)| is_shut_warning(reason, what));
        let turn = (!self.waiting.is_empty()).then(|| self.turn()).flatten();
        warning.filter(|_| !already).into_iter().chain(turn).min()
    }

    /// What has come about since the last report that knew everything.
    fn news(&mut self, report: &Report, on: &OnNode) -> Vec<(Cause, String)> {
        if !report.settled {
            return Vec::new();
        }
        // An agent that was restarted has nothing new to tell: the Node says what was so before.
        let before = self.before.unwrap_or_else(|| Milestones {
            gpu: on.labels.contains_key(GPU_LABEL),
            ready: on.labels.contains_key(READY_LABEL),
        });
        let gpu = &report.gpu;
        let now = Milestones { gpu: gpu.open && gpu.phase != GpuPhase::NotApplicable, ready: report.ready };
        self.before = Some(now);
        let mut news = Vec::new();
        let mut tell = |reason, line| news.push(((reason, String::new()), line));
        match (before.gpu, now.gpu) {
            (false, true) => tell(GPU_READY, format!("{} of {} GPUs are usable", gpu.devices, gpu.expected)),
            (true, false) => tell(GPU_NOT_READY, gpu_sentence(report)),
            (true, true) | (false, false) => {}
        }
        if now.ready && !before.ready {
            tell(READY, "the gate is open, and what the node needs is warm".to_owned());
        }
        news
    }

    fn shut_for_long(
        &mut self,
        report: &Report,
        on: &OnNode,
        taints: &[String],
        now: Instant,
    ) -> Option<(Cause, String)> {
        let gpu = &report.gpu;
        let not_needed = gpu.phase == GpuPhase::NotApplicable && report.gate_passed;
        if gpu.open || not_needed {
            self.shut_since = None;
            return None;
        }
        let since = *self.shut_since.get_or_insert(now);
        if now.saturating_duration_since(since) < self.warn_after {
            return None;
        }
        let sentence =
            format!("no usable GPU for more than {}: {}", time(self.warn_after), gpu_sentence(report));
        let taint = taints.iter().find(|taint| on.taints.contains(*taint)).filter(|_| gpu.expected > 0);
        let (reason, line) = match taint {
            Some(key) => (
                DRIVER_TAINT,
                format!(
                    "{sentence}. This node has a GPU and the taint {key}: what installs the driver may not \
                     tolerate it, and then waits for us as we wait for it. Look with: kubectl describe \
                     daemonset (of the driver; its Tolerations), and add a toleration for {key} there"
                ),
            ),
            None => (GPU_NOT_READY, sentence),
        };
        Some(((reason, SHUT_FOR_LONG.to_owned()), line))
    }

    /// Causes of one reason are told in one event.
    fn take_turns(&mut self, now: Instant) -> Vec<NodeEvent> {
        let mut events = Vec::new();
        while let Some(reason) = self.waiting.keys().next().map(|(reason, _)| *reason) {
            if self.turn().is_some_and(|turn| turn > now) {
                break;
            }
            self.full_at = Some(self.full_at.map_or(now, |full| full.max(now)) + BETWEEN);
            let (taken, left) = std::mem::take(&mut self.waiting)
                .into_iter()
                .partition::<BTreeMap<_, _>, _>(|((of, _), _)| *of == reason);
            self.waiting = left;
            let lines: Vec<String> = taken.into_values().collect();
            events.push(NodeEvent { warning: !is_good_news(reason), reason, message: joined(&lines) });
        }
        events
    }

    fn turn(&self) -> Option<Instant> {
        self.full_at.and_then(|full| full.checked_sub(BETWEEN * (BURST - 1)))
    }
}

const LIST_INVALID: &str = "ListInvalid";
const ENTRY_INVALID: &str = "EntryInvalid";
const ENTRY_FAILED: &str = "EntryFailed";
const GPU_READY: &str = "GPUReady";
const GPU_NOT_READY: &str = "GPUNotReady";
const DRIVER_TAINT: &str = "DriverMayNotTolerateTaint";
const READY: &str = "Ready";

const SHUT_FOR_LONG: &str = "shut for long";

fn is_shut_warning(reason: &str, what: &str) -> bool {
    reason == DRIVER_TAINT || what == SHUT_FOR_LONG
}

fn is_good_news(reason: &str) -> bool {
    reason == GPU_READY || reason == READY
}

/// Told once when it happens, not for as long as it lasts.
fn is_news(reason: &str) -> bool {
    is_good_news(reason) || reason == GPU_NOT_READY
}

/// What is wrong with the list and its entries, for as long as it is.
fn problems(report: &Report) -> BTreeMap<Cause, String> {
    let mut problems = BTreeMap::new();
    if !report.list.errors.is_empty() {
        let all = report.list.errors.join("; ");
        problems.insert((LIST_INVALID, all.clone()), all);
    }
    for entry in &report.entries {
        let Some(reason) = &entry.reason else { continue };
        let line = || format!("entry {}: {}: {}", entry.id, reason.code, reason.message);
        if entry.state == EntryState::Invalid || reason.code == Reason::LAST_GOOD_VERSION {
            let cause = (ENTRY_INVALID, format!("{} {}", entry.id, reason.message));
            problems.insert(cause, format!("entry {}: {}", entry.id, reason.message));
        } else if failed_for_good(entry) {
            // Messages of one failure differ from try to try.
            problems.insert((ENTRY_FAILED, format!("{} {}", entry.id, reason.code)), line());
        }
    }
    problems
}

/// It failed in a way that time doesn't mend: somebody has to do something.
fn failed_for_good(entry: &EntryReport) -> bool {
    const TIME_MENDS: [ErrorKind; 5] = [
        ErrorKind::Transient,
        ErrorKind::Throttled { retry_after: None },
        ErrorKind::Changed,
        ErrorKind::Cancelled,
        ErrorKind::Local,
    ];
    (entry.state == EntryState::Failed || entry.is_tried_again())
        && entry
            .reason
            .as_ref()
            .is_some_and(|reason| TIME_MENDS.iter().all(|kind| reason.code != kind.reason()))
}

fn time(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} seconds"),
        seconds => format!("{} minutes", seconds / 60),
    }
}

fn gpu_sentence(report: &Report) -> String {
    let gpu = &report.gpu;
    if gpu.message.is_empty() {
        gpu.reason.advice().to_owned()
    } else {
        format!("{}: {}", gpu.reason.advice(), gpu.message)
    }
}

/// As many lines as fit, and a count of the others.
fn joined(lines: &[String]) -> String {
    let with = |kept: usize| {
        let more = lines.len() - kept;
        let tail = if more == 0 { String::new() } else { format!("; and {more} more") };
        format!("{}{tail}", lines[..kept].join("; "))
    };
    let fitting = (1..=lines.len()).rev().map(with).find(|text| text.len() <= MAX_MESSAGE);
    fitting.unwrap_or_else(|| cut(lines.first().cloned().unwrap_or_default(), MAX_MESSAGE))
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
