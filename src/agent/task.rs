//! The loop: `select() -> Event` awaits and changes nothing; `apply(Event)` changes and awaits nothing.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::boot::BootState;
use super::jobs::{Jobs, Rooms};
use super::memory::Memory;
use super::plan::{Plan, plan};
use super::pressure;
use super::ready::{gate_is_open, ready_by};
use super::shrink::shrink;
use super::step::{Outcome, Step};
use super::world::{Failure, Job, Now, Said, Settings, World};
use super::{superseded, vanishing, yielding};
use crate::image::Images;
use crate::list::{Goods, List, Listed, NodeFacts};
use crate::node::{Applied, ReadyBy, Report, labels};
use crate::rt::{Liveness, Metrics};
use crate::types::{EntryId, GpuPhase, GpuState, ImageRef};

/// How often the cache's names are read again: somebody may have removed a file under us.
const RESCAN: Duration = Duration::from_secs(60);

/// How often the cache's room is measured while somebody waits for some.
const MEASURE: Duration = Duration::from_secs(10);

/// How often the loop shows that it's alive, also when nothing happens.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Whatever the plan says, time alone doesn't wake the loop sooner than this.
const SHORTEST_SLEEP: Duration = Duration::from_millis(100);

/// What the loop listens to.
#[derive(Debug)]
pub struct Inputs {
    /// The list task's.
    pub list: watch::Receiver<Option<Arc<List>>>,
    /// The gpu task's.
    pub gpu: watch::Receiver<GpuState>,
    /// The image task's.
    pub images: watch::Receiver<Option<Arc<Images>>>,
    /// This node as selectors see it: the node task's.
    pub facts: watch::Receiver<Option<Arc<NodeFacts>>>,
    /// What the cluster has confirmed: the node task's.
    pub applied: watch::Receiver<Option<Applied>>,
    /// What was asked for on this node: the doors'.
    pub requested: watch::Receiver<BTreeSet<EntryId>>,
}

/// The agent: owns the world and the jobs.
pub struct Agent {
    pub(super) world: World,
    inputs: Inputs,
    jobs: Jobs,
    pub(super) memory: Memory,
    reports: watch::Sender<Arc<Report>>,
    watched: watch::Sender<BTreeSet<ImageRef>>,
    liveness: Liveness,
    pub(super) metrics: Arc<Metrics>,
    pub(super) rescan_at: Instant,
    pub(super) scanning: Option<Scan>,
    measure_at: Instant,
    pub(super) measuring: bool,
}

/// A read of the cache under way. What it finds is out of date if a name changed meanwhile.
pub(super) struct Scan {
    pub(super) outdated: bool,
}

enum Event {
    Changed,
    Ended(Outcome),
    Time,
    Stop,
    /// The other end of an input is gone: its task has died.
    Orphaned(&'static str),
}

impl Agent {
    /// Puts the agent together; nothing runs before [`Agent::run`].
    pub fn new(
        settings: Settings,
        boot: BootState,
        state_dir: PathBuf,
        inputs: Inputs,
        rooms: Rooms,
        outputs: (watch::Sender<Arc<Report>>, watch::Sender<BTreeSet<ImageRef>>),
        (liveness, metrics): (Liveness, Arc<Metrics>),
    ) -> Self {
        let jobs = Jobs::new(rooms, state_dir, settings.start_spread);
        let mut world = World::new(settings);
        world.gate_opened = boot.gate_opened;
        world.gate_opened_at = boot.gate_opened_at;
        world.ready_by = boot.ready_by();
        world.last_warm = boot.images();
        world.requested.clone_from(&boot.requested);
        let (reports, watched) = outputs;
        Self {
            world,
            inputs,
            jobs,
            memory: Memory::new(boot),
            reports,
            watched,
            liveness,
            metrics,
            rescan_at: Instant::now(),
            scanning: None,
            measure_at: Instant::now(),
            measuring: false,
        }
    }

    /// Runs until `stop`; then every job is stopped and joined.
    ///
    /// # Errors
    /// When a task that it listens to has died.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        self.take_inputs();
        loop {
            self.liveness.beat();
            let wake_at = self.act();
            match self.select(wake_at, &stop).await {
                Event::Stop => break,
                Event::Orphaned(task) => {
                    self.jobs.stop().await;
                    anyhow::bail!("the {task} task has ended; the agent can't go on without it");
                }
                event => self.apply(event),
            }
        }
        self.jobs.stop().await;
        self.jobs.keep(self.boot_state(), self.memory.kept()).await;
        Ok(())
    }

    async fn select(&mut self, wake_at: Instant, stop: &CancellationToken) -> Event {
        let ended = |result: Result<(), watch::error::RecvError>, task| match result {
            Ok(()) => Event::Changed,
            Err(_) => Event::Orphaned(task),
        };
        // Every arm is cancel-safe: `changed`, `cancelled` and `sleep_until` by their documentation, `next` by its own.
        tokio::select! {
            biased;
            () = stop.cancelled() => Event::Stop,
            outcome = self.jobs.next() => Event::Ended(outcome),
            result = self.inputs.list.changed() => ended(result, "list"),
            result = self.inputs.gpu.changed() => ended(result, "gpu"),
            result = self.inputs.images.changed() => ended(result, "image"),
            result = self.inputs.facts.changed() => ended(result, "node"),
            result = self.inputs.applied.changed() => ended(result, "node"),
            result = self.inputs.requested.changed() => ended(result, "grpc"),
            () = sleep_until(wake_at) => Event::Time,
        }
    }

    fn apply(&mut self, event: Event) {
        // First, so that an outcome is held against what its job has brought about.
        self.take_inputs();
        if let Event::Ended(outcome) = event {
            self.learn(outcome);
        }
    }

    /// A snapshot of all inputs: what counts is how things are now, not what happened.
    fn take_inputs(&mut self) {
        // Compared, and not asked for with `has_changed`: waiting for a change has marked it as seen already.
        let list = self.inputs.list.borrow_and_update().clone();
        if list != self.world.list {
            self.world.list = list;
            self.count_broken_list();
        }
        self.world.gpu.clone_from(&self.inputs.gpu.borrow_and_update());
        self.world.images.clone_from(&self.inputs.images.borrow_and_update());
        if let Some(facts) = &*self.inputs.facts.borrow_and_update() {
            // What was told once holds until something else is told.
            self.world.facts = Some(Arc::clone(facts));
        }
        self.world.applied.clone_from(&self.inputs.applied.borrow_and_update());
        self.take_requests();
        self.world.gate_opened |= self.world.gpu.open;
        if gate_is_open(&self.world) {
            self.world.gate_opened_at.get_or_insert_with(|| Now::read().since_boot);
        }
    }

    /// What is asked for holds as long as it is listed; what isn't listed can't be asked for.
    fn take_requests(&mut self) {
        let asked = self.inputs.requested.borrow_and_update().clone();
        let Some(list) = &self.world.list else { return };
        let listed: BTreeSet<&EntryId> = list.entries.iter().map(Listed::id).collect();
        let requested = &mut self.world.requested;
        requested.retain(|id| list.removals_held || listed.contains(id));
        requested.extend(asked.into_iter().filter(|id| listed.contains(id)));
    }

    fn count_broken_list(&self) {
        let Some(list) = self.world.list.as_ref().filter(|list| list.current) else { return };
        let broken = list.entries.iter().map(Listed::errors).filter(|errors| !errors.is_empty()).count();
        if broken > 0 || !list.errors.is_empty() {
            self.metrics.list_invalid();
            tracing::warn!(errors = ?list.errors, broken_entries = broken, "the list has errors; what was good stays in force");
        }
    }

    /// Plans, starts what is planned, says what is so. Returns when to look again.
    fn act(&mut self) -> Instant {
        let now = Now::read();
        self.world.has_settled |= self.world.settled();
        if now.monotonic >= self.rescan_at && self.scanning.is_none() {
            self.scanning = Some(Scan { outdated: false });
            self.rescan_at = now.monotonic + RESCAN;
            self.jobs.start(Step::Rescan);
        }
        let measure_at = self.measure(now.monotonic);
        vanishing::take_notice(&mut self.world, now.monotonic, fastrand::f64());
        pressure::take_notice(&mut self.world, now);
        yielding::take_notice(&mut self.world, now);
        superseded::take_notice(&mut self.world, now.monotonic);
        let mut planned = plan(&self.world, &self.memory.kept().boot_id, now);
        if self.world.ready_by.is_none() {
            self.world.ready_by = ready_by(&self.world, &planned.report, now);
            if let Some(why) = self.world.ready_by {
                tracing::info!(?why, "ready");
                planned = plan(&self.world, &self.memory.kept().boot_id, now);
            }
        }
        let Plan { steps, report, wake_at, watched_images } = planned;
        self.remember_images();
        for step in steps {
            self.start(step);
        }
        let state = self.boot_state();
        if self.memory.begins(&state, now.monotonic) {
            self.start(Step::Remember(state.clone()));
        }
        self.watched.send_if_modified(|watched| {
            let changed = *watched != watched_images;
            *watched = watched_images;
            changed
        });
        let held_until = self.memory.holds_until(&state, now.monotonic);
        if held_until.is_none() {
            self.say(report);
        }
        // A read or a write that is under way ends by an event of its own, however late.
        let rescan_at = self.scanning.is_none().then_some(self.rescan_at);
        let retry_at = self.memory.retry_at(now.monotonic);
        let moments = [wake_at, rescan_at, measure_at, held_until, retry_at, self.world.pressure.wake_at()];
        let next = moments.into_iter().flatten().fold(now.monotonic + HEARTBEAT, Instant::min);
        next.max(now.monotonic + SHORTEST_SLEEP)
    }

    /// Has the room measured when somebody waits for some, and given up what the kubelet needs. Says when to look again.
    fn measure(&mut self, now: Instant) -> Option<Instant> {
        let lacks = |failure: &Failure| failure.lack.is_some();
        if !self.world.settings.on_kubelets_disk && !self.world.failures.values().any(lacks) {
            return None;
        }
        if let Some(bytes) = shrink(&self.world) {
            self.start(Step::Shrink(bytes));
        }
        if self.measuring {
            return None;
        }
        if now >= self.measure_at {
            self.measure_at = now + MEASURE;
            self.start(Step::Measure);
            return None;
        }
        Some(self.measure_at)
    }

    fn say(&mut self, report: Report) {
        self.world.said = Said { version: report.labels_version, labels: labels(&report) };
        self.reports.send_replace(Arc::new(report));
    }

    fn start(&mut self, step: Step) {
        self.note(&step);
        self.jobs.start(step);
    }

    /// What is started is known to be started.
    fn note(&mut self, step: &Step) {
        match step {
            Step::Ensure { entry, progress, .. } => {
                let content = self.world.list.as_ref().and_then(|list| list.content);
                let job = Job {
                    entry: Arc::clone(entry),
                    progress: Arc::clone(progress),
                    content,
                    stopping: false,
                };
                self.world.jobs.insert(entry.id.clone(), job);
            }
            Step::Cancel(id) => {
                self.world.jobs.get_mut(id).into_iter().for_each(|job| job.stopping = true);
            }
            Step::Unpin(_) => self.world.unpinning = true,
            Step::Retire(id) => drop(self.world.removing.insert(id.clone())),
            Step::DropOld(id) => self.world.superseded.begin(id),
            Step::FindRoom { newcomer, .. } => {
                self.world.yielding.looking = true;
                let failure = self.world.failures.get_mut(newcomer);
                let lack = failure.and_then(|failure| failure.lack.as_mut());
                lack.into_iter().for_each(|lack| lack.looked_at = Some(Instant::now()));
            }
            Step::Measure => self.measuring = true,
            Step::Shrink(_) => self.world.shrinking = true,
            Step::Rescan | Step::Remember(_) => {}
        }
    }

    /// Which image is warm for which entry, as long as it's listed.
    fn remember_images(&mut self) {
        let Some(list) = self.world.list.clone().filter(|_| self.world.settled()) else { return };
        let listed = |id: &EntryId| list.entries.iter().any(|listed| listed.id() == id);
        self.world.last_warm.retain(|id, _| list.removals_held || listed(id));
        for entry in list.entries.iter().filter_map(Listed::entry) {
            let Goods::Image(goods) = &entry.goods else { continue };
            let images = self.world.images.as_ref();
            if images
                .and_then(|images| images.by_ref.get(&goods.reference))
                .is_some_and(|presence| presence.unpacked)
            {
                self.world.last_warm.insert(entry.id.clone(), goods.reference.clone());
            }
        }
        let ids: BTreeSet<&EntryId> = list.entries.iter().map(Listed::id).collect();
        self.world.checks.retain(|id, _| ids.contains(id));
        self.world.failures.retain(|id, _| ids.contains(id));
        self.world.left_to_containerd.retain(|id, _| ids.contains(id));
    }

    fn boot_state(&self) -> BootState {
        let world = &self.world;
        let kept = self.memory.kept();
        let images = world.last_warm.iter().map(|(id, reference)| (id.clone(), reference.to_string()));
        let unknown = world.gpu.phase == GpuPhase::Unknown;
        BootState {
            boot_id: kept.boot_id.clone(),
            gate_opened: world.gate_opened,
            gate_open: if unknown { kept.gate_open } else { world.gpu.open },
            gate_opened_at: world.gate_opened_at,
            ready_reached: world.ready_by.is_some(),
            max_wait_passed: world.ready_by == Some(ReadyBy::MaxWaitPassed),
            last_warm: images.collect(),
            requested: world.requested.clone(),
        }
    }
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
