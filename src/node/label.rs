use std::collections::BTreeMap;

use super::{EntryState, GoodsKind, Report};
use crate::types::{EntryId, GpuPhase};

/// The driver, all expected GPUs and the fabric are usable.
pub(super) const GPU_LABEL: &str = "stoker.dev/gpu";

/// The gate is open and every required entry was warm at some moment of this boot.
pub const READY_LABEL: &str = "stoker.dev/ready";

/// What the API server has confirmed of our labels: bytes go only after their label is gone here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Our labels, as they now stand on the Node.
    pub labels: BTreeMap<String, String>,
}

/// The key of the label that says that an entry is warm.
#[must_use]
pub fn goods_label(kind: GoodsKind, id: &EntryId) -> String {
    match kind {
        GoodsKind::Image => format!("image.stoker.dev/{id}"),
        GoodsKind::Weights => format!("weights.stoker.dev/{id}"),
    }
}

/// Every label of ours that the Node should carry now; a key of ours that isn't here must not be there.
///
/// Before the report is settled it isn't known what is warm, so nothing must be written at all: `None`.
#[must_use]
pub fn labels(report: &Report) -> Option<BTreeMap<String, String>> {
    if !report.settled {
        return None;
    }
    let mut labels = BTreeMap::new();
    if report.gpu.open && report.gpu.phase != GpuPhase::NotApplicable {
        labels.insert(GPU_LABEL.to_owned(), "ready".to_owned());
    }
    if report.ready {
        labels.insert(READY_LABEL.to_owned(), "true".to_owned());
    }
    let carries = |state| !matches!(state, EntryState::Skipped | EntryState::Invalid | EntryState::OverLimit);
    for entry in report.entries.iter().filter(|entry| report.gate_passed && carries(entry.state)) {
        if let (Some(kind), Some(revision)) = (entry.kind, entry.revision) {
            labels.insert(goods_label(kind, &entry.id), revision.short());
        }
    }
    Some(labels)
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{entry, report};
    use super::*;

    #[test]
    fn only_what_is_warm_carries_a_label() {
        let mut report = report();
        report.gpu.open = true;
        report.gpu.phase = GpuPhase::Ready;
        report.ready = true;
        report.entries = vec![
            entry("vllm", GoodsKind::Image, EntryState::Warm),
            entry("llama", GoodsKind::Weights, EntryState::Fetching),
        ];
        report.entries[1].revision = None;
        let revision = report.entries[0].revision.unwrap().short();
        let labels: Vec<_> = labels(&report).unwrap().into_iter().collect();
        let expected = [
            ("image.stoker.dev/vllm", &*revision),
            ("stoker.dev/gpu", "ready"),
            ("stoker.dev/ready", "true"),
        ];
        assert_eq!(labels, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }

    #[test]
    fn the_old_revision_keeps_its_label_while_the_new_one_comes() {
        let mut report = report();
        report.entries = vec![entry("llama", GoodsKind::Weights, EntryState::Fetching)];
        assert!(labels(&report).unwrap().contains_key("weights.stoker.dev/llama"));
    }

    #[test]
    fn what_is_warm_waits_for_the_driver_and_keeps_its_label_when_the_gate_closes_again() {
        let mut report = report();
        report.entries = vec![entry("llama", GoodsKind::Weights, EntryState::Warm)];
        report.gate_passed = false;
        assert!(labels(&report).unwrap().is_empty());
        report.gate_passed = true;
        report.gpu.open = false;
        assert_eq!(labels(&report).unwrap().len(), 1);
    }

    #[test]
    fn nothing_is_said_before_all_is_known() {
        let mut report = report();
        report.settled = false;
        assert_eq!(labels(&report), None);
    }

    #[test]
    fn a_node_without_gpus_never_says_that_its_gpus_are_ready() {
        let mut report = report();
        report.gpu.open = true;
        report.gpu.phase = GpuPhase::NotApplicable;
        assert!(!labels(&report).unwrap().contains_key(GPU_LABEL));
    }
}
