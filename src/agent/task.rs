//! The loop: `select() -> Event` awaits and changes nothing; `apply(Event)` changes and awaits nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::boot::BootState;
use super::jobs::{Jobs, Rooms};
use super::plan::{Plan, plan, reaches_ready};
use super::standing::standing;
use super::step::{Outcome, Step, Warmed};
use super::world::{Check, Failure, Job, Now, Settings, World};
use crate::image::Images;
use crate::list::{Entry, Goods, List, Listed, NodeFacts};
use crate::node::{Applied, Reason, Report};
use crate::rt::{Attempts, Liveness, MetricKind, Metrics, RetryPolicy};
use crate::types::{EntryId, ErrorKind, GpuPhase, GpuState, ImageRef};
use crate::weights::Named;

/// How often the cache's names are read again: somebody may have removed a file under us.
const RESCAN: Duration = Duration::from_secs(60);

/// How often the loop shows that it's alive, also when nothing happens.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Whatever the plan says, time alone doesn't wake the loop sooner than this.
const SHORTEST_SLEEP: Duration = Duration::from_millis(100);

/// How long a missing pin is left missing after it was last set: a pin that somebody else keeps taking off isn't
/// fought over.
const MEND_AFTER: Duration = Duration::from_secs(60);

/// With `--once`, what time may mend is tried this often in all before it counts as failed for good.
const ONCE: RetryPolicy =
    RetryPolicy { first: Duration::from_secs(2), longest: Duration::from_secs(20), retries: Some(4) };

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
    world: World,
    inputs: Inputs,
    jobs: Jobs,
    boot: BootState,
    state_dir: PathBuf,
    reports: watch::Sender<Arc<Report>>,
    watched: watch::Sender<BTreeSet<ImageRef>>,
    liveness: Liveness,
    metrics: Arc<Metrics>,
    rescan_at: Instant,
    scanning: Option<Scan>,
}

/// A read of the cache under way. What it finds is out of date if a name changed meanwhile.
struct Scan {
    outdated: bool,
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
        let mut world = World::new(settings);
        world.gate_opened = boot.gate_opened;
        world.ready_reached = boot.ready_reached;
        world.last_warm = boot.images();
        let (reports, watched) = outputs;
        Self {
            world,
            inputs,
            jobs: Jobs::new(rooms),
            boot,
            state_dir,
            reports,
            watched,
            liveness,
            metrics,
            rescan_at: Instant::now(),
            scanning: None,
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
        self.world.facts.clone_from(&self.inputs.facts.borrow_and_update());
        self.world.applied.clone_from(&self.inputs.applied.borrow_and_update());
        self.world.requested.clone_from(&self.inputs.requested.borrow_and_update());
        self.world.gate_opened |= self.world.gpu.open;
    }

    fn count_broken_list(&self) {
        let Some(list) = &self.world.list else { return };
        let broken = list.entries.iter().map(Listed::errors).filter(|errors| !errors.is_empty()).count();
        if broken > 0 || !list.errors.is_empty() {
            self.metrics.list_invalid();
            tracing::warn!(errors = ?list.errors, broken_entries = broken, "the list has errors; what was good stays in force");
        }
    }

    fn learn(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Warmed { entry, warmed } => self.warmed(entry, warmed),
            Outcome::Failed { entry, kind, code, message } => self.failed(entry, kind, code, message),
            Outcome::Unpinned(result) => {
                self.world.unpinning = false;
                log_failure("could not take pins off", result);
            }
            Outcome::Retired { id, result } => {
                self.world.removing.remove(&id);
                self.outdate_scan();
                if result.is_ok() {
                    tracing::info!(entry = %id, "removed the names of weights that are no longer listed");
                }
                // Where it failed, the next scan finds the names again, and then it's tried again.
                self.world.weights.iter_mut().for_each(|weights| drop(weights.remove(&id)));
                log_failure("could not remove names of weights", result);
            }
            Outcome::Scanned(result) => self.scanned(result),
        }
    }

    fn warmed(&mut self, entry: Arc<Entry>, warmed: Warmed) {
        if let (Warmed::Weights { named, .. }, Some(weights)) = (&warmed, &mut self.world.weights) {
            weights.insert(entry.id.clone(), named.clone());
        }
        let stopping = self.world.jobs.get(&entry.id).is_some_and(|job| job.stopping);
        if !stopping && !standing(&self.world, &entry).satisfied {
            // Started again at once, it would be so again.
            let message = self.why_not_shown(&entry);
            return self.failed(entry, ErrorKind::Local, "NotShown", message);
        }
        let now = Instant::now();
        let content = self.world.jobs.remove(&entry.id).and_then(|job| job.content);
        self.world.failures.remove(&entry.id);
        let jitter = 0.9 + fastrand::f64() * 0.2;
        let due = now + self.world.settings.recheck.mul_f64(jitter);
        let check = Check { at: now, due, content, mend_at: now + MEND_AFTER, entry: Arc::clone(&entry) };
        self.world.checks.insert(entry.id.clone(), check);
        let revision = warmed.revision().short();
        // A look at a source that has nothing new is neither a pull nor news.
        if warmed.moved_bytes() {
            self.count(&entry, Ok(()));
            tracing::info!(entry = %entry.id, %revision, "warm");
        } else {
            tracing::debug!(entry = %entry.id, %revision, "warm already");
        }
        if let Warmed::Weights { fetched, .. } = warmed {
            self.metrics.bytes(MetricKind::Weights, fetched);
            self.outdate_scan();
        }
    }

    /// Its job ended well, and yet it isn't there.
    fn why_not_shown(&self, entry: &Entry) -> String {
        match &entry.goods {
            Goods::Image(_) => {
                let problem = self.world.images.as_ref().and_then(|images| images.problem.as_deref());
                let problem =
                    problem.unwrap_or("somebody removed it, perhaps the kubelet for want of disk space");
                format!("it was pulled, but containerd does not show it unpacked: {problem}")
            }
            Goods::Weights(_) => {
                let named = self.world.weights.as_ref().and_then(|weights| weights.get(&entry.id));
                let problem = named.and_then(|named| named.problem.as_deref());
                let problem = problem.unwrap_or("somebody changed it at once");
                format!("all files are there, but the cache does not show them: {problem}")
            }
        }
    }

    fn failed(&mut self, entry: Arc<Entry>, kind: ErrorKind, code: &'static str, message: String) {
        let content = self.world.jobs.remove(&entry.id).and_then(|job| job.content);
        if kind == ErrorKind::Cancelled {
            return;
        }
        self.count(&entry, Err(kind));
        let policy = if self.world.settings.once { ONCE } else { RetryPolicy::ENTRY };
        let before = self.world.failures.remove(&entry.id);
        let same = before.filter(|failure| *failure.entry == *entry && failure.content == content);
        let mut attempts = same.map_or_else(|| Attempts::new(policy), |failure| failure.attempts);
        // What changed under a fetch is whole again at its next try.
        let kind = if kind == ErrorKind::Changed { ErrorKind::Transient } else { kind };
        let wait = attempts.failed_with(kind, fastrand::f64());
        let hopeless = || self.world.settings.hopeless_retry.mul_f64(0.9 + fastrand::f64() * 0.2);
        let wait_at_all = wait.or_else(|| (!self.world.settings.once).then(hopeless));
        match wait_at_all {
            Some(wait) => {
                self.metrics.retried(kind);
                tracing::warn!(entry = %entry.id, code, retry_in = ?wait, "{message}");
            }
            None => tracing::error!(entry = %entry.id, code, "{message}"),
        }
        let failure = Failure {
            entry: Arc::clone(&entry),
            content,
            attempts,
            retry_at: wait_at_all.map(|wait| Instant::now() + wait),
            reason: Reason::new(code, message),
            for_good: wait.is_none(),
        };
        self.world.failures.insert(entry.id.clone(), failure);
    }

    fn count(&self, entry: &Entry, result: Result<(), ErrorKind>) {
        match entry.goods {
            Goods::Image(_) => self.metrics.image_pulled(result),
            Goods::Weights(_) => self.metrics.weights_fetched(result),
        }
    }

    fn scanned(&mut self, result: Result<BTreeMap<EntryId, Named>, String>) {
        let outdated = self.scanning.take().is_none_or(|scan| scan.outdated);
        match result {
            Ok(names) if !outdated => self.world.weights = Some(names),
            // Again at once: what the jobs did meanwhile must be in it.
            Ok(_) => self.rescan_at = Instant::now(),
            Err(message) => tracing::error!("cannot read the cache: {message}"),
        }
    }

    fn outdate_scan(&mut self) {
        if let Some(scan) = &mut self.scanning {
            scan.outdated = true;
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
        let mut planned = plan(&self.world, &self.boot.boot_id, now);
        if !self.world.ready_reached && reaches_ready(&self.world, &planned.report) {
            self.world.ready_reached = true;
            planned = plan(&self.world, &self.boot.boot_id, now);
        }
        let Plan { steps, report, wake_at, watched_images } = planned;
        self.remember_images();
        for step in steps {
            self.note(&step);
            self.jobs.start(step);
        }
        self.save_boot_state();
        self.watched.send_if_modified(|watched| {
            let changed = *watched != watched_images;
            *watched = watched_images;
            changed
        });
        self.reports.send_replace(Arc::new(report));
        // A read that is under way ends by an event of its own, however late.
        let rescan_at = self.scanning.is_none().then_some(self.rescan_at);
        let next = [wake_at, rescan_at].into_iter().flatten().fold(now.monotonic + HEARTBEAT, Instant::min);
        next.max(now.monotonic + SHORTEST_SLEEP)
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
            Step::Rescan => {}
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
    }

    fn save_boot_state(&mut self) {
        let images = self.world.last_warm.iter().map(|(id, reference)| (id.clone(), reference.to_string()));
        let state = BootState {
            boot_id: self.boot.boot_id.clone(),
            gate_opened: self.world.gate_opened,
            gate_open: if self.world.gpu.phase == GpuPhase::Unknown {
                self.boot.gate_open
            } else {
                self.world.gpu.open
            },
            ready_reached: self.world.ready_reached,
            last_warm: images.collect(),
        };
        if state != self.boot {
            match state.save(&self.state_dir) {
                Ok(()) => self.boot = state,
                Err(error) => tracing::error!("{}", crate::rt::chain(&error)),
            }
        }
    }
}

fn log_failure(what: &str, result: Result<(), String>) {
    if let Err(message) = result {
        tracing::error!("{what}: {message}");
    }
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
