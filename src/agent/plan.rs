//! The planner: what is known in, what to do and what to say out. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;

use super::removals::{Leaving, Wanted, removals};
use super::standing::{
    CLOCK_TOLERANCE, Hold, Standing, check_due, entry_hold, is_expired, is_stale, kind, moves, node_hold,
    source, standing,
};
use super::step::Step;
use super::world::{NoGpu, Now, World};
use crate::list::{Applies, Entry, Goods, List, Listed, applies, by_urgency};
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
        Planner { world, now, steps: Vec::new(), wake: Wake { at: None, now }, wanted: Wanted::default() };
    let nothing = List::empty();
    let list = world.list.as_deref().unwrap_or(&nothing);
    let entries = planner.entries(list);
    planner.cancel_unwanted(list);
    let all_ended = ended(&entries, world);
    let mut report = Report {
        gpu: world.gpu.clone(),
        list: list_report(list, now),
        gate_passed: world.gate_opened || gate_is_open(world),
        ready: world.ready_reached && gate_is_open(world),
        settled: world.settled(),
        done: false,
        boot_id: boot_id.to_owned(),
        entries: entries.into_iter().map(|entry| entry.report).collect(),
    };
    let leaving = planner.removals(list, &report);
    report.done = all_has_been_asked(world)
        && all_ended
        && world.jobs.is_empty()
        && planner.steps.is_empty()
        && leaving.steps.is_empty()
        && !leaving.waiting;
    planner.steps.extend(leaving.steps);
    if let Some(until) = list.valid_until {
        planner.wake.at_wall(until.saturating_add(CLOCK_TOLERANCE).unwrap_or(Timestamp::MAX));
    }
    Plan {
        steps: planner.steps,
        report,
        wake_at: planner.wake.at,
        watched_images: world.listed_images().cloned().collect(),
    }
}

/// Whether `stoker.dev/ready` is reached now, by this report: every required entry is warm and the gate is open.
#[must_use]
pub(super) fn reaches_ready(world: &World, report: &Report) -> bool {
    let required_are_warm = report
        .entries
        .iter()
        .filter(|entry| entry.required && entry.state != EntryState::Skipped)
        .all(|entry| entry.state == EntryState::Warm);
    report.settled && report.list.content.is_some() && gate_is_open(world) && required_are_warm
}

fn gate_is_open(world: &World) -> bool {
    match world.gpu.phase {
        GpuPhase::NotApplicable => world.settings.no_gpu == NoGpu::Proceed,
        _ => world.gpu.open,
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
            if let Some(reason) = self.not_for_us(entry) {
                placed.push(Placed { report: report(entry, EntryState::Skipped, Some(reason)), ended: true });
                continue;
            }
            self.wanted.add(self.world, entry);
            applying += 1;
            if applying > MAX_ENTRIES {
                let reason = Reason::new(
                    "OverLimit",
                    format!(
                        "more than {MAX_ENTRIES} entries apply to this node; this one comes after them in the order of work"
                    ),
                );
                placed
                    .push(Placed { report: report(entry, EntryState::OverLimit, Some(reason)), ended: true });
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
            placed.push(entry);
        }
        placed
    }

    fn not_for_us(&mut self, entry: &Entry) -> Option<Reason> {
        if is_expired(entry, self.now) {
            return Some(Reason::new(Reason::EXPIRED, "it is past its expiresAt"));
        }
        if let Some(at) = entry.expires_at {
            self.wake.at_wall(at);
        }
        match applies(entry, &self.world.node()) {
            Applies::Yes => None,
            Applies::No(why) => Some(Reason::new(Reason::NOT_FOR_THIS_NODE, why)),
        }
    }

    /// Where an entry that applies stands, and the step that it needs now.
    fn place(
        &mut self,
        list: &List,
        entry: &Arc<Entry>,
        node_hold: Option<&Hold>,
        free: &mut Slots,
    ) -> Placed {
        if matches!(entry.goods, Goods::Weights(_)) && self.world.removing.contains(&entry.id) {
            let reason =
                Reason::new("Removing", "its names from when it was listed before are being removed");
            return Placed { report: report(entry, EntryState::Pending, Some(reason)), ended: false };
        }
        let stands = standing(self.world, entry);
        let state = if stands.satisfied { EntryState::Warm } else { EntryState::Fetching };
        let mut placed = Placed { report: report(entry, state, None), ended: false };
        placed.report.revision = stands.warm;
        placed.report.verified = stands.verified;
        if let Some(job) = self.world.jobs.get(&entry.id) {
            placed.report.progress = (!stands.satisfied).then(|| Arc::clone(&job.progress));
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
                placed.report.reason = Some(hold.reason.clone());
                placed.ended = hold.for_good;
            }
            None if free.take(kind(&entry.goods)) => {
                let progress = Arc::new(Progress::default());
                placed.report.progress = (!stands.satisfied).then(|| Arc::clone(&progress));
                self.steps.push(Step::Ensure { entry: Arc::clone(entry), recheck: due, progress });
            }
            None if !stands.satisfied => {
                placed.report.state = EntryState::Pending;
                placed.report.reason =
                    Some(Reason::new("Queued", "entries before it in the order of work are being fetched"));
            }
            None => {}
        }
        placed
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

    fn removals(&self, list: &List, report: &Report) -> Leaving {
        let is_image = |entry: &Entry| kind(&entry.goods) == GoodsKind::Image;
        let starting =
            self.steps.iter().any(|step| matches!(step, Step::Ensure { entry, .. } if is_image(entry)));
        let pulling = starting || self.world.jobs.values().any(|job| is_image(&job.entry));
        let said = labels(report).unwrap_or_default();
        removals(self.world, list, &self.wanted, &said, pulling, self.now)
    }

    /// A job whose entry is no longer wanted as it was is stopped; its successor starts when it has ended.
    fn cancel_unwanted(&mut self, list: &List) {
        let is_wanted = |id: &EntryId, entry: &Arc<Entry>| {
            list.entries.iter().filter_map(Listed::entry).any(|listed| {
                listed.id == *id
                    && listed.goods == entry.goods
                    && listed.credentials == entry.credentials
                    && !is_expired(listed, self.now)
                    && matches!(applies(listed, &self.world.node()), Applies::Yes)
            })
        };
        let jobs = self.world.jobs.iter();
        let unwanted = jobs.filter(|(id, job)| !job.stopping && !is_wanted(id, &job.entry));
        self.steps.extend(unwanted.map(|(id, _)| Step::Cancel(id.clone())));
    }
}

/// Broken entries that never were valid come last; equals stay in the document's order.
fn in_order_of_work(list: &List) -> Vec<&Listed> {
    let mut entries: Vec<&Listed> = list.entries.iter().collect();
    entries.sort_by(|a, b| match (a.entry(), b.entry()) {
        (Some(a), Some(b)) => by_urgency(a, b),
        (a, b) => a.is_none().cmp(&b.is_none()),
    });
    entries
}

/// How many more jobs may be started.
struct Slots {
    images: usize,
    weights: usize,
}

impl Slots {
    fn of(world: &World) -> Self {
        let images = world.jobs.values().filter(|job| matches!(job.entry.goods, Goods::Image(_))).count();
        let weights = world.jobs.len() - images;
        Self {
            images: world.settings.image_jobs.saturating_sub(images),
            weights: world.settings.weights_jobs.saturating_sub(weights),
        }
    }

    fn take(&mut self, kind: GoodsKind) -> bool {
        let free = match kind {
            GoodsKind::Image => &mut self.images,
            GoodsKind::Weights => &mut self.weights,
        };
        let taken = *free > 0;
        *free = free.saturating_sub(1);
        taken
    }
}

/// The earliest moment at which time alone changes the plan.
struct Wake {
    at: Option<Instant>,
    now: Now,
}

impl Wake {
    fn at(&mut self, at: Instant) {
        self.at = Some(self.at.map_or(at, |earlier| earlier.min(at)));
    }

    /// A moment of the wall clock; half a second late, so that it's surely past then.
    fn at_wall(&mut self, at: Timestamp) {
        if let Ok(wait) = std::time::Duration::try_from(at.duration_since(self.now.wall)) {
            self.at(self.now.monotonic + wait.min(FAR) + std::time::Duration::from_millis(500));
        }
    }
}

/// Looking again once a day is cheap, and keeps instants far from overflowing.
const FAR: std::time::Duration = std::time::Duration::from_secs(86_400);

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
        progress: None,
    };
    Placed { report, ended: true }
}

fn report(entry: &Entry, state: EntryState, reason: Option<Reason>) -> EntryReport {
    EntryReport {
        id: entry.id.clone(),
        kind: Some(kind(&entry.goods)),
        required: entry.required,
        state,
        reason,
        revision: None,
        source: source(&entry.goods),
        verified: false,
        progress: None,
    }
}

fn list_report(list: &List, now: Now) -> ListReport {
    ListReport {
        content: list.content,
        errors: list.errors.clone(),
        warnings: list.warnings.clone(),
        paused: list.paused,
        stale: is_stale(list, now),
        removals_held: list.removals_held,
    }
}
