//! The flags that more than one command has, and the agent's. Each default stands with its reason, and each flag has
//! a `STOKER_*` twin in the environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::bandwidth::Rate;
use super::client::DEFAULT_SOCKET;
use crate::agent::{GateMode, NoGpu};
use crate::cluster::ConfigMapRef;
use crate::fetch::Limits;
use crate::image::{GcThreshold, ProviderPaths, PullSettings};
use crate::list::is_label_key;
use crate::rt::LogFormat;
use crate::source::{HubEndpoint, SourceConfig};

/// How log lines are written.
#[derive(Debug, Clone, Args)]
pub(super) struct LogFlags {
    // An agent's log tells what it did; a command that a person waits for tells it by its progress.
    /// Which log lines: info, debug, or tracing's directives such as stoker=debug; info for the agent, else warn
    #[arg(long, env = "STOKER_LOG", global = true, value_name = "FILTER")]
    log: Option<String>,

    /// How log lines look; auto is text on a terminal and JSON elsewhere
    #[arg(long, env = "STOKER_LOG_FORMAT", default_value = "auto", global = true, value_name = "FORMAT")]
    log_format: LogFormat,
}

impl LogFlags {
    /// Starts logging. `quiet`: somebody watches a progress display on the same terminal.
    ///
    /// # Errors
    /// When the filter can't be read.
    pub(super) fn init(&self, quiet: bool) -> anyhow::Result<()> {
        let default = if quiet { "warn" } else { "info" };
        let format = match self.log_format {
            // Its lines stand between the progress display's, which are for people wherever they go.
            LogFormat::Auto if quiet => LogFormat::Text,
            format => format,
        };
        crate::rt::init_logs(format, self.log.as_deref().unwrap_or(default))
    }
}

/// Where images go.
#[derive(Debug, Clone, Args)]
pub struct ContainerdFlags {
    // Where containerd listens on EKS, GKE, AKS and kubeadm nodes.
    /// containerd's socket
    #[arg(
        long,
        env = "STOKER_CONTAINERD_ADDRESS",
        default_value = "/run/containerd/containerd.sock",
        value_name = "SOCKET"
    )]
    pub containerd_address: PathBuf,
}

/// What pulling needs.
#[derive(Debug, Clone, Args)]
pub struct SourceFlags {
    // Each Secret named by an entry's `credentials` is mounted as a directory below it.
    /// Where Secrets are mounted: DIR/NAME/KEY for an entry with `credentials: NAME`
    #[arg(long, env = "STOKER_CREDENTIALS_DIR", value_name = "DIR")]
    pub credentials_dir: Option<PathBuf>,

    // Named as the Hub's own clients know it, so that a node that has a mirror says so once.
    /// The Hugging Face Hub for hf://, or a mirror of it
    #[arg(long, env = "HF_ENDPOINT", default_value = HubEndpoint::OFFICIAL, value_name = "URL")]
    pub hf_endpoint: HubEndpoint,

    // Room for eight ranges of 16 MiB: enough to fill 10 Gbit/s at 100 ms, and the agent stays under 256 MiB.
    /// Memory for bytes on their way, in MiB
    #[arg(long, env = "STOKER_MEMORY", default_value_t = 128, value_name = "MIB", value_parser = clap::value_parser!(u32).range(32..))]
    pub memory: u32,

    // One connection to an object store brings some 90 MB/s; this is 50 Gbit/s, and no server is given more than helps.
    /// The most connections to one server; how many there are follows from what they bring
    #[arg(long, env = "STOKER_MAX_CONNECTIONS", default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub max_connections: u16,

    // No default: what a node may take of its network is the operator's to say.
    /// The most bytes a second for all that is fetched, with k, M or G: 500M; 0 is no limit
    #[arg(long, env = "STOKER_MAX_BANDWIDTH", default_value = "0", value_name = "RATE")]
    pub max_bandwidth: Rate,

    // Beside the system's, so that public servers work as before. Proxies are found in HTTPS_PROXY, HTTP_PROXY and NO_PROXY.
    /// Certificate authorities in PEM to trust beside the system's; may be given again, or several with commas
    #[arg(long = "ca-file", env = "STOKER_CA_FILE", value_name = "FILE", value_delimiter = ',')]
    pub ca_files: Vec<PathBuf>,

    // Where containerd 2 looks unless it's told otherwise. Of images the running containerd says it itself.
    /// Where the hosts.toml of registries are for oci://, on the host; may be given again, or several with commas
    #[arg(
        long,
        env = "STOKER_REGISTRY_HOSTS",
        value_name = "DIR",
        value_delimiter = ',',
        default_values = ["/etc/containerd/certs.d", "/etc/docker/certs.d"]
    )]
    pub registry_hosts: Vec<PathBuf>,
}

impl SourceFlags {
    /// What the sources may do.
    #[must_use]
    pub fn config(&self, allow_http: bool) -> SourceConfig {
        SourceConfig {
            credentials_dir: self.credentials_dir.clone(),
            ca_files: self.ca_files.clone(),
            allow_http,
            hub: Some(self.hf_endpoint.clone()),
            registry_hosts: self.registry_hosts.clone(),
            ..SourceConfig::default()
        }
    }

    /// What the fetch engine may use.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let (memory, per_origin) = (u64::from(self.memory) << 20, usize::from(self.max_connections));
        Limits { memory, per_origin, ..Limits::default() }
    }
}

/// How images are pulled.
#[derive(Debug, Clone, Args)]
pub struct ImageFlags {
    // Several times faster than containerd's own pulling; what it can't do is left to containerd, with the reason.
    /// Who pulls images: stoker, with containerd for what it can't, or only containerd
    #[arg(long, env = "STOKER_IMAGE_PULL", default_value = "stoker", value_name = "WHO")]
    pub image_pull: ImagePull,

    // Named as the kubelet's own flag, which tells the path on each kind of node.
    /// The kubelet's configuration of credential providers, on the host
    #[arg(
        long,
        env = "STOKER_IMAGE_CREDENTIAL_PROVIDER_CONFIG",
        value_name = "FILE",
        requires = "image_credential_provider_bin_dir"
    )]
    pub image_credential_provider_config: Option<PathBuf>,

    /// Where the kubelet's credential providers are, on the host
    #[arg(
        long,
        env = "STOKER_IMAGE_CREDENTIAL_PROVIDER_BIN_DIR",
        value_name = "DIR",
        requires = "image_credential_provider_config"
    )]
    pub image_credential_provider_bin_dir: Option<PathBuf>,
}

/// Who pulls images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ImagePull {
    /// We do, wherever we can.
    Stoker,
    /// containerd does, through CRI.
    Containerd,
}

impl ImageFlags {
    /// What the puller is told.
    #[must_use]
    pub fn settings(
        &self,
        sources: SourceConfig,
        host_root: PathBuf,
        gc_threshold: GcThreshold,
    ) -> PullSettings {
        let config = self.image_credential_provider_config.clone();
        let providers = config.zip(self.image_credential_provider_bin_dir.clone());
        PullSettings {
            sources,
            providers: providers.map(|(config, bin_dir)| ProviderPaths { config, bin_dir }),
            host_root,
            gc_threshold,
            only_containerd: self.image_pull == ImagePull::Containerd,
        }
    }
}

/// Where the cache is.
#[derive(Debug, Clone, Args)]
pub struct CacheFlags {
    // A hostPath on NVMe, one place for every pod of the node.
    /// The cache of weights
    #[arg(long, env = "STOKER_CACHE_DIR", default_value = "/var/cache/stoker", value_name = "DIR")]
    pub cache_dir: PathBuf,
}

/// How large the cache may get, and how it's looked after.
#[derive(Debug, Clone, Args)]
pub struct CapacityFlags {
    // On a disk of its own the cache may have all of it but the reserve: 5 %, and 1 GiB at least.
    /// Bytes that the cache may hold, such as 500G or 2Ti; as many as the disk takes if not given
    #[arg(long, env = "STOKER_CACHE_MAX", value_name = "BYTES", value_parser = bytes)]
    pub cache_max: Option<u64>,

    // An entry that left the list by a slip is back within a minute, or wasn't a slip.
    /// Seconds that bytes stay after an entry last needed them, whatever needs their room
    #[arg(long, env = "STOKER_CACHE_GRACE", default_value = "60", value_name = "SECONDS", value_parser = seconds_or_none)]
    pub cache_grace: Duration,

    // About one hundredth of what an NVMe disk reads and a fiftieth of a core, and 2.7 TiB a day.
    /// MiB a second at which the cache is read again, to find what the disk has forgotten; 0 for never
    #[arg(long, env = "STOKER_SCRUB_RATE", default_value_t = 32, value_name = "MIB")]
    pub scrub_rate: u32,

    // Often enough to find a failing disk while the other copies are still there.
    /// Days from one such round to the next
    #[arg(long, env = "STOKER_SCRUB_DAYS", default_value = "7", value_name = "DAYS", value_parser = days)]
    pub scrub_days: Duration,
}

/// Where the agent listens.
#[derive(Debug, Clone, Args)]
pub struct SocketFlags {
    // /run is there on every node, and empty after a reboot.
    /// The agent's gRPC socket
    #[arg(long, env = "STOKER_SOCKET", default_value = DEFAULT_SOCKET, value_name = "PATH")]
    pub socket: PathBuf,
}

/// Where the list is: one of them.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub struct ListFlags {
    /// The prediction list, a file; read again whenever it changes
    #[arg(long, env = "STOKER_LIST", value_name = "FILE")]
    pub list: Option<PathBuf>,

    // One object watched by name: no right to read anything else is needed. The key is `list.yaml` as in its manifest.
    /// The prediction list, a ConfigMap; makes the agent a part of the cluster, and needs --node-name
    ///
    /// The ConfigMap is watched through the API server. What is warm is written to the labels of the Node that
    /// --node-name names, and its startup taint is taken off. KEY is list.yaml if not given.
    #[arg(long, env = "STOKER_LIST_CONFIGMAP", value_name = "NAMESPACE/NAME[/KEY]")]
    pub list_configmap: Option<ConfigMapRef>,
}

/// The cluster's; without `--list-configmap` there is none, and they mean nothing.
#[derive(Debug, Clone, Args)]
pub struct ClusterFlags {
    // In a pod the service account's token is right, so that none is needed there.
    /// How to reach the API server; the pod's service account if not given, or else kubectl's own kubeconfig
    #[arg(long, env = "STOKER_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    // Ours. Karpenter takes any startupTaint; cluster-autoscaler only those that begin as it wants.
    /// The startup taint to take off the Node once it is ready; may be given again, or several with commas
    #[arg(
        long = "taint",
        env = "STOKER_TAINT",
        value_name = "KEY",
        default_value = DEFAULT_TAINT,
        value_delimiter = ',',
        value_parser = taint_key
    )]
    pub taints: Vec<String>,

    // A driver DaemonSet compiles and loads in some minutes; after 20 something is in its way.
    /// Seconds with a closed gate after which an Event on the Node says so, with the likely cause
    #[arg(long, env = "STOKER_GATE_WARN_AFTER", default_value = "1200", value_name = "SECONDS", value_parser = seconds)]
    pub gate_warn_after: Duration,

    // 5,000 nodes that see the same new list speak at 250 a second, and not all in one. Labels don't wait for it.
    /// Seconds over which a fleet spreads what can wait: states, conditions, and Events about the list
    #[arg(long, env = "STOKER_FLEET_SPREAD", default_value = "20", value_name = "SECONDS", value_parser = seconds_or_none)]
    pub fleet_spread: Duration,

    // 5,000 nodes that see the same new list don't ask one registry in one moment; a pod waits for much more than this.
    /// Seconds over which a fleet spreads the first requests of new work
    #[arg(long, env = "STOKER_START_SPREAD", default_value = "2", value_name = "SECONDS", value_parser = seconds_or_none)]
    pub start_spread: Duration,
}

/// What a new node is registered with, by default.
const DEFAULT_TAINT: &str = "stoker.dev/not-ready";

/// The gate's.
#[derive(Debug, Clone, Args)]
pub struct GateFlags {
    // A node whose driver never comes should not spend its network on images that nobody can run.
    /// What a closed gate holds back: pulling, or only the labels
    #[arg(long, env = "STOKER_GATE", default_value = "pull", value_name = "WHAT")]
    pub gate: GateMode,

    // The list is for GPU nodes; a node without a GPU that runs the agent is a mistake until somebody says otherwise.
    /// What a node without an NVIDIA device does
    #[arg(long, env = "STOKER_NO_GPU", default_value = "wait", value_name = "WHAT")]
    pub no_gpu: NoGpu,

    // Each probe initialises NVML, which can take seconds a GPU when persistence mode is off.
    /// Seconds between two probes once the gate is open
    #[arg(long, env = "STOKER_GPU_INTERVAL", default_value = "30", value_name = "SECONDS", value_parser = seconds)]
    pub gpu_interval: Duration,

    /// The driver's libnvidia-ml.so.1; searched for if not given
    #[arg(long, env = "STOKER_NVML_PATH", value_name = "FILE")]
    pub nvml_path: Option<PathBuf>,

    // Opening the driver's devices takes a privileged container; the agent's own need not be one.
    /// Read the probe's answers from the file that `stoker gpu --watch --out FILE` writes, and start no probe
    #[arg(long, env = "STOKER_GPU_PROBE_FILE", value_name = "FILE")]
    pub gpu_probe_file: Option<PathBuf>,

    /// How many GPUs must answer; the number on the PCI bus if not given
    #[arg(long, env = "STOKER_GPU_EXPECTED", value_name = "N")]
    pub gpu_expected: Option<u32>,

    // Where a container sees the host's file system, to find the driver's library below it.
    /// Where the host's root file system is
    #[arg(long, env = "STOKER_HOST_ROOT", default_value = "/", value_name = "DIR")]
    pub host_root: PathBuf,

    /// Where sysfs is
    #[arg(long, env = "STOKER_SYSFS_ROOT", default_value = "/sys", value_name = "DIR")]
    pub sysfs_root: PathBuf,
}

/// The agent's own.
#[derive(Debug, Clone, Args)]
pub struct NodeFlags {
    // It needs no NVMe, but must outlive a reboot.
    /// Where the last good list and the boot's state are kept
    #[arg(long, env = "STOKER_STATE_DIR", default_value = "/var/lib/stoker", value_name = "DIR")]
    pub state_dir: PathBuf,

    /// This node's name: the Node's in a cluster (a DaemonSet gives spec.nodeName), else the host's if not given
    #[arg(long, env = "STOKER_NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,

    /// This node's labels, for `nodes.matchLabels` without a cluster
    #[arg(long, env = "STOKER_NODE_LABELS", value_delimiter = ',', value_name = "KEY=VALUE", value_parser = key_value)]
    pub node_labels: Vec<(String, String)>,

    /// Where the kernel tells the boot's id
    #[arg(
        long,
        env = "STOKER_BOOT_ID_PATH",
        default_value = "/proc/sys/kernel/random/boot_id",
        value_name = "FILE"
    )]
    pub boot_id_path: PathBuf,

    // The kubelet's default of imageGCHighThresholdPercent, beyond which it begins to remove images.
    /// Percent of the image file system from which the kubelet removes images (imageGCHighThresholdPercent)
    #[arg(long, env = "STOKER_IMAGE_GC_HIGH_THRESHOLD", default_value_t = GcThreshold::DEFAULT.0, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub image_gc_high_threshold: u8,

    // No default: a node that opens without its required images is what the taint is there to prevent.
    /// Seconds after the gate's opening from which the node is ready although required entries are not warm
    #[arg(long, env = "STOKER_MAX_WAIT", value_name = "SECONDS", value_parser = seconds)]
    pub max_wait: Option<Duration>,

    // A file, since a mounted ConfigMap is one: a fleet's limit is changed in one place, and no pod restarts.
    /// A file with the limit that stands before --max-bandwidth; read again on SIGHUP, and every 10 s
    #[arg(long, env = "STOKER_MAX_BANDWIDTH_FILE", value_name = "FILE")]
    pub max_bandwidth_file: Option<PathBuf>,

    // A cache that fell through to the root disk fills it and takes the node down.
    /// Let the cache be on the root file system
    #[arg(long, env = "STOKER_ALLOW_ROOT_FS")]
    pub allow_root_fs: bool,

    /// Refuse weights whose source publishes no digest
    #[arg(long, env = "STOKER_VERIFIED_ONLY")]
    pub verified_only: bool,

    // Only on the node itself; in a cluster the DaemonSet says 0.0.0.0, for Prometheus.
    /// Where /metrics, /livez and /readyz are served; `off` for nowhere
    #[arg(long, env = "STOKER_HTTP", default_value = "127.0.0.1:9808", value_name = "ADDRESS", value_parser = http_address)]
    pub http: HttpAddress,
}

/// Where HTTP is served, if anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpAddress {
    /// Nowhere.
    Off,
    /// Here; port 0 is any free one.
    At(SocketAddr),
}

fn http_address(text: &str) -> Result<HttpAddress, String> {
    if text == "off" {
        return Ok(HttpAddress::Off);
    }
    text.parse()
        .map(HttpAddress::At)
        .map_err(|_| "write ADDRESS:PORT, such as 127.0.0.1:9808, or off".to_owned())
}

fn key_value(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| "write KEY=VALUE".to_owned())
}

/// A key that a taint can have and that is no other component's: those of Kubernetes tell that a node is broken, and
/// taking one off would send pods there.
fn taint_key(text: &str) -> Result<String, String> {
    const OTHERS: [&str; 2] = ["node.kubernetes.io/", "node.cloudprovider.kubernetes.io/"];
    if !is_label_key(text) {
        return Err(format!("write the key of a taint, such as {DEFAULT_TAINT}, without value and effect"));
    }
    match OTHERS.into_iter().find(|prefix| text.starts_with(prefix)) {
        Some(prefix) => {
            Err(format!("taints under {prefix} belong to Kubernetes itself; use a key of your own"))
        }
        None => Ok(text.to_owned()),
    }
}

/// The same, or none.
fn seconds_or_none(text: &str) -> Result<Duration, String> {
    if text.parse() == Ok(0.0) { Ok(Duration::ZERO) } else { seconds(text) }
}

/// A number of bytes, with the suffixes that Kubernetes has for quantities.
fn bytes(text: &str) -> Result<u64, String> {
    const SUFFIXES: [(&str, u64); 8] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("k", 1000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
    ];
    let suffixed = SUFFIXES.iter().find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)));
    let (number, unit) = suffixed.unwrap_or((text, 1));
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| {
        "write a whole number of bytes, if you like with k, M, G, T, Ki, Mi, Gi or Ti".to_owned()
    })
}

/// Days, with fractions.
fn days(text: &str) -> Result<Duration, String> {
    text.parse::<f64>()
        .ok()
        .filter(|days| *days > 0.0 && *days <= 3650.0)
        .map(|days| Duration::from_secs_f64(days * 86_400.0))
        .ok_or_else(|| "write a number of days, more than 0".to_owned())
}

/// Seconds, with fractions; more than none and at most a day.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    text.parse::<f64>()
        .ok()
        .filter(|seconds| *seconds > 0.0 && *seconds <= 86_400.0)
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "write a number of seconds, more than 0 and at most 86400".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_as_kubernetes_writes_them() {
        assert_eq!(
            ["1", "2k", "3Ki", "500G", "2Ti"].map(|text| bytes(text).unwrap()),
            [1, 2000, 3072, 500_000_000_000, 2 << 40]
        );
        for text in ["", "0", "-1", "1.5G", "G", "1KB", "99999999999T"] {
            assert!(bytes(text).is_err_and(|error| error.contains("Gi")), "{text}");
        }
        assert_eq!(days("0.5").unwrap(), Duration::from_secs(43_200));
        assert!(days("0").is_err() && days("a week").is_err());
    }

    #[test]
    fn a_taint_is_a_key_of_nobody_elses() {
        for key in [DEFAULT_TAINT, "startup-taint.cluster-autoscaler.kubernetes.io/stoker", "warming"] {
            assert_eq!(taint_key(key).as_deref(), Ok(key));
        }
        for key in ["", "a=b:NoSchedule", "a/b/c", "stoker.dev/", "a b"] {
            assert!(taint_key(key).is_err_and(|error| error.contains(DEFAULT_TAINT)), "{key}");
        }
        assert!(taint_key("node.kubernetes.io/not-ready").is_err_and(|error| error.contains("your own")));
    }
}
