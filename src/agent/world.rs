use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::pressure::Pressure;
use super::superseded::Superseded;
use super::vanishing::Vanishing;
use super::yielding::{Lack, Yielding};
use crate::image::{GcThreshold, Images};
use crate::list::{Entry, Goods, List, Listed, NodeFacts};
use crate::node::{Applied, ReadyBy, Reason};
use crate::rt::{Attempts, uptime};
use crate::types::{Digest, EntryId, GpuPhase, GpuState, ImageRef, Progress};
use crate::weights::{Named, Room};

/// What a closed gate holds back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum GateMode {
    /// Nothing is pulled before the driver answered once in this boot.
    Pull,
    /// Pulling starts at once; only the labels wait.
    Label,
}

/// What a node without an NVIDIA device on its bus does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum NoGpu {
    /// It waits: the list is for GPU nodes.
    Wait,
    /// It proceeds as if the gate were open.
    Proceed,
}

/// What was chosen at the start and never changes.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What a closed gate holds back.
    pub gate: GateMode,
    /// What no GPU means.
    pub no_gpu: NoGpu,
    /// This node's name.
    pub node_name: String,
    /// `--once`: tries are limited, and what has failed for good isn't tried again.
    pub once: bool,
    /// Weights whose source publishes no digest are refused.
    pub verified_only: bool,
    /// How many images are pulled at a time.
    pub image_jobs: usize,
    /// How many sets of weights are fetched at a time.
    pub weights_jobs: usize,
    /// How old the last look at a source may be, for sources that can change.
    pub recheck: Duration,
    /// How long after a failure that time doesn't mend it is tried all the same.
    pub hopeless_retry: Duration,
    /// From where on the kubelet removes images.
    pub gc_threshold: GcThreshold,
    /// The cache is on a disk that the kubelet watches.
    pub on_kubelets_disk: bool,
    /// How long after the gate's opening `stoker.dev/ready` no longer waits for required entries; `None` is for ever.
    pub max_wait: Option<Duration>,
    /// Over how long a fleet that sees a new list in one moment spreads its first requests.
    pub start_spread: Duration,
}

impl Settings {
    /// The defaults, on the node with this name.
    #[must_use]
    pub fn new(node_name: impl Into<String>) -> Self {
        Self {
            gate: GateMode::Pull,
            no_gpu: NoGpu::Wait,
            node_name: node_name.into(),
            once: false,
            verified_only: false,
            image_jobs: 2,
            weights_jobs: 3,
            recheck: Duration::from_secs(600),
            hopeless_retry: Duration::from_secs(900),
            gc_threshold: GcThreshold::DEFAULT,
            on_kubelets_disk: false,
            max_wait: None,
            start_spread: Duration::ZERO,
        }
    }
}

/// Everything that the planner may look at. Inputs are replaced whole when they change; the rest is what the agent
/// remembers of its own deeds.
#[derive(Debug, Clone)]
pub struct World {
    /// Chosen at the start.
    pub settings: Settings,
    /// The list, once it was read (or found missing).
    pub list: Option<Arc<List>>,
    /// The GPUs.
    pub gpu: GpuState,
    /// What containerd has, once it was asked.
    pub images: Option<Arc<Images>>,
    /// What the cache has, once it was read.
    pub weights: Option<BTreeMap<EntryId, Named>>,
    /// This node as selectors see it, as last told; `None` until the cluster was asked.
    pub facts: Option<Arc<NodeFacts>>,
    /// Listed entries that somebody on this node has asked for: they apply here whatever their `nodes` says.
    pub requested: BTreeSet<EntryId>,
    /// What the cluster has confirmed of our labels; `None` until it was asked.
    pub applied: Option<Applied>,
    /// The labels that were said last.
    pub said: Said,
    /// The gate was open at some moment of this boot.
    pub gate_opened: bool,
    /// When the gate was first open in this boot, since the boot's beginning.
    pub gate_opened_at: Option<Duration>,
    /// Why `stoker.dev/ready` was reached in this boot, if it was.
    pub ready_by: Option<ReadyBy>,
    /// Which image last was warm for an entry: it keeps its label while a new reference is on its way.
    pub last_warm: BTreeMap<EntryId, ImageRef>,
    /// What is being fetched.
    pub jobs: BTreeMap<EntryId, Job>,
    /// What failed last, until it's warm or its entry changes.
    pub failures: BTreeMap<EntryId, Failure>,
    /// Images that were warm in this run: whether they go again soon after they came.
    pub vanishing: BTreeMap<EntryId, Vanishing>,
    /// Images that give way on a disk that is nearly full.
    pub pressure: Pressure,
    /// Sets of weights that give way to others.
    pub yielding: Yielding,
    /// Revisions of weights that newer ones have replaced.
    pub superseded: Superseded,
    /// How much room the cache has, as last measured.
    pub room: Option<Room>,
    /// Unneeded bytes are being given up for the kubelet's sake.
    pub shrinking: bool,
    /// Why nothing in the cache counts: its disk is gone, or hidden.
    pub cache_problem: Option<String>,
    /// Names that could not be removed.
    pub stuck: BTreeMap<EntryId, Stuck>,
    /// Pins that could not be taken off.
    pub stuck_pins: Option<Stuck>,
    /// Why containerd itself had to pull an entry's image, as of its last pull.
    pub left_to_containerd: BTreeMap<EntryId, Reason>,
    /// When each entry's source was last looked at with success.
    pub checks: BTreeMap<EntryId, Check>,
    /// Names and pins that are being removed.
    pub removing: BTreeSet<EntryId>,
    /// Pins that are being taken off.
    pub unpinning: bool,
    /// [`World::settled`] was true at some moment of this run.
    pub has_settled: bool,
}

/// A job under way.
#[derive(Debug, Clone)]
pub struct Job {
    /// The version of the entry that it works on.
    pub entry: Arc<Entry>,
    /// How far it is.
    pub progress: Arc<Progress>,
    /// The list that it was started for.
    pub content: Option<Digest>,
    /// It has been told to stop.
    pub stopping: bool,
}

/// Why an entry isn't warm.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The version of the entry that failed.
    pub entry: Arc<Entry>,
    /// The list in which it failed; another list is a reason to try again at once.
    pub content: Option<Digest>,
    /// Tries so far.
    pub attempts: Attempts,
    /// When it's tried again.
    pub retry_at: Option<Instant>,
    /// What went wrong.
    pub reason: Reason,
    /// Time doesn't mend it, or the tries are used up.
    pub for_good: bool,
    /// The room that it lacks, if that is what went wrong.
    pub lack: Option<Lack>,
}

/// A successful look at an entry's source.
#[derive(Debug, Clone)]
pub struct Check {
    /// When.
    pub at: Instant,
    /// When the next one is due, with jitter.
    pub due: Instant,
    /// The list at that time.
    pub content: Option<Digest>,
    /// When a missing pin may be mended at the earliest: a pin that somebody keeps taking off isn't fought over.
    pub mend_at: Instant,
    /// The version of the entry.
    pub entry: Arc<Entry>,
}

/// Names or pins that nobody wants, and that could not be taken away.
#[derive(Debug, Clone)]
pub struct Stuck {
    /// Tries so far.
    pub attempts: Attempts,
    /// When it's tried again.
    pub retry_at: Instant,
    /// What is in the way, as it was last logged.
    pub problem: String,
}

/// The labels that were said last, and how often they have changed.
#[derive(Debug, Clone, Default)]
pub struct Said {
    /// As in [`Report::labels_version`](crate::node::Report::labels_version).
    pub version: u64,
    /// Those labels; `None` while nothing was said.
    pub labels: Option<BTreeMap<String, String>>,
}

/// The clocks, read once for a plan.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For the moments that the list names.
    pub wall: Timestamp,
    /// For our own waiting.
    pub monotonic: Instant,
    /// Since the boot, sleep included: for what outlives a restart of the agent.
    pub since_boot: Duration,
}

impl Now {
    /// All of them, now.
    #[must_use]
    pub fn read() -> Self {
        Self { wall: Timestamp::now(), monotonic: Instant::now(), since_boot: uptime() }
    }
}

impl World {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            list: None,
            gpu: GpuState::unknown(),
            images: None,
            weights: None,
            facts: None,
            requested: BTreeSet::new(),
            applied: None,
            said: Said::default(),
            gate_opened: false,
            gate_opened_at: None,
            ready_by: None,
            last_warm: BTreeMap::new(),
            jobs: BTreeMap::new(),
            failures: BTreeMap::new(),
            vanishing: BTreeMap::new(),
            pressure: Pressure::default(),
            yielding: Yielding::default(),
            superseded: Superseded::default(),
            room: None,
            shrinking: false,
            cache_problem: None,
            stuck: BTreeMap::new(),
            stuck_pins: None,
            left_to_containerd: BTreeMap::new(),
            checks: BTreeMap::new(),
            removing: BTreeSet::new(),
            unpinning: false,
            has_settled: false,
        }
    }

    /// This node as selectors see it, as far as it's known.
    #[must_use]
    pub fn node(&self) -> NodeFacts {
        let unknown = || NodeFacts { name: self.settings.node_name.clone(), labels: BTreeMap::new() };
        self.facts.as_deref().cloned().unwrap_or_else(unknown)
    }

    /// Whether list, gate, images, cache and cluster have each reported once: before that nothing is removed and nothing is
    /// said to the cluster.
    #[must_use]
    pub fn settled(&self) -> bool {
        self.has_settled
            || (self.list.is_some()
                && self.gpu.phase != GpuPhase::Unknown
                && self.images_were_asked_for()
                && self.weights.is_some()
                && self.facts.is_some()
                && self.applied.is_some())
    }

    /// Whether containerd has said of each image that is listed now whether it's there. The first sweeps begin before
    /// the list is known, and one that could not be asked has said nothing about any image.
    #[must_use]
    pub fn images_were_asked_for(&self) -> bool {
        self.images
            .as_ref()
            .is_some_and(|images| self.listed_images().all(|reference| images.asked.contains(reference)))
    }

    /// The image of each entry, and the one that is warm for it, if that's another.
    pub fn listed_images(&self) -> impl Iterator<Item = &ImageRef> {
        let entries = self.list.iter().flat_map(|list| &list.entries).filter_map(Listed::entry);
        entries.flat_map(|entry| {
            let (listed, warm) = match &entry.goods {
                Goods::Image(goods) => (Some(&goods.reference), self.last_warm.get(&entry.id)),
                Goods::Weights(_) => (None, None),
            };
            listed.into_iter().chain(warm)
        })
    }
}
