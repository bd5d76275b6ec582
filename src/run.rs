//! Wires everything, once: makes the tasks, gives each its ends of the channels, and ends the process when one dies.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::agent::{Agent, BootState, Inputs, Now, Rooms, Settings, World, plan};
use crate::cli::{
    AgentArgs, Exit, Followed, HttpAddress, ListSource, Look, ProgressDisplay, Status, print_summary,
    unless_closed,
};
use crate::cluster::{Cluster, NodeSettings, NodeWatches};
use crate::containerd::Containerd;
use crate::image::{GcThreshold, Puller};
use crate::list::NodeFacts;
use crate::node::{Applied, EntryReport, EntryState, Reason, Report};
use crate::rt::{Liveness, Metrics, Shutdown};
use crate::types::{EntryId, ImageRef};
use crate::weights::{Cache, Capacity, Reserve, RootFsPolicy, ScrubSettings, Users, Warmer, shares_disk};
use crate::{api, cluster, fetch, gpu, image, node, source, weights};

/// `stoker agent`: runs until a signal, until `--once` is done, or until a task dies.
///
/// # Errors
/// When something stands in the way of the start, or a task has died.
pub(crate) async fn agent(args: AgentArgs, list: ListSource) -> anyhow::Result<Exit> {
    let stop = Shutdown::new().context("cannot take over SIGTERM and SIGINT")?.token();
    let facts = node_facts(&args)?;
    let settings = settings(&args, &facts.name);
    let boot_id = std::fs::read_to_string(&args.node.boot_id_path)
        .with_context(|| format!("cannot read {} (--boot-id-path)", args.node.boot_id_path.display()))?;
    let boot = BootState::load(&args.node.state_dir, boot_id.trim());
    boot.save(&args.node.state_dir)?;

    let Some(cache) = stop.run_until_cancelled(open_cache(&args)).await else {
        return Ok(if args.once { Exit::Interrupted } else { Exit::Done });
    };
    let cache = cache?;
    // Ports and sockets before any work, so that a mistake is told at once.
    let doors = Doors::open(&args).await?;

    let (watched_images, watched) = watch::channel(BTreeSet::<ImageRef>::new());
    let containerd = Containerd::new(&args.containerd.containerd_address);
    let list_name = list.to_string();
    let (state_dir, allow) = (args.node.state_dir.clone(), args.allow.allow_list()?);
    let (lists, list_task, in_cluster) = match list {
        ListSource::File(path) => {
            let (lists, task) = cluster::spawn_file_list(path, state_dir, allow, stop.clone());
            (lists, task, None)
        }
        ListSource::ConfigMap { config_map, node } => {
            let cluster = Cluster::connect(args.cluster.kubeconfig.as_deref()).await?;
            let settings = NodeSettings {
                name: node,
                taints: args.cluster.taints.clone(),
                gate_warn_after: args.cluster.gate_warn_after,
                spread: args.cluster.fleet_spread,
            };
            let watching = cluster.clone();
            let (lists, task) =
                cluster::spawn_config_map_list(watching, config_map, state_dir, allow, stop.clone());
            (lists, task, Some((cluster, settings)))
        }
    };
    let (images_handle, images, image_task) = image::spawn(containerd.clone(), watched, stop.clone());

    let metrics = Arc::new(Metrics::new());
    let liveness = Liveness::new();
    // One for both goods: they share the memory, the connections and the bandwidth.
    let engine = fetch::Engine::new(args.sources.limits()).counting_in(Arc::clone(&metrics));
    let limit = args.sources.max_bandwidth;
    let bandwidth = Followed::new(args.node.max_bandwidth_file.clone(), limit, engine.bandwidth());
    // Who bakes a machine image wants no second look at what was just written.
    let (to_scrub, rate) = (Arc::clone(&cache), if args.once { 0 } else { args.capacity.scrub_rate });
    let rooms = rooms(&args, cache, containerd, images_handle, engine, &metrics)?;
    let nothing = plan(&World::new(settings.clone()), boot_id.trim(), Now::read()).report;
    let (reports_out, reports) = watch::channel(Arc::new(nothing));
    let node = match in_cluster {
        Some((cluster, settings)) => NodeSide::in_cluster(cluster, settings, &reports, &metrics, &stop),
        None => NodeSide::alone(facts, &reports, &stop),
    };
    let NodeSide { applied, facts, holds, task: node_task } = node;
    let (gpus, gpu_task) = gpu::spawn(gpu_config(&args, &boot), holds, stop.clone());
    let (requested_out, requested) = watch::channel(BTreeSet::new());
    let applied_seen = applied.clone();
    let inputs = Inputs { list: lists, gpu: gpus, images, facts, applied, requested };
    let agent = Agent::new(
        settings,
        boot,
        args.node.state_dir.clone(),
        inputs,
        rooms,
        (reports_out, watched_images),
        (liveness.clone(), Arc::clone(&metrics)),
    );

    let mut tasks = Tasks::default();
    tasks.watch("list", async move { Ok(list_task.await?) });
    tasks.watch("gpu", async move { Ok(gpu_task.await?) });
    tasks.watch("image", async move { Ok(image_task.await?) });
    tasks.watch("node", async move { Ok(node_task.await?) });
    tasks.watch("agent", agent.run(stop.clone()));
    tasks.watch("bandwidth", bandwidth.run(stop.clone()));
    tasks.watch("scrub", scrub(to_scrub, rate, args.capacity.scrub_days, stop.clone()));
    doors.serve(&mut tasks, &reports, applied_seen, requested_out, (metrics, liveness), &stop);
    tracing::info!(list = list_name, version = env!("CARGO_PKG_VERSION"), "the agent has started");

    let ended = if args.once {
        once(reports.clone(), &mut tasks, &stop).await
    } else {
        tasks.until(&stop).await.map(|()| Exit::Done)
    };
    stop.cancel();
    tasks.join().await;
    ended
}

/// What the Node has to do with the rest: what it was told, what it is, and whether its driver is being replaced.
struct NodeSide {
    applied: watch::Receiver<Option<Applied>>,
    facts: watch::Receiver<Option<Arc<NodeFacts>>>,
    holds: watch::Receiver<gpu::Hold>,
    task: JoinHandle<()>,
}

impl NodeSide {
    /// Without a cluster each label counts as written at once, and nobody says that the driver is being replaced.
    fn alone(facts: NodeFacts, reports: &watch::Receiver<Arc<Report>>, stop: &CancellationToken) -> Self {
        let (applied, node_task) = cluster::spawn_standalone_node(reports.clone(), stop.clone());
        let (facts_out, facts) = watch::channel(Some(Arc::new(facts)));
        let (hold, holds) = watch::channel(gpu::Hold::No);
        let task = tokio::spawn(async move {
            let ended = node_task.await;
            drop((facts_out, hold));
            go_on_with(ended);
        });
        Self { applied, facts, holds, task }
    }

    fn in_cluster(
        cluster: Cluster,
        settings: NodeSettings,
        reports: &watch::Receiver<Arc<Report>>,
        metrics: &Arc<Metrics>,
        stop: &CancellationToken,
    ) -> Self {
        let watches =
            cluster::spawn_node(cluster, settings, reports.clone(), Arc::clone(metrics), stop.clone());
        let (NodeWatches { applied, facts }, node_task) = watches;
        let (tell, holds) = watch::channel(gpu::Hold::No);
        let mut seen = facts.clone();
        let task = tokio::spawn(async move {
            let follow = async {
                loop {
                    let facts = seen.borrow_and_update().clone();
                    // Also when there is none: a word of it ends the one that an agent before this one left behind.
                    if let Some(facts) = facts {
                        tell.send_replace(gpu::Hold::from_labels(&facts.labels));
                    }
                    if seen.changed().await.is_err() {
                        return;
                    }
                }
            };
            go_on_with(tokio::join!(node_task, follow).0);
        });
        Self { applied, facts, holds, task }
    }
}

/// A task that waited for another dies as that has died.
fn go_on_with(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

/// Waits until nothing is left to do, then says what is warm.
async fn once(
    mut reports: watch::Receiver<Arc<Report>>,
    tasks: &mut Tasks,
    stop: &CancellationToken,
) -> anyhow::Result<Exit> {
    let shown = CancellationToken::new();
    let display = tokio::spawn(ProgressDisplay::on_stderr().show(reports.clone(), shown.clone()));
    let done = async {
        match reports.wait_for(|report| report.done).await {
            Ok(report) => Arc::clone(&report),
            // The agent has ended, by a signal or by a fault: its task tells which.
            Err(_) => std::future::pending().await,
        }
    };
    let report = tokio::select! {
        died = tasks.until(stop) => {
            shown.cancel();
            display.await?;
            return died.map(|()| Exit::Interrupted);
        }
        report = done => report,
    };
    shown.cancel();
    display.await?;
    let status = Status::of(&report, node::labels(&report).unwrap_or_default());
    let out = std::io::stdout();
    unless_closed(print_summary(&status, Look::of(&out), &mut out.lock()))?;
    Ok(if is_warm(&report) { Exit::Done } else { Exit::No })
}

/// Whether all that the list asks of this node is there, and the list could be read, each of its entries too.
fn is_warm(report: &Report) -> bool {
    let outdated = |reason: &Option<Reason>| {
        reason.as_ref().is_some_and(|reason| reason.code == Reason::LAST_GOOD_VERSION)
    };
    let is_fine = |entry: &EntryReport| match entry.state {
        EntryState::Warm => !outdated(&entry.reason),
        EntryState::Skipped => true,
        EntryState::Pending
        | EntryState::Fetching
        | EntryState::Failed
        | EntryState::Invalid
        | EntryState::OverLimit => false,
    };
    report.list.errors.is_empty() && report.entries.iter().all(is_fine)
}

fn node_facts(args: &AgentArgs) -> anyhow::Result<NodeFacts> {
    let name = match &args.node.node_name {
        Some(name) => name.clone(),
        None => rustix::system::uname()
            .nodename()
            .to_str()
            .map(str::to_owned)
            .ok()
            .context("the host has no readable name; give --node-name")?,
    };
    let labels = args.node.node_labels.iter().cloned().collect();
    Ok(NodeFacts { name, labels })
}

fn settings(args: &AgentArgs, node_name: &str) -> Settings {
    let mut settings = Settings::new(node_name);
    settings.gate = args.gate.gate;
    settings.no_gpu = args.gate.no_gpu;
    settings.once = args.once;
    settings.max_wait = args.node.max_wait;
    settings.gc_threshold = GcThreshold(args.node.image_gc_high_threshold);
    settings.verified_only = args.node.verified_only;
    if args.list.list_configmap.is_some() {
        settings.start_spread = args.cluster.start_spread;
    }
    settings.on_kubelets_disk = on_kubelets_disk(args);
    settings
}

/// On a thread that may wait: after a crash a large cache takes its time, and a signal must be noticed meanwhile.
async fn open_cache(args: &AgentArgs) -> anyhow::Result<Arc<Cache>> {
    let policy = if args.node.allow_root_fs {
        RootFsPolicy::Allow
    } else {
        RootFsPolicy::Refuse(args.gate.host_root.clone())
    };
    let dir = args.cache.cache_dir.clone();
    let (max, grace) = (args.capacity.cache_max, args.capacity.cache_grace);
    let mut reserve = Reserve::default();
    if on_kubelets_disk(args) {
        // It must not bring the disk to where the kubelet removes images.
        let threshold = GcThreshold(args.node.image_gc_high_threshold);
        reserve.percent = reserve.percent.max(100_u8.saturating_sub(threshold.pulls_end()));
    }
    let capacity = Capacity { reserve, max, grace };
    Ok(tokio::task::spawn_blocking(move || Cache::open_with(&dir, &policy, capacity)).await??)
}

/// The kubelet watches the disk of its own directory, and that of the images.
fn on_kubelets_disk(args: &AgentArgs) -> bool {
    let places = ["var/lib/kubelet", "var/lib/containerd"];
    shares_disk(&args.cache.cache_dir, &places.map(|place| args.gate.host_root.join(place)))
}

/// Reads the cache again, slowly, as long as the agent runs.
async fn scrub(
    cache: Arc<Cache>,
    rate: u32,
    every: std::time::Duration,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    if rate > 0 {
        weights::scrub(cache, ScrubSettings { bytes_per_second: u64::from(rate) << 20, every }, stop.clone())
            .await;
    }
    stop.cancelled().await;
    Ok(())
}

fn rooms(
    args: &AgentArgs,
    cache: Arc<Cache>,
    containerd: Containerd,
    images: image::ImagesHandle,
    engine: fetch::Engine,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Rooms> {
    let config = args.sources.config(args.allow.allow_schemes.iter().any(|scheme| scheme == "http"));
    let (file_root, host_root) = (args.allow.file_root.clone(), Some(args.gate.host_root.clone()));
    let config = source::SourceConfig { file_root, host_root, ..config };
    let sources = source::Sources::new(config.clone())?;
    let threshold = GcThreshold(args.node.image_gc_high_threshold);
    let settings = args.images.settings(config, args.gate.host_root.clone(), threshold);
    let users = Users::new(containerd.clone(), args.gate.host_root.clone());
    Ok(Rooms {
        puller: Puller::new(containerd, images, engine.clone(), Arc::clone(metrics), settings)?,
        warmer: Warmer::new(Arc::clone(&cache), engine, sources, args.node.verified_only),
        cache,
        users,
    })
}

fn gpu_config(args: &AgentArgs, boot: &BootState) -> gpu::GpuConfig {
    let mut config = gpu::GpuConfig::new("/proc/self/exe");
    config.nvml_path.clone_from(&args.gate.nvml_path);
    config.sysfs_root.clone_from(&args.gate.sysfs_root);
    config.host_root.clone_from(&args.gate.host_root);
    config.expected = args.gate.gpu_expected;
    config.interval = args.gate.gpu_interval;
    config.was_open = boot.gate_open;
    config.probe_file.clone_from(&args.gate.gpu_probe_file);
    config
}

/// Where others reach the agent.
struct Doors {
    socket: UnixListener,
    http: Option<TcpListener>,
}

impl Doors {
    async fn open(args: &AgentArgs) -> anyhow::Result<Self> {
        let socket = api::bind(&args.socket.socket).await?;
        let http = match args.node.http {
            HttpAddress::Off => None,
            HttpAddress::At(address) => {
                let listener = TcpListener::bind(address).await;
                Some(listener.with_context(|| {
                    format!("cannot listen on {address}; choose another with --http, or --http off")
                })?)
            }
        };
        Ok(Self { socket, http })
    }

    fn serve(
        self,
        tasks: &mut Tasks,
        reports: &watch::Receiver<Arc<Report>>,
        applied: watch::Receiver<Option<Applied>>,
        requested: watch::Sender<BTreeSet<EntryId>>,
        (metrics, liveness): (Arc<Metrics>, Liveness),
        stop: &CancellationToken,
    ) {
        let labels: api::Labels = Arc::new(|report| node::labels(report).unwrap_or_default());
        let door =
            api::grpc::Door { reports: reports.clone(), labels: Arc::clone(&labels), applied, requested };
        let grpc = api::grpc::serve(self.socket, door, stop.clone());
        tasks.watch("grpc", async move { Ok(grpc.await?) });
        if let Some(listener) = self.http {
            let door = api::http::Door { reports: reports.clone(), labels, metrics, liveness };
            let http = api::http::serve(listener, door, stop.clone());
            tasks.watch("http", async move { Ok(http.await?) });
        }
    }
}

/// The long tasks. Each runs as long as the process: the first that ends on its own ends it.
#[derive(Default)]
struct Tasks(JoinSet<(&'static str, anyhow::Result<()>)>);

impl Tasks {
    fn watch(&mut self, name: &'static str, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        self.0.spawn(async move { (name, task.await) });
    }

    /// Waits for the signal to stop, or for a death.
    async fn until(&mut self, stop: &CancellationToken) -> anyhow::Result<()> {
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            Some(ended) = self.0.join_next() => {
                let (name, result) = ended.context("a task of the agent panicked")?;
                result.with_context(|| format!("the {name} task has ended"))?;
                if stop.is_cancelled() { Ok(()) } else { anyhow::bail!("the {name} task has ended") }
            }
        }
    }

    /// Waits until every task has put down what it held, but not for ever: a hung driver or daemon must not hold up
    /// the pod's end.
    async fn join(&mut self) {
        let all = async {
            while let Some(ended) = self.0.join_next().await {
                if let Ok((name, Err(error))) = ended {
                    tracing::error!("the {name} task: {error:#}");
                }
            }
        };
        if tokio::time::timeout(std::time::Duration::from_secs(10), all).await.is_err() {
            tracing::warn!("some tasks did not end in time; leaving them behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::node::{GoodsKind, ListReport};
    use crate::types::GpuState;

    fn report(state: EntryState, reason: Option<&str>) -> Report {
        let entry = EntryReport {
            id: "a".parse().unwrap(),
            kind: Some(GoodsKind::Weights),
            required: false,
            state,
            reason: reason.map(|code| Reason::new(code, "")),
            revision: None,
            source: String::new(),
            verified: true,
            requested: false,
            progress: None,
        };
        Report {
            gpu: GpuState::unknown(),
            list: ListReport::default(),
            entries: vec![entry],
            gate_passed: true,
            ready: false,
            settled: true,
            ready_by: None,
            left_alone: BTreeMap::new(),
            labels_version: 1,
            done: true,
            boot_id: "boot".to_owned(),
        }
    }

    #[test]
    fn an_entry_that_the_newest_list_says_badly_is_not_what_the_list_asks_for() {
        assert!(is_warm(&report(EntryState::Warm, None)));
        assert!(is_warm(&report(EntryState::Warm, Some("Denied"))), "its source is away, and it is warm");
        assert!(is_warm(&report(EntryState::Skipped, Some("Expired"))));
        assert!(!is_warm(&report(EntryState::Warm, Some(Reason::LAST_GOOD_VERSION))));
        assert!(!is_warm(&report(EntryState::OverLimit, Some("OverLimit"))));
    }
}
