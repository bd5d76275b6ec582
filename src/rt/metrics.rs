//! The counters that rooms raise while they work. What can be read off the latest report (gauges of state) isn't
//! here: `api/` computes that at each scrape, so the two can't drift apart.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::types::ErrorKind;

/// The names of all metrics, as they are scraped. Counters end in `_total` there; the library adds that.
pub mod name {
    /// Entries by state and kind. Gauge.
    pub const ENTRIES: &str = "stoker_entries";
    /// Bytes fetched for entries, by kind. Counter.
    pub const ENTRY_BYTES: &str = "stoker_entry_bytes";
    /// Things tried again, by the reason. Counter.
    pub const FETCH_RETRIES: &str = "stoker_fetch_retries";
    /// Ranges asked for by a second connection because the first was slow. Counter.
    pub const FETCH_SECOND_REQUESTS: &str = "stoker_fetch_second_requests";
    /// Bytes that such a pair of connections brought twice. Counter.
    pub const FETCH_BYTES_TWICE: &str = "stoker_fetch_bytes_twice";
    /// 1 while the GPU gate is open. Gauge.
    pub const GPU_GATE_OPEN: &str = "stoker_gpu_gate_open";
    /// GPUs that answered the last probe. Gauge.
    pub const GPU_DEVICES: &str = "stoker_gpu_devices";
    /// GPUs that should answer. Gauge.
    pub const GPU_EXPECTED: &str = "stoker_gpu_expected_devices";
    /// Problems of the list as a whole now. Gauge.
    pub const LIST_ERRORS: &str = "stoker_list_errors";
    /// Entries that the newest list says badly, whether or not they were good once. Gauge.
    pub const LIST_BROKEN_ENTRIES: &str = "stoker_list_broken_entries";
    /// 1 while the list is past its validUntil. Gauge.
    pub const LIST_STALE: &str = "stoker_list_stale";
    /// Lists read that were broken. Counter.
    pub const LIST_INVALID: &str = "stoker_list_invalid";
    /// Image pulls that ended, by result. Counter.
    pub const IMAGE_PULLS: &str = "stoker_image_pulls";
    /// Where the time of our own image pulls went, by phase, in seconds. Phases overlap. Counter.
    pub const IMAGE_PHASE_SECONDS: &str = "stoker_image_phase_seconds";
    /// Bytes that came out of each phase of our own image pulls. Counter.
    pub const IMAGE_PHASE_BYTES: &str = "stoker_image_phase_bytes";
    /// Layers of pulled images, by how they got there: fetched or reused. Counter.
    pub const IMAGE_LAYERS: &str = "stoker_image_layers";
    /// Images left to containerd's own pulling, by the reason. Counter.
    pub const IMAGES_LEFT: &str = "stoker_images_left_to_containerd";
    /// Fetches of weights that ended, by result. Counter.
    pub const WEIGHTS_FETCHES: &str = "stoker_weights_fetches";
    /// 1, with the version as a label. Gauge.
    pub const BUILD_INFO: &str = "stoker_build_info";
    /// 1 once `stoker.dev/ready` was reached, while the gate is open. Gauge.
    pub const READY: &str = "stoker_ready";
    /// Writes to the own Node that ended, by result. Counter.
    pub const NODE_WRITES: &str = "stoker_node_writes";
    /// When the API server last confirmed a write to the own Node, in seconds since 1970; 0 before the first of this
    /// run. A node in a steady state is not written. Gauge.
    pub const NODE_CONFIRMED: &str = "stoker_node_last_write_timestamp_seconds";
    /// Warm weights whose digests nobody published. Gauge.
    pub const RECORDED: &str = "stoker_entries_recorded";
}

/// `result` of a job that got through.
const OK: &str = "ok";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabel {
    phase: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HowLabel {
    how: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

/// The two goods, as `kind` labels them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Container images.
    Image,
    /// Files in the cache.
    Weights,
}

impl MetricKind {
    fn label(self) -> KindLabel {
        let kind = match self {
            Self::Image => "image",
            Self::Weights => "weights",
        };
        KindLabel { kind }
    }
}

/// The counters of one agent. Raising one is an atomic addition; share it behind an `Arc`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    entry_bytes: Family<KindLabel, Counter>,
    fetch_retries: Family<ReasonLabel, Counter>,
    fetch_second_requests: Counter,
    fetch_bytes_twice: Counter,
    image_pulls: Family<ResultLabel, Counter>,
    weights_fetches: Family<ResultLabel, Counter>,
    image_phase_seconds: Family<PhaseLabel, Counter<f64, AtomicU64>>,
    image_phase_bytes: Family<PhaseLabel, Counter>,
    image_layers: Family<HowLabel, Counter>,
    images_left: Family<ReasonLabel, Counter>,
    list_invalid: Counter,
    node_writes: Family<ResultLabel, Counter>,
    node_confirmed: Gauge,
}

impl Metrics {
    /// Counters at zero. Every series is there from the start, so that a first failure is an increase; those of images
    /// with [`Self::begin_images`].
    #[must_use]
    pub fn new() -> Self {
        let metrics = Self {
            registry: Registry::default(),
            entry_bytes: Family::default(),
            fetch_retries: Family::default(),
            fetch_second_requests: Counter::default(),
            fetch_bytes_twice: Counter::default(),
            image_pulls: Family::default(),
            weights_fetches: Family::default(),
            image_phase_seconds: Family::default(),
            image_phase_bytes: Family::default(),
            image_layers: Family::default(),
            images_left: Family::default(),
            list_invalid: Counter::default(),
            node_writes: Family::default(),
            node_confirmed: Gauge::default(),
        };
        for kind in [MetricKind::Image, MetricKind::Weights] {
            drop(metrics.entry_bytes.get_or_create(&kind.label()));
        }
        for kind in KINDS {
            drop(metrics.fetch_retries.get_or_create(&ReasonLabel { reason: kind.label() }));
        }
        for family in [&metrics.image_pulls, &metrics.weights_fetches, &metrics.node_writes] {
            drop(family.get_or_create(&ResultLabel { result: OK }));
            for kind in KINDS {
                drop(family.get_or_create(&ResultLabel { result: kind.label() }));
            }
        }
        metrics.registered()
    }

    fn registered(mut self) -> Self {
        let registry = &mut self.registry;
        registry.register(name::ENTRY_BYTES, "Bytes fetched for entries", self.entry_bytes.clone());
        registry.register(name::FETCH_RETRIES, "Requests and jobs tried again", self.fetch_retries.clone());
        registry.register(
            name::FETCH_SECOND_REQUESTS,
            "Ranges asked for by a second connection because the first was slow",
            self.fetch_second_requests.clone(),
        );
        registry.register(
            name::FETCH_BYTES_TWICE,
            "Bytes that such a pair of connections brought twice",
            self.fetch_bytes_twice.clone(),
        );
        registry.register(name::IMAGE_PULLS, "Image pulls that ended", self.image_pulls.clone());
        registry.register(name::WEIGHTS_FETCHES, "Weights fetches that ended", self.weights_fetches.clone());
        registry.register(
            name::IMAGE_PHASE_SECONDS,
            "Where the time of image pulls went; phases overlap",
            self.image_phase_seconds.clone(),
        );
        registry.register(
            name::IMAGE_PHASE_BYTES,
            "Bytes that came out of each phase of image pulls",
            self.image_phase_bytes.clone(),
        );
        registry.register(name::IMAGE_LAYERS, "Layers of pulled images", self.image_layers.clone());
        registry.register(
            name::IMAGES_LEFT,
            "Images left to containerd's own pulling",
            self.images_left.clone(),
        );
        registry.register(name::LIST_INVALID, "Lists read that were broken", self.list_invalid.clone());
        registry.register(name::NODE_WRITES, "Writes to the own Node that ended", self.node_writes.clone());
        registry.register(
            name::NODE_CONFIRMED,
            "When a write to the own Node was last confirmed",
            self.node_confirmed.clone(),
        );
        self
    }

    /// Bytes arrived for an entry.
    pub fn bytes(&self, kind: MetricKind, bytes: u64) {
        self.entry_bytes.get_or_create(&kind.label()).inc_by(bytes);
    }

    /// Something is about to be tried again because of `kind`.
    pub fn retried(&self, kind: ErrorKind) {
        self.fetch_retries.get_or_create(&ReasonLabel { reason: kind.label() }).inc();
    }

    /// A range is asked for by a second connection.
    pub fn asked_twice(&self) {
        self.fetch_second_requests.inc();
    }

    /// So many bytes came by both connections.
    pub fn came_twice(&self, bytes: u64) {
        self.fetch_bytes_twice.inc_by(bytes);
    }

    /// An image pull ended.
    pub fn image_pulled(&self, result: Result<(), ErrorKind>) {
        self.image_pulls.get_or_create(&result_label(result)).inc();
    }

    /// A phase of an image pull took this long, over all its layers, and this many bytes came out of it.
    pub fn image_phase(&self, phase: &'static str, time: Duration, bytes: u64) {
        self.image_phase_seconds.get_or_create(&PhaseLabel { phase }).inc_by(time.as_secs_f64());
        self.image_phase_bytes.get_or_create(&PhaseLabel { phase }).inc_by(bytes);
    }

    /// Layers of an image pull: how many were fetched, how many were there.
    pub fn image_layers(&self, fetched: u64, reused: u64) {
        self.image_layers.get_or_create(&HowLabel { how: "fetched" }).inc_by(fetched);
        self.image_layers.get_or_create(&HowLabel { how: "reused" }).inc_by(reused);
    }

    /// Puts the series of image pulls at zero, by the words that [`Self::image_phase`] and [`Self::image_left`] will use.
    pub fn begin_images(
        &self,
        phases: impl IntoIterator<Item = &'static str>,
        reasons: impl IntoIterator<Item = &'static str>,
    ) {
        for phase in phases {
            self.image_phase(phase, Duration::ZERO, 0);
        }
        self.image_layers(0, 0);
        for reason in reasons {
            drop(self.images_left.get_or_create(&ReasonLabel { reason }));
        }
    }

    /// An image was left to containerd.
    pub fn image_left(&self, reason: &'static str) {
        self.images_left.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// A fetch of weights ended.
    pub fn weights_fetched(&self, result: Result<(), ErrorKind>) {
        self.weights_fetches.get_or_create(&result_label(result)).inc();
    }

    /// A list was read that is broken as a whole or in an entry.
    pub fn list_invalid(&self) {
        self.list_invalid.inc();
    }

    /// A write to the own Node ended.
    pub fn node_written(&self, result: Result<(), ErrorKind>, now: jiff::Timestamp) {
        if result.is_ok() {
            self.node_confirmed.set(now.as_second());
        }
        self.node_writes.get_or_create(&result_label(result)).inc();
    }

    /// Appends all counters in the OpenMetrics text format, without the `# EOF`.
    ///
    /// # Errors
    /// When `out` fails.
    pub fn encode(&self, out: &mut impl fmt::Write) -> fmt::Result {
        text::encode_registry(out, &self.registry)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn result_label(result: Result<(), ErrorKind>) -> ResultLabel {
    ResultLabel { result: result.map_or_else(ErrorKind::label, |()| OK) }
}

const KINDS: [ErrorKind; 11] = [
    ErrorKind::Transient,
    ErrorKind::Throttled { retry_after: None },
    ErrorKind::Changed,
    ErrorKind::Corrupt,
    ErrorKind::NotFound,
    ErrorKind::Denied,
    ErrorKind::Invalid,
    ErrorKind::Unsupported,
    ErrorKind::NoSpace,
    ErrorKind::Cancelled,
    ErrorKind::Local,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn text(metrics: &Metrics) -> String {
        let mut text = String::new();
        metrics.encode(&mut text).unwrap();
        text
    }

    #[test]
    fn every_series_starts_at_zero() {
        let text = text(&Metrics::new());
        for line in [
            "stoker_entry_bytes_total{kind=\"image\"} 0",
            "stoker_fetch_retries_total{reason=\"throttled\"} 0",
            "stoker_image_pulls_total{result=\"ok\"} 0",
            "stoker_weights_fetches_total{result=\"corrupt\"} 0",
            "stoker_list_invalid_total 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn what_is_raised_is_counted_under_its_label() {
        let metrics = Metrics::new();
        metrics.bytes(MetricKind::Weights, 5);
        metrics.bytes(MetricKind::Weights, 7);
        metrics.retried(ErrorKind::Throttled { retry_after: Some(std::time::Duration::from_secs(1)) });
        metrics.image_pulled(Ok(()));
        metrics.weights_fetched(Err(ErrorKind::NoSpace));
        metrics.list_invalid();
        let then = jiff::Timestamp::from_second(1_700_000_000).unwrap();
        metrics.node_written(Ok(()), then);
        metrics.node_written(Err(ErrorKind::Denied), then + jiff::SignedDuration::from_secs(1));
        let text = text(&metrics);
        for line in [
            "stoker_entry_bytes_total{kind=\"weights\"} 12",
            "stoker_entry_bytes_total{kind=\"image\"} 0",
            "stoker_fetch_retries_total{reason=\"throttled\"} 1",
            "stoker_image_pulls_total{result=\"ok\"} 1",
            "stoker_weights_fetches_total{result=\"no_space\"} 1",
            "stoker_weights_fetches_total{result=\"ok\"} 0",
            "stoker_list_invalid_total 1",
            "stoker_node_writes_total{result=\"ok\"} 1",
            "stoker_node_writes_total{result=\"denied\"} 1",
            "stoker_node_last_write_timestamp_seconds 1700000000",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }
}
