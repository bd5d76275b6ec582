//! The status document: what `stoker status --json` prints. Fields are only ever added; scripts rely on the rest.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::proto;
use crate::node::{EntryState, GoodsKind, Reason, Report};
use crate::types::GpuPhase;

/// What a node has, does, and why not.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// The agent's version.
    pub version: String,
    /// The kernel's boot id of the boot that this is said in.
    pub boot_id: String,
    /// The node may be used; reached once a boot.
    pub ready: bool,
    /// List, gate, images and cache have each reported once.
    pub settled: bool,
    /// Nothing is left to do until something changes.
    pub done: bool,
    /// Where the GPUs stand.
    pub gpu: Gpu,
    /// Where the list stands.
    pub list: List,
    /// Why it was reached, as one CamelCase word; `None` until then.
    pub ready_by: Option<String>,
    /// The labels that this puts on the Node, or without a cluster: would put there.
    pub labels: BTreeMap<String, String>,
    /// Keys of labels that the API server hasn't confirmed yet; one that isn't in `labels` is to go.
    pub unconfirmed_labels: Vec<String>,
    /// The listed entries, in the order in which they are worked on.
    pub entries: Vec<Entry>,
}

/// Where the GPUs stand.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gpu {
    /// In one word.
    pub phase: GpuPhase,
    /// Why, as one CamelCase word.
    pub reason: String,
    /// Details for people; may be empty.
    pub message: String,
    /// GPUs that answered the last probe.
    pub devices: u32,
    /// GPUs that should answer.
    pub expected: u32,
    /// The driver's version, when it answers.
    pub driver_version: Option<String>,
    /// The gate is open.
    pub open: bool,
}

/// Where the list stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct List {
    /// SHA-256 of the document, 64 hex digits; `None` when none was ever read.
    pub content: Option<String>,
    /// Problems of the whole document.
    pub errors: Vec<String>,
    /// What was ignored in it.
    pub warnings: Vec<String>,
    /// It says to start nothing and drop nothing.
    pub paused: bool,
    /// It is past its validUntil.
    pub stale: bool,
    /// Nothing is removed until it's mended.
    pub removals_held: bool,
}

/// One listed entry.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// Its id.
    pub id: String,
    /// `image` or `weights`; `None` when it's too broken to tell.
    pub kind: Option<GoodsKind>,
    /// `ready` waits for it.
    pub required: bool,
    /// Where it stands; `None` is a state of a newer agent that this client doesn't know, written `Unknown`.
    #[serde(serialize_with = "state_word")]
    pub state: Option<EntryState>,
    /// Why it stands there.
    pub reason: Option<Reason>,
    /// Bytes of the job under way that have arrived.
    pub bytes_done: u64,
    /// Bytes of the job under way in all; 0 without a job, and while it isn't known.
    pub bytes_total: u64,
    /// The warm revision, 64 hex digits.
    pub revision: Option<String>,
    /// Where the bytes come from, without a query.
    pub source: String,
    /// Every byte was checked against a published digest.
    pub verified: bool,
    /// `nodes` leaves it out here, and it has been asked for all the same.
    pub requested: bool,
}

impl Entry {
    /// Its state in one word, as in the document.
    #[must_use]
    pub fn state_word(&self) -> &'static str {
        match self.state {
            Some(EntryState::Pending) => "Pending",
            Some(EntryState::Fetching) => "Fetching",
            Some(EntryState::Warm) => "Warm",
            Some(EntryState::Failed) => "Failed",
            Some(EntryState::Skipped) => "Skipped",
            Some(EntryState::Invalid) => "Invalid",
            Some(EntryState::OverLimit) => "OverLimit",
            None => "Unknown",
        }
    }

    /// Its kind in one word, for people.
    #[must_use]
    pub fn kind_word(&self) -> &'static str {
        match self.kind {
            Some(GoodsKind::Image) => "image",
            Some(GoodsKind::Weights) => "weights",
            None => "-",
        }
    }
}

fn state_word<S: Serializer>(state: &Option<EntryState>, serializer: S) -> Result<S::Ok, S::Error> {
    match state {
        Some(state) => state.serialize(serializer),
        None => serializer.serialize_str("Unknown"),
    }
}

impl Status {
    /// The document for a report of this very process, with the labels that it puts on the Node.
    #[must_use]
    pub fn of(report: &Report, labels: BTreeMap<String, String>) -> Self {
        let (gpu, list) = (&report.gpu, &report.list);
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id: report.boot_id.clone(),
            ready: report.ready,
            settled: report.settled,
            done: report.done,
            gpu: Gpu {
                phase: gpu.phase,
                reason: format!("{:?}", gpu.reason),
                message: gpu.message.clone(),
                devices: gpu.devices,
                expected: gpu.expected,
                driver_version: gpu.driver_version.clone(),
                open: gpu.open,
            },
            list: List {
                content: list.content.map(|digest| digest.hex()),
                errors: list.errors.clone(),
                warnings: list.warnings.clone(),
                paused: list.paused,
                stale: list.stale,
                removals_held: list.removals_held,
            },
            ready_by: report.ready_by.map(|why| format!("{why:?}")),
            labels,
            unconfirmed_labels: Vec::new(),
            entries: report
                .entries
                .iter()
                .map(|entry| Entry {
                    id: entry.id.to_string(),
                    kind: entry.kind,
                    required: entry.required,
                    state: Some(entry.state),
                    reason: entry.reason.clone(),
                    bytes_done: entry.progress.as_ref().map_or(0, |job| job.done()),
                    bytes_total: entry.progress.as_ref().map_or(0, |job| job.total()),
                    revision: entry.revision.map(|revision| revision.hex()),
                    source: entry.source.clone(),
                    verified: entry.verified,
                    requested: entry.requested,
                })
                .collect(),
        }
    }
}

/// The document for an agent's answer.
impl From<proto::StatusResponse> for Status {
    fn from(answer: proto::StatusResponse) -> Self {
        let gpu = answer.gpu.unwrap_or_default();
        let list = answer.list.unwrap_or_default();
        Self {
            version: answer.version,
            boot_id: answer.boot_id,
            ready: answer.ready,
            settled: answer.settled,
            done: answer.done,
            gpu: Gpu {
                phase: phase(gpu.phase()),
                reason: gpu.reason,
                message: gpu.message,
                devices: gpu.devices,
                expected: gpu.expected,
                driver_version: gpu.driver_version,
                open: gpu.open,
            },
            list: List {
                content: list.content,
                errors: list.errors,
                warnings: list.warnings,
                paused: list.paused,
                stale: list.stale,
                removals_held: list.removals_held,
            },
            ready_by: Some(answer.ready_by).filter(|why| !why.is_empty()),
            labels: answer.node_labels,
            unconfirmed_labels: answer.unconfirmed_labels,
            entries: answer.entries.into_iter().map(Entry::from).collect(),
        }
    }
}

fn phase(phase: proto::GpuPhase) -> GpuPhase {
    match phase {
        proto::GpuPhase::Unspecified => GpuPhase::Unknown,
        proto::GpuPhase::NotApplicable => GpuPhase::NotApplicable,
        proto::GpuPhase::Waiting => GpuPhase::Waiting,
        proto::GpuPhase::Ready => GpuPhase::Ready,
        proto::GpuPhase::Degraded => GpuPhase::Degraded,
        proto::GpuPhase::Failed => GpuPhase::Failed,
    }
}

/// The entry of an agent's answer.
impl From<proto::Entry> for Entry {
    fn from(entry: proto::Entry) -> Self {
        let kind = match entry.kind() {
            proto::Kind::Unspecified => None,
            proto::Kind::Image => Some(GoodsKind::Image),
            proto::Kind::Weights => Some(GoodsKind::Weights),
        };
        let state = match entry.state() {
            proto::EntryState::Unspecified => None,
            proto::EntryState::Pending => Some(EntryState::Pending),
            proto::EntryState::Fetching => Some(EntryState::Fetching),
            proto::EntryState::Warm => Some(EntryState::Warm),
            proto::EntryState::Failed => Some(EntryState::Failed),
            proto::EntryState::Skipped => Some(EntryState::Skipped),
            proto::EntryState::Invalid => Some(EntryState::Invalid),
            proto::EntryState::OverLimit => Some(EntryState::OverLimit),
        };
        Self {
            id: entry.id,
            kind,
            required: entry.required,
            state,
            reason: entry.reason.map(|reason| Reason::new(reason.code, reason.message)),
            bytes_done: entry.bytes_done,
            bytes_total: entry.bytes_total,
            revision: entry.revision,
            source: entry.source,
            verified: entry.verified,
            requested: entry.requested,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A document with something of everything.
    pub(in crate::cli) fn sample() -> Status {
        let entry = |id: &str, kind, state| Entry {
            id: id.to_owned(),
            kind,
            required: false,
            state: Some(state),
            reason: None,
            bytes_done: 0,
            bytes_total: 0,
            revision: None,
            source: format!("s3://bucket/{id}/"),
            verified: false,
            requested: false,
        };
        Status {
            version: "1.2.3".to_owned(),
            boot_id: "7c9e6679-7425-40de-944b-e07fc1f90ae7".to_owned(),
            ready: false,
            settled: true,
            done: false,
            gpu: Gpu {
                phase: GpuPhase::Ready,
                reason: "DriverReady".to_owned(),
                message: String::new(),
                devices: 8,
                expected: 8,
                driver_version: Some("570.86.15".to_owned()),
                open: true,
            },
            list: List {
                content: Some("ab".repeat(32)),
                errors: Vec::new(),
                warnings: vec!["entry vllm: the field \"pins\" is not known".to_owned()],
                paused: true,
                stale: false,
                removals_held: false,
            },
            ready_by: None,
            unconfirmed_labels: Vec::new(),
            labels: BTreeMap::from([
                ("image.stoker.dev/vllm".to_owned(), "cdcdcdcdcdcd".to_owned()),
                ("stoker.dev/gpu".to_owned(), "ready".to_owned()),
            ]),
            entries: vec![
                Entry {
                    required: true,
                    revision: Some("cd".repeat(32)),
                    verified: true,
                    source: "docker.io/vllm/vllm-openai:v0.9".to_owned(),
                    ..entry("vllm", Some(GoodsKind::Image), EntryState::Warm)
                },
                Entry {
                    bytes_done: 1_288_490_189,
                    bytes_total: 4 << 30,
                    ..entry("llama-70b", Some(GoodsKind::Weights), EntryState::Fetching)
                },
                Entry {
                    revision: Some("ef".repeat(32)),
                    ..entry("caches", Some(GoodsKind::Weights), EntryState::Warm)
                },
                Entry {
                    reason: Some(Reason::new("Invalid", "image: not a reference: \"a b\"")),
                    source: String::new(),
                    ..entry("typo", None, EntryState::Invalid)
                },
            ],
        }
    }

    #[test]
    fn the_json_is_the_documented_one() {
        let mut status = sample();
        status.entries.truncate(1);
        status.entries.extend(sample().entries.pop());
        insta::assert_json_snapshot!(status, @r#"
        {
          "version": "1.2.3",
          "boot_id": "7c9e6679-7425-40de-944b-e07fc1f90ae7",
          "ready": false,
          "settled": true,
          "done": false,
          "gpu": {
            "phase": "Ready",
            "reason": "DriverReady",
            "message": "",
            "devices": 8,
            "expected": 8,
            "driver_version": "570.86.15",
            "open": true
          },
          "list": {
            "content": "abababababababababababababababababababababababababababababababab",
            "errors": [],
            "warnings": [
              "entry vllm: the field \"pins\" is not known"
            ],
            "paused": true,
            "stale": false,
            "removals_held": false
          },
          "ready_by": null,
          "labels": {
            "image.stoker.dev/vllm": "cdcdcdcdcdcd",
            "stoker.dev/gpu": "ready"
          },
          "unconfirmed_labels": [],
          "entries": [
            {
              "id": "vllm",
              "kind": "image",
              "required": true,
              "state": "Warm",
              "reason": null,
              "bytes_done": 0,
              "bytes_total": 0,
              "revision": "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd",
              "source": "docker.io/vllm/vllm-openai:v0.9",
              "verified": true,
              "requested": false
            },
            {
              "id": "typo",
              "kind": null,
              "required": false,
              "state": "Invalid",
              "reason": {
                "code": "Invalid",
                "message": "image: not a reference: \"a b\""
              },
              "bytes_done": 0,
              "bytes_total": 0,
              "revision": null,
              "source": "",
              "verified": false,
              "requested": false
            }
          ]
        }
        "#);
    }

    #[test]
    fn a_newer_agents_words_are_borne_with() {
        let answer = proto::StatusResponse {
            gpu: None,
            entries: vec![proto::Entry { id: "x".to_owned(), state: 99, kind: 99, ..Default::default() }],
            ..Default::default()
        };
        let status = Status::from(answer);
        assert_eq!(status.gpu.phase, GpuPhase::Unknown);
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(json["entries"][0]["state"], "Unknown");
        assert_eq!(json["entries"][0]["kind"], serde_json::Value::Null);
    }
}
