//! What has to be written so that the Node carries what it should. Pure.

use std::collections::BTreeMap;

use super::label::GPU_LABEL;
use super::{Desired, OnNode, READY_LABEL, Urgency};

/// What differs between what the Node carries and what it should.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Difference {
    /// Labels or annotations.
    pub keys: bool,
    /// A startup taint stands that should go.
    pub taints: bool,
    /// Conditions.
    pub conditions: bool,
}

impl Difference {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

/// What differs; `taints` are the keys of the startup taints.
#[must_use]
pub fn difference(desired: &Desired, on: &OnNode, taints: &[String]) -> Difference {
    let stands = |wanted: &super::Condition| {
        on.conditions.iter().any(|standing| {
            standing.kind == wanted.kind
                && standing.status == wanted.status_word()
                && standing.reason == wanted.reason
                && standing.message == wanted.message
        })
    };
    Difference {
        keys: desired.labels != on.labels || desired.annotations != on.annotations,
        taints: desired.ready && taints.iter().any(|taint| on.taints.contains(taint)),
        conditions: !desired.conditions.iter().all(stands),
    }
}

/// Keys of ours that stand on the Node and should not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Strays {
    /// Of labels.
    pub labels: Vec<String>,
    /// Of annotations.
    pub annotations: Vec<String>,
}

impl Strays {
    /// What is left over after what is desired was written: somebody else owns it too.
    #[must_use]
    pub fn of(desired: &Desired, on: &OnNode) -> Self {
        let beyond = |on: &BTreeMap<String, String>, desired: &BTreeMap<String, String>| {
            on.keys().filter(|key| !desired.contains_key(*key)).cloned().collect()
        };
        Self {
            labels: beyond(&on.labels, &desired.labels),
            annotations: beyond(&on.annotations, &desired.annotations),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.annotations.is_empty()
    }
}

/// How soon a change of what is desired must be on the Node. `before` is what was last written in this run: what
/// somebody else did to the Node is no reason to hurry, or two writers could drive each other on.
#[must_use]
pub fn urgency(before: Option<&Desired>, desired: &Desired, on: &OnNode, taints: &[String]) -> Urgency {
    let labels = before.map_or(&on.labels, |before| &before.labels);
    if labels.iter().any(|(key, value)| desired.labels.get(key) != Some(value)) {
        return Urgency::Closes;
    }
    let comes = |key: &str| desired.labels.contains_key(key) && !labels.contains_key(key);
    let lets_pods_in = before.is_none_or(|before| !before.ready) && difference(desired, on, taints).taints;
    if comes(GPU_LABEL) || comes(READY_LABEL) || lets_pods_in {
        Urgency::Opens
    } else if desired.labels == on.labels && !difference(desired, on, taints).taints {
        Urgency::Told
    } else {
        Urgency::Routine
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{entry, report};
    use super::super::{EntryState, GoodsKind, Report, StandingCondition};
    use super::*;
    use crate::types::GpuPhase;

    const TAINT: &str = "stoker.dev/not-ready";

    fn warm(ids: &[&str]) -> Report {
        let mut report = report();
        report.entries = ids.iter().map(|id| entry(id, GoodsKind::Image, EntryState::Warm)).collect();
        report
    }

    fn desired(report: &Report) -> Desired {
        Desired::of(report).unwrap()
    }

    /// The Node once all of `desired` was written.
    fn written(desired: &Desired) -> OnNode {
        let conditions = desired.conditions.iter().map(|condition| StandingCondition {
            kind: condition.kind.to_owned(),
            status: condition.status_word().to_owned(),
            reason: condition.reason.clone(),
            message: condition.message.clone(),
            since: None,
        });
        OnNode {
            uid: "1".to_owned(),
            labels: desired.labels.clone(),
            annotations: desired.annotations.clone(),
            conditions: conditions.collect(),
            taints: ["other".to_owned()].into(),
        }
    }

    #[test]
    fn what_was_written_differs_in_nothing() {
        let desired = desired(&warm(&["a"]));
        assert!(difference(&desired, &written(&desired), &[TAINT.to_owned()]).is_nothing());
    }

    #[test]
    fn each_kind_of_difference_is_told() {
        let taints = [TAINT.to_owned()];
        let mut report = warm(&["a"]);
        report.ready = true;
        let desired = desired(&report);
        let mut on = written(&desired);
        on.conditions[1].status = "Unknown".to_owned();
        assert_eq!(
            difference(&desired, &on, &taints),
            Difference { conditions: true, ..Difference::default() }
        );
        on = written(&desired);
        on.taints.insert(TAINT.to_owned());
        assert_eq!(difference(&desired, &on, &taints), Difference { taints: true, ..Difference::default() });
        on = written(&desired);
        on.labels.insert("image.stoker.dev/stray".to_owned(), "x".to_owned());
        assert_eq!(difference(&desired, &on, &taints), Difference { keys: true, ..Difference::default() });
        assert_eq!(Strays::of(&desired, &on).labels, ["image.stoker.dev/stray"]);
    }

    #[test]
    fn a_taint_stays_until_the_node_is_ready() {
        let desired = desired(&warm(&["a"]));
        let mut on = written(&desired);
        on.taints.insert(TAINT.to_owned());
        assert!(difference(&desired, &on, &[TAINT.to_owned()]).is_nothing());
    }

    #[test]
    fn a_drop_or_another_revision_closes_and_an_addition_is_routine() {
        let (one, two) = (desired(&warm(&["a"])), desired(&warm(&["a", "b"])));
        assert_eq!(urgency(Some(&one), &two, &written(&one), &[]), Urgency::Routine);
        assert_eq!(urgency(Some(&two), &one, &written(&two), &[]), Urgency::Closes);
        let mut other = one.clone();
        other.labels.insert("image.stoker.dev/a".to_owned(), "other".to_owned());
        assert_eq!(urgency(Some(&one), &other, &written(&one), &[]), Urgency::Closes);
        // Before the first write of a run the Node itself tells what was there.
        assert_eq!(urgency(None, &one, &written(&two), &[]), Urgency::Closes);
    }

    #[test]
    fn the_gpu_the_ready_label_and_the_taint_open() {
        let before = desired(&warm(&[]));
        let mut report = warm(&[]);
        report.gpu.open = true;
        report.gpu.phase = GpuPhase::Ready;
        assert_eq!(urgency(Some(&before), &desired(&report), &written(&before), &[]), Urgency::Opens);
        report.ready = true;
        let ready = desired(&report);
        let mut on = written(&ready);
        on.taints.insert(TAINT.to_owned());
        assert_eq!(urgency(None, &ready, &on, &[TAINT.to_owned()]), Urgency::Opens);
        // Somebody put the taint back: it goes, at the common pace.
        assert_eq!(urgency(Some(&ready), &ready, &on, &[TAINT.to_owned()]), Urgency::Routine);
    }

    #[test]
    fn what_changes_no_label_is_only_told() {
        let one = desired(&warm(&["a"]));
        let mut report = warm(&["a", "b"]);
        report.entries[1].state = EntryState::Pending;
        report.entries[1].revision = None;
        let other = desired(&report);
        assert_eq!(urgency(Some(&one), &other, &written(&one), &[]), Urgency::Told);
        assert_eq!(urgency(None, &other, &written(&one), &[]), Urgency::Told);
    }

    #[test]
    fn what_somebody_else_did_is_mended_without_hurry() {
        let one = desired(&warm(&["a"]));
        let mut on = written(&one);
        on.labels.clear();
        assert_eq!(urgency(Some(&one), &one, &on, &[]), Urgency::Routine);
        on.labels.insert("image.stoker.dev/stray".to_owned(), "x".to_owned());
        assert_eq!(urgency(Some(&one), &one, &on, &[]), Urgency::Routine);
    }
}
