//! The planner: what is known in, what to do and what to say out. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;

use super::choice::{Choice, choice};
use super::left_alone::left_alone;
use super::pressure::Pressure;
use super::ready::{gate_is_open, max_wait_left};
use super::removals::{Leaving, Saying, Wanted, removals};
use super::slots::Slots;
use super::standing::{
    CLOCK_TOLERANCE, Hold, Standing, check_due, entry_hold, failed_before, is_stale, kind, moves, node_hold,
    source, standing,
};
use super::step::Step;
use super::superseded;
use super::wake::Wake;
use super::world::{Now, World};
use super::yielding;
use crate::list::{Entry, Goods, List, Listed, by_urgency};
use crate::node::{EntryReport, EntryState, GoodsKind, ListReport, Reason, Report, labels};
use crate::types::{EntryId, GpuPhase, ImageRef, Progress};

/// More entries than this on one node would make its labels and its list of jobs unbounded.
pub const MAX_ENTRIES: usize = 64;

/// What to do now, what to say now, and when to look again.
#[derive(Debug)]
pub struct Plan {
    /// In the order in which they should be started.
    pub steps: Vec<Step>,
    /// What is said.
    pub report: Report,
    /// When time alone changes the plan.
    pub wake_at: Option<Instant>,
    /// The image references that must be watched in containerd.
    pub watched_images: BTreeSet<ImageRef>,
}

/// Decides. The same world and the same moment give the same plan.
#[must_use]
pub fn plan(world: &World, boot_id: &str, now: Now) -> Plan {
    let mut planner =
        Planner { world, now, steps: Vec::new(), wake: Wake::from(now), wanted: Wanted::default() };
    let nothing = List { known: false, ..List::empty() };
    let list = world.list.as_deref().unwrap_or(&nothing);
    let entries = planner.entries(list);
    planner.cancel_unwanted(list);
    let all_ended = ended(&entries, world);
    let mut report = Report {
        gpu: world.gpu.clone(),
        list: list_report(list, now),
        gate_passed: world.gate_opened || gate_is_open(world),
        ready: world.ready_by.is_some() && gate_is_open(world),
        ready_by: world.ready_by,
        settled: world.settled(),
        left_alone: left_alone(world, list),
        labels_version: world.said.version,
        done: false,
        boot_id: boot_id.to_owned(),
        entries: entries.into_iter().map(|entry| entry.report).collect(),
    };
    let said = labels(&report);
    report.labels_version += u64::from(said != world.said.labels);
    let saying = Saying { labels: &said.unwrap_or_default(), version: report.labels_version };
    let leaving = planner.removals(list, &saying);
    report.done = all_has_been_asked(world)
        && all_ended
        && world.jobs.is_empty()
        && planner.steps.is_empty()
        && leaving.steps.is_empty()
        && !leaving.waiting;
    planner.steps.extend(leaving.steps);
    planner.steps.extend(superseded::leaving(world, list, now.monotonic));
    planner.steps.extend(yielding::search(world, list, now));
    let own = [world.superseded.wake_at(now.monotonic), yielding::wake_at(world, now)];
    own.into_iter().flatten().for_each(|at| planner.wake.at(at));
    leaving.retry_at.into_iter().for_each(|at| planner.wake.at(at));
    if world.ready_by.is_none()
        && let Some(left) = max_wait_left(world, now).filter(|left| !left.is_zero())
    {
        planner.wake.after(left);
    }
    if let Some(until) = list.valid_until {
        planner.wake.at_wall(until.saturating_add(CLOCK_TOLERANCE).unwrap_or(Timestamp::MAX));
    }
    Plan {
        steps: planner.steps,
        report,
        wake_at: planner.wake.earliest(),
        watched_images: world.listed_images().cloned().collect(),
    }
}

/// An entry's report, and whether its state will change without a change from outside.
struct Placed {
    report: EntryReport,
    ended: bool,
}

/// A containerd that can't be reached never answers, so that the world doesn't settle; but its jobs have an end.
fn all_has_been_asked(world: &World) -> bool {
    let cut_off = || world.images.as_ref().is_some_and(|images| !images.connected);
    world.settled()
        || (world.list.is_some()
            && world.gpu.phase != GpuPhase::Unknown
            && world.weights.is_some()
            && cut_off())
}

fn ended(entries: &[Placed], world: &World) -> bool {
    world.removing.is_empty() && !world.unpinning && entries.iter().all(|entry| entry.ended)
}

struct Planner<'a> {
    world: &'a World,
    now: Now,
    steps: Vec<Step>,
    wake: Wake,
    wanted: Wanted,
}

impl Planner<'_> {
    fn entries(&mut self, list: &List) -> Vec<Placed> {
        let mut free = Slots::of(self.world);
        let hold = node_hold(self.world, list, self.now);
        let mut applying = 0;
        let mut placed = Vec::with_capacity(list.entries.len());
        for listed in in_order_of_work(list) {
            let Some(entry) = listed.entry() else {
                self.wanted.keep_unreadable(listed.id());
                placed.push(invalid(listed));
                continue;
            };
            match choice(self.world, entry, self.now) {
                Choice::Ours => {}
                Choice::Unknown(reason) => {
                    self.wanted.add(self.world, entry);
                    placed.push(self.waiting_for_the_node(entry, reason));
                    continue;
                }
                Choice::Skipped(reason) => {
                    let report = self.report(entry, EntryState::Skipped, Some(reason));
                    placed.push(Placed { report, ended: true });
                    continue;
                }
            }
            if let Some(at) = entry.expires_at {
                self.wake.at_wall(at);
            }
            if let Some(reason) = Pressure::reason(&entry.id, self.world) {
                let report = self.report(entry, EntryState::Pending, Some(reason));
                placed.push(Placed { report, ended: true });
                continue;
            }
            if let Some(reason) = self.world.yielding.reason(&entry.id) {
                let report = self.report(entry, EntryState::Pending, Some(reason));
                placed.push(Placed { report, ended: true });
                continue;
            }
            self.wanted.add(self.world, entry);
            applying += 1;
            if applying > MAX_ENTRIES {
                let report = self.report(entry, EntryState::OverLimit, Some(over_limit()));
                placed.push(Placed { report, ended: true });
                continue;
            }
            let mut entry = self.place(list, entry, hold.as_ref(), &mut free);
            if !listed.errors().is_empty() && entry.report.reason.is_none() {
                let said = format!(
                    "the newest list says this entry badly, so its last good version stays: {}",
                    listed.errors().join("; ")
                );
                entry.report.reason = Some(Reason::new(Reason::LAST_GOOD_VERSION, said));
            }
            if entry.report.state == EntryState::Warm && entry.report.reason.is_none() {
                entry.report.reason = self.note(&entry.report.id);
            }
            placed.push(entry);
        }
        placed
    }

    /// It may be ours, so its label stays and nothing of it leaves; it may not, so nothing of it is started.
    fn waiting_for_the_node(&self, entry: &Entry, reason: Reason) -> Placed {
        let stands = standing(self.world, entry);
        let mut report = self.report(entry, EntryState::Pending, Some(reason));
        report.revision = stands.warm.filter(|_| !self.is_being_removed(entry));
        report.verified = stands.verified;
        Placed { report, ended: false }
    }

    fn is_being_removed(&self, entry: &Entry) -> bool {
        matches!(entry.goods, Goods::Weights(_)) && self.world.removing.contains(&entry.id)
    }

    /// Where an entry that applies stands, and the step that it needs now.
    fn place(
        &mut self,
        list: &List,
        entry: &Arc<Entry>,
        node_hold: Option<&Hold>,
        free: &mut Slots,
    ) -> Placed {
        if self.is_being_removed(entry) {
            let reason =
                Reason::new("Removing", "its names from when it was listed before are being removed");
            return Placed { report: self.report(entry, EntryState::Pending, Some(reason)), ended: false };
        }
        let stands = standing(self.world, entry);
        let state = if stands.satisfied { EntryState::Warm } else { EntryState::Fetching };
        let mut placed = Placed { report: self.report(entry, state, None), ended: false };
        placed.report.revision = stands.warm;
        placed.report.verified = stands.verified;
        if let Some(job) = self.world.jobs.get(&entry.id) {
            placed.report.progress = (!stands.satisfied).then(|| Arc::clone(&job.progress));
            placed.report.reason = self.why_again(list, entry);
            return placed;
        }
        let due = check_due(self.world, list, entry, stands, self.now);
        if stands.satisfied && !due {
            placed.ended = true;
            self.wake_for_check(entry, stands);
            return placed;
        }
        let own_hold = entry_hold(self.world, list, entry, self.now);
        if let Some(until) = own_hold.as_ref().and_then(|hold| hold.until) {
            self.wake.at(until);
        }
        // Why it failed says more than that the node is waiting; why it could not even begin says less.
        let hold = own_hold
            .as_ref()
            .filter(|hold| hold.state == EntryState::Failed)
            .or(node_hold)
            .or(own_hold.as_ref());
        match hold {
            Some(hold) if stands.satisfied => {
                placed.report.reason = (hold.state == EntryState::Failed).then(|| hold.reason.clone());
                placed.ended = hold.for_good || hold.state != EntryState::Failed;
            }
            Some(hold) => {
                placed.report.state = hold.state;
                placed.report.reason =
                    Some(yielding::with_what_stays(self.world, entry, hold.reason.clone()));
                placed.ended = hold.for_good;
            }
            None if free.take(kind(&entry.goods), entry.required) => {
                let progress = Arc::new(Progress::default());
                placed.report.progress = (!stands.satisfied).then(|| Arc::clone(&progress));
                placed.report.reason = self.why_again(list, entry);
                self.steps.push(Step::Ensure { entry: Arc::clone(entry), recheck: due, progress });
            }
            None => {
                let again = self.why_again(list, entry);
                if !stands.satisfied {
                    let failed = again.is_some();
                    placed.report.state = if failed { EntryState::Failed } else { EntryState::Pending };
                }
                placed.report.reason = again.or_else(|| (!stands.satisfied).then(queued));
            }
        }
        placed
    }

    /// Until another try has ended, what it's tried again for stays said: else it would be news each time.
    fn why_again(&self, list: &List, entry: &Entry) -> Option<Reason> {
        let Reason { code, message } = &failed_before(self.world, list, entry)?.reason;
        Some(Reason::new(code, format!("trying again; the try before failed: {message}")))
    }

    /// What is to be said of an entry although it's warm.
    fn note(&self, id: &EntryId) -> Option<Reason> {
        self.world.left_to_containerd.get(id).cloned()
    }

    fn report(&self, entry: &Entry, state: EntryState, reason: Option<Reason>) -> EntryReport {
        EntryReport {
            id: entry.id.clone(),
            kind: Some(kind(&entry.goods)),
            required: entry.required,
            state,
            reason,
            revision: None,
            source: source(&entry.goods),
            verified: false,
            requested: self.world.requested.contains(&entry.id),
            progress: None,
        }
    }

    fn wake_for_check(&mut self, entry: &Entry, stands: Standing) {
        if let Some(check) = self.world.checks.get(&entry.id) {
            // Where time changes nothing, a moment that has passed would wake the agent without end.
            if moves(entry) {
                self.wake.at(check.due);
            }
            if stands.mend {
                self.wake.at(check.mend_at);
            }
        }
    }

    fn removals(&self, list: &List, saying: &Saying<'_>) -> Leaving {
        let is_image = |entry: &Entry| kind(&entry.goods) == GoodsKind::Image;
        let starting =
            self.steps.iter().any(|step| matches!(step, Step::Ensure { entry, .. } if is_image(entry)));
        let pulling = starting || self.world.jobs.values().any(|job| is_image(&job.entry));
        removals(self.world, list, &self.wanted, saying, pulling, self.now)
    }

    /// A job whose entry is no longer wanted as it was is stopped; its successor starts when it has ended.
    fn cancel_unwanted(&mut self, list: &List) {
        let is_wanted = |id: &EntryId, entry: &Arc<Entry>| {
            list.entries.iter().filter_map(Listed::entry).any(|listed| {
                listed.id == *id
                    && listed.goods == entry.goods
                    && listed.credentials == entry.credentials
                    && !matches!(choice(self.world, listed, self.now), Choice::Skipped(_))
                    && !is_without_a_place(self.world, listed)
            })
        };
        let jobs = self.world.jobs.iter();
        let unwanted = jobs.filter(|(id, job)| !job.stopping && !is_wanted(id, &job.entry));
        self.steps.extend(unwanted.map(|(id, _)| Step::Cancel(id.clone())));
    }
}

/// It gives way to another, or the cache itself is gone.
fn is_without_a_place(world: &World, entry: &Entry) -> bool {
    let is_weights = matches!(entry.goods, Goods::Weights(_));
    is_weights && (world.cache_problem.is_some() || world.yielding.to.contains_key(&entry.id))
}

/// Broken entries that never were valid come last; equals stay in the document's order.
pub(super) fn in_order_of_work(list: &List) -> Vec<&Listed> {
    let mut entries: Vec<&Listed> = list.entries.iter().collect();
    entries.sort_by(|a, b| match (a.entry(), b.entry()) {
        (Some(a), Some(b)) => by_urgency(a, b),
        (a, b) => a.is_none().cmp(&b.is_none()),
    });
    entries
}

fn invalid(listed: &Listed) -> Placed {
    let required = matches!(listed, Listed::Bad { required: true, .. });
    let report = EntryReport {
        id: listed.id().clone(),
        kind: None,
        required,
        state: EntryState::Invalid,
        reason: Some(Reason::new("Invalid", listed.errors().join("; "))),
        revision: None,
        source: String::new(),
        verified: false,
        requested: false,
        progress: None,
    };
    Placed { report, ended: true }
}

fn queued() -> Reason {
    Reason::new("Queued", "entries before it in the order of work are being fetched")
}

fn over_limit() -> Reason {
    let message = format!(
        "more than {MAX_ENTRIES} entries apply to this node; this one comes after them in the order of work"
    );
    Reason::new("OverLimit", message)
}

fn list_report(list: &List, now: Now) -> ListReport {
    ListReport {
        known: list.known,
        content: list.content,
        errors: list.errors.clone(),
        warnings: list.warnings.clone(),
        paused: list.paused,
        stale: is_stale(list, now),
        removals_held: list.removals_held,
    }
}
