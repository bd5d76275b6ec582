use std::future::pending;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::super::{ClusterError, Fault};
use super::backoff::Backoff;
use super::object::{ObjectVersion, on_node};
use super::requests::Requests;
use super::trouble::Trouble;
use super::watching::Sight;
use crate::node::{
    Applied, Desired, Difference, LANDS_WITHIN, Ledger, OnNode, Pace, Report, Strays, Urgency, difference,
    urgency,
};
use crate::rt::Metrics;

/// Brings the Node to what the latest report asks for: one state, never a queue.
pub(super) struct Writer {
    requests: Requests,
    taints: Vec<String>,
    applied: watch::Sender<Option<Applied>>,
    metrics: Arc<Metrics>,
    /// The Node as last known; `None` while there is none.
    node: Option<Known>,
    /// It isn't sure that `node` is what stands: the API server must be asked.
    doubt: bool,
    ledger: Ledger,
    /// The `labels_version` of the newest report taken.
    taken: u64,
    /// Until then a write of a process before this one may land, which nobody here knows of.
    alone_from: Instant,
    pace: Pace,
    /// What was last written in full, in this run and to this Node.
    written: Option<Desired>,
    /// After a failure that has nothing to do with what was asked.
    server: Backoff,
    /// After a refusal, for each kind of write: one that is refused doesn't hold up the others.
    refused: [Backoff; 3],
    trouble: Trouble,
}

#[derive(Debug)]
struct Known {
    on: OnNode,
    version: ObjectVersion,
}

/// The kinds of writes, in their order: a pod that is let in must find the labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Keys,
    Taints,
    Conditions,
}

/// What to do next.
#[derive(Debug)]
enum Next {
    Wait(Option<Instant>),
    Read,
    Write(Desired),
}

impl Writer {
    pub(super) fn new(
        requests: Requests,
        taints: Vec<String>,
        pace: Pace,
        applied: watch::Sender<Option<Applied>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            requests,
            taints,
            applied,
            metrics,
            node: None,
            doubt: false,
            ledger: Ledger::default(),
            taken: 0,
            alone_from: Instant::now() + LANDS_WITHIN,
            pace,
            written: None,
            server: Backoff::default(),
            refused: <[Backoff; 3]>::default(),
            trouble: Trouble::default(),
        }
    }

    /// Runs until nobody makes reports any more.
    pub(super) async fn run(
        mut self,
        mut reports: watch::Receiver<Arc<Report>>,
        mut sights: watch::Receiver<Sight>,
    ) {
        let mut is_new = true;
        loop {
            // Only what is new: what was told before may be outdated by an answer of our own.
            if std::mem::take(&mut is_new) || sights.has_changed().unwrap_or(false) {
                self.look(&sights.borrow_and_update().clone());
            }
            if reports.has_changed().is_err() {
                return;
            }
            let report = Arc::clone(&reports.borrow_and_update());
            self.taken = report.labels_version;
            let desired = Desired::of(&report);
            self.publish();
            match self.next(desired, Instant::now()) {
                Next::Read => self.read().await,
                Next::Write(desired) => self.write(&desired, &reports).await,
                Next::Wait(until) => {
                    let alone_from = (Instant::now() < self.alone_from).then_some(self.alone_from);
                    let until = [until, alone_from].into_iter().flatten().min();
                    let wake = async {
                        match until {
                            Some(until) => sleep_until(until).await,
                            None => pending().await,
                        }
                    };
                    tokio::select! {
                        () = wake => {}
                        changed = reports.changed() => if changed.is_err() { return },
                        changed = sights.changed() => match changed {
                            Ok(()) => is_new = true,
                            Err(_) => return,
                        },
                    }
                }
            }
        }
    }

    /// Takes what the watch says, unless more is known already.
    fn look(&mut self, sight: &Sight) {
        match (sight, &self.node) {
            (Sight::NotYet, _) | (Sight::Absent, None) => {}
            // What the watch tells may be older than our own last answer.
            (Sight::Absent, Some(_)) => self.doubt = true,
            (Sight::There { version, listed, .. }, Some(known)) if version.is_older_than(known.version) => {
                // Versions don't go back, except when a backup of the cluster is restored.
                self.doubt |= *listed;
            }
            (Sight::There { on, version, .. }, _) => self.take((**on).clone(), *version),
        }
    }

    fn take(&mut self, on: OnNode, version: ObjectVersion) {
        if self.node.as_ref().is_some_and(|known| known.on.uid != on.uid) {
            tracing::info!(
                node = self.requests.name(),
                "the Node was made anew; everything is written again"
            );
            self.forget();
        }
        self.ledger.seen(&on.labels);
        self.node = Some(Known { on, version });
    }

    fn take_answer(&mut self, node: &Node) {
        self.take(on_node(node), ObjectVersion::of(node));
    }

    fn forget(&mut self) {
        self.node = None;
        self.written = None;
        self.ledger.forget();
        self.refused = <[Backoff; 3]>::default();
    }

    fn publish(&self) {
        // No report counts as taken before that, so that nothing is removed.
        let taken = if Instant::now() < self.alone_from { 0 } else { self.taken };
        let now = self.ledger.applied(taken);
        self.applied.send_if_modified(|applied| {
            let changed = *applied != now;
            *applied = now;
            changed
        });
    }

    fn next(&mut self, desired: Option<Desired>, now: Instant) -> Next {
        let read_at = self.ledger.read_at();
        if self.doubt || read_at.is_some_and(|at| at <= now) {
            return if self.server.has_passed(now) { Next::Read } else { Next::Wait(self.server.until()) };
        }
        let (Some(desired), Some(known)) = (desired, &self.node) else { return Next::Wait(read_at) };
        let differs = difference(&desired, &known.on, &self.taints);
        if differs.is_nothing() {
            self.pace.settled();
            self.written = Some(desired);
            return Next::Wait(read_at);
        }
        let hurry = urgency(self.written.as_ref(), &desired, &known.on, &self.taints);
        let again = hurry == Urgency::Routine && self.written.as_ref() == Some(&desired);
        let due = if again {
            self.pace.due_again(now, fastrand::f64())
        } else {
            self.pace.due(hurry, now, fastrand::f64())
        };
        let due = self.server.until().map_or(due, |until| due.max(until));
        // What is refused waits longer, and lets the rest go first.
        let due = match parts(differs).map(|part| self.refused[part as usize].until()).min() {
            Some(Some(until)) => due.max(until),
            Some(None) | None => due,
        };
        if due <= now {
            return Next::Write(desired);
        }
        Next::Wait(Some(read_at.map_or(due, |at| at.min(due))))
    }

    async fn read(&mut self) {
        let asked = Instant::now();
        match self.requests.read().await {
            Ok(node) => {
                self.take_answer(&node);
                if let Some(known) = &self.node {
                    self.ledger.read(&known.on.labels, asked);
                }
                self.doubt = false;
                self.answers(None);
            }
            Err(error) if error.fault() == Fault::NotFound => {
                self.forget();
                self.doubt = false;
                self.answers(None);
            }
            Err(error) => {
                self.server.failed(error.fault(), Instant::now(), fastrand::f64());
                self.tell(None, &error);
            }
        }
    }

    /// Writes what differs, part after part.
    async fn write(&mut self, desired: &Desired, reports: &watch::Receiver<Arc<Report>>) {
        self.pace.writes(Instant::now(), self.written.as_ref() == Some(desired));
        let mut held = false;
        for part in [Part::Keys, Part::Taints, Part::Conditions] {
            let Some(known) = &self.node else { return };
            let differs = difference(desired, &known.on, &self.taints);
            let now = Instant::now();
            if !parts(differs).any(|other| other == part) {
                continue;
            }
            if !self.refused[part as usize].has_passed(now) {
                held = true;
                continue;
            }
            let sent = match part {
                Part::Keys => self.write_keys(desired, reports).await,
                // It may have taken long to write the labels, and a taint that went doesn't come back.
                Part::Taints if !reports.borrow().ready => return,
                Part::Taints => self.requests.untaint(&self.taints, &known.on.uid).await.map(Some),
                Part::Conditions => {
                    let now = jiff::Timestamp::now();
                    self.requests.set_conditions(&desired.conditions, &known.on, now).await.map(Some)
                }
            };
            match sent {
                Ok(Some(node)) => {
                    self.take_answer(&node);
                    self.went_well(part);
                }
                Ok(None) => return,
                Err(error) => {
                    if !self.went_wrong(part, &error) {
                        return;
                    }
                    held = true;
                }
            }
        }
        // If something still differs and nothing was refused, somebody else changes what we write: that is mended at the
        // common pace.
        if !held {
            self.written = Some(desired.clone());
        }
    }

    /// `None`: the reports have moved on, so this isn't sent at all.
    async fn write_keys(
        &mut self,
        desired: &Desired,
        reports: &watch::Receiver<Arc<Report>>,
    ) -> Result<Option<Node>, ClusterError> {
        let Some(uid) = self.node.as_ref().map(|known| known.on.uid.clone()) else { return Ok(None) };
        self.ledger.sends(&desired.labels);
        self.publish();
        // Whoever has seen less than this in `applied` may have decided by it meanwhile; a report tells.
        if reports.has_changed().unwrap_or(true) {
            self.ledger.refused();
            return Ok(None);
        }
        let node = match self.requests.apply(desired, &uid).await {
            Ok(node) => node,
            Err(error) => {
                if may_land(error.fault()) {
                    self.ledger.lost(Instant::now());
                } else {
                    self.ledger.refused();
                }
                return Err(error);
            }
        };
        let on = on_node(&node);
        self.ledger.answered(&on.labels);
        self.take(on, ObjectVersion::of(&node));
        self.publish();
        let strays = self.node.as_ref().map(|known| Strays::of(desired, &known.on)).unwrap_or_default();
        if strays.is_empty() {
            return Ok(Some(node));
        }
        tracing::info!(
            node = self.requests.name(),
            ?strays,
            "taking off what somebody else wrote in our name"
        );
        self.requests.strike(&strays, &uid).await.map(Some)
    }

    fn went_well(&mut self, part: Part) {
        self.metrics.node_written(Ok(()), jiff::Timestamp::now());
        self.refused[part as usize].succeeded();
        self.answers(Some(part));
    }

    fn answers(&mut self, part: Option<Part>) {
        self.server.succeeded();
        if self.trouble.is_over(part) {
            tracing::info!(node = self.requests.name(), "the Node can be written again");
        }
    }

    /// Whether the other parts may be tried all the same.
    fn went_wrong(&mut self, part: Part, error: &ClusterError) -> bool {
        let now = Instant::now();
        self.metrics.node_written(Err(error.kind()), jiff::Timestamp::now());
        let fault = error.fault();
        let concerns_this_part = matches!(fault, Fault::Denied | Fault::Broken);
        let server_is_away =
            matches!(fault, Fault::Transient | Fault::Throttled { .. } | Fault::Unauthorized);
        self.tell((!server_is_away).then_some(part), error);
        match fault {
            Fault::Denied | Fault::Broken => self.refused[part as usize].failed(fault, now, fastrand::f64()),
            Fault::Transient | Fault::Throttled { .. } | Fault::Unauthorized => {
                self.server.failed(fault, now, fastrand::f64());
            }
            // The Node isn't what it was: it's read again, and then all is decided anew.
            Fault::Invalid | Fault::Conflict | Fault::NotFound | Fault::Expired => {
                self.refused[part as usize].failed(fault, now, fastrand::f64());
                self.doubt = true;
            }
        }
        concerns_this_part
    }

    fn tell(&mut self, part: Option<Part>, error: &ClusterError) {
        let text = error.to_string();
        if self.trouble.is_new(part, &text) {
            tracing::warn!(node = self.requests.name(), "{text}; trying again");
        }
    }
}

/// The parts that can be written as things stand: a taint only goes when the labels are there.
fn parts(differs: Difference) -> impl Iterator<Item = Part> {
    [
        (differs.keys, Part::Keys),
        (differs.taints && !differs.keys, Part::Taints),
        (differs.conditions, Part::Conditions),
    ]
    .into_iter()
    .filter_map(|(differs, part)| differs.then_some(part))
}

/// Whether a write that failed like this may have been carried out, or may yet be.
fn may_land(fault: Fault) -> bool {
    match fault {
        Fault::Transient | Fault::Throttled { .. } | Fault::Broken => true,
        Fault::Unauthorized
        | Fault::Denied
        | Fault::NotFound
        | Fault::Conflict
        | Fault::Invalid
        | Fault::Expired => false,
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
