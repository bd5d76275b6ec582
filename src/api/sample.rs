//! A report with something of everything, for the tests of this room.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::node::{EntryReport, EntryState, GoodsKind, ListReport, Reason, Report};
use crate::types::{Digest, GpuPhase, GpuReason, GpuState, Progress, Revision};

pub(super) fn report() -> Report {
    let llama = Progress::default();
    llama.set_total(4 << 30);
    llama.add(1 << 30);
    let entry = |id: &str, kind, state| EntryReport {
        id: id.parse().unwrap(),
        kind,
        required: false,
        state,
        reason: None,
        revision: None,
        source: format!("s3://bucket/{id}/"),
        verified: false,
        requested: false,
        progress: None,
    };
    Report {
        gpu: GpuState {
            phase: GpuPhase::Ready,
            reason: GpuReason::DriverReady,
            message: "8 of 8 GPUs".to_owned(),
            devices: 8,
            expected: 8,
            driver_version: Some("570.86.15".to_owned()),
            open: true,
        },
        list: ListReport {
            known: true,
            content: Some(Digest::of(b"list")),
            warnings: vec!["entry vllm: the field \"pins\" is not known".to_owned()],
            removals_held: true,
            ..ListReport::default()
        },
        entries: vec![
            EntryReport {
                required: true,
                revision: Some(Revision::of_image(Digest::of(b"image"))),
                verified: true,
                source: "docker.io/vllm/vllm-openai:v0.9".to_owned(),
                ..entry("vllm", Some(GoodsKind::Image), EntryState::Warm)
            },
            EntryReport {
                requested: false,
                progress: Some(Arc::new(llama)),
                ..entry("llama", Some(GoodsKind::Weights), EntryState::Fetching)
            },
            EntryReport {
                reason: Some(Reason::new("Invalid", "image: <script>alert(1)</script> & more")),
                ..entry("typo", None, EntryState::Invalid)
            },
        ],
        gate_passed: true,
        ready: false,
        settled: true,
        ready_by: None,
        left_alone: BTreeMap::new(),
        labels_version: 1,
        done: false,
        boot_id: "7c9e6679-7425-40de-944b-e07fc1f90ae7".to_owned(),
    }
}

pub(super) fn labels(report: &Report) -> BTreeMap<String, String> {
    let warm =
        report.entries.iter().filter_map(|entry| Some((entry.id.to_string(), entry.revision?.short())));
    warm.map(|(id, short)| (format!("image.stoker.dev/{id}"), short)).collect()
}
