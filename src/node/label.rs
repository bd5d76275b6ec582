use std::collections::{BTreeMap, BTreeSet};

use super::{EntryState, GoodsKind, Report};
use crate::types::{EntryId, GpuPhase};

/// The driver, all expected GPUs and the fabric are usable.
pub(super) const GPU_LABEL: &str = "stoker.dev/gpu";

/// The gate is open and every required entry was warm at some moment of this boot.
pub const READY_LABEL: &str = "stoker.dev/ready";

const IMAGE_PREFIX: &str = "image.stoker.dev/";
const WEIGHTS_PREFIX: &str = "weights.stoker.dev/";

/// What is known of our labels on the Node: bytes go only after it's sure that their label is gone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Our labels, as they were last seen on the Node or confirmed by the API server.
    pub labels: BTreeMap<String, String>,
    /// Keys and values that a write under way may put there, or one whose end isn't known. A key can be in both, with
    /// different values: which of them stands isn't known then.
    pub perhaps: BTreeSet<(String, String)>,
    /// The [`labels_version`](super::Report::labels_version) of the newest report that the node task has taken. It's
    /// set together with `perhaps`, before that report is written: what only an older report said, and is neither in
    /// `labels` nor in `perhaps`, will not be written any more.
    pub labels_version: u64,
}

impl Applied {
    /// Every key and value that may stand on the Node now.
    pub fn may_stand(&self) -> impl Iterator<Item = (&str, &str)> {
        let labels = self.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        labels.chain(self.perhaps.iter().map(|(key, value)| (key.as_str(), value.as_str())))
    }

    /// The values with which this key may stand on the Node now.
    pub fn values(&self, key: &str) -> impl Iterator<Item = &str> {
        self.may_stand().filter(move |(standing, _)| *standing == key).map(|(_, value)| value)
    }
}

/// The key of the label that says that an entry is warm.
#[must_use]
pub fn goods_label(kind: GoodsKind, id: &EntryId) -> String {
    match kind {
        GoodsKind::Image => format!("{IMAGE_PREFIX}{id}"),
        GoodsKind::Weights => format!("{WEIGHTS_PREFIX}{id}"),
    }
}

/// What a label's key stands for, if it's one of [`goods_label`]'s.
#[must_use]
pub fn goods_of_label(key: &str) -> Option<(GoodsKind, EntryId)> {
    let of = |kind, prefix| Some((kind, key.strip_prefix(prefix)?.parse().ok()?));
    of(GoodsKind::Image, IMAGE_PREFIX).or_else(|| of(GoodsKind::Weights, WEIGHTS_PREFIX))
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
    if report.gate_passed {
        labels.extend(report.left_alone.clone());
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
    fn a_label_that_is_left_alone_stays_behind_the_gate_and_never_overrules_a_listed_entry() {
        let mut report = report();
        report.entries = vec![entry("llama", GoodsKind::Weights, EntryState::Warm)];
        let key = goods_label(GoodsKind::Weights, &report.entries[0].id);
        let left = [(key.clone(), "0123".to_owned()), ("image.stoker.dev/old".to_owned(), "45".to_owned())];
        report.left_alone = left.into();
        let said = labels(&report).unwrap();
        assert_eq!((said.len(), said["image.stoker.dev/old"].as_str()), (2, "45"));
        assert_eq!(said[&key], report.entries[0].revision.unwrap().short());
        report.gate_passed = false;
        assert!(labels(&report).unwrap().is_empty());
    }

    #[test]
    fn a_key_says_what_it_stands_for() {
        for kind in [GoodsKind::Image, GoodsKind::Weights] {
            let id: EntryId = "a".parse().unwrap();
            assert_eq!(goods_of_label(&goods_label(kind, &id)), Some((kind, id)));
        }
        assert_eq!(goods_of_label("stoker.dev/gpu"), None);
        assert_eq!(goods_of_label("weights.stoker.dev/"), None);
    }

    #[test]
    fn a_write_under_way_may_stand_beside_what_stands() {
        let pair = |value: &str| ("weights.stoker.dev/a".to_owned(), value.to_owned());
        let applied =
            Applied { labels: [pair("1")].into(), perhaps: [pair("2")].into(), ..Applied::default() };
        assert_eq!(applied.values("weights.stoker.dev/a").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(applied.values("weights.stoker.dev/b").count(), 0);
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
