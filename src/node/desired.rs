use std::collections::BTreeMap;

use super::{
    BOOT_ID_ANNOTATION, Condition, Report, STATUS_ANNOTATION, conditions, labels, status_annotation,
};

/// All that the Node should carry of ours: one state, never a queue of changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// Every label of ours.
    pub labels: BTreeMap<String, String>,
    /// Every annotation of ours.
    pub annotations: BTreeMap<String, String>,
    /// Both conditions.
    pub conditions: [Condition; 2],
    /// Whether the startup taints should go.
    pub ready: bool,
}

impl Desired {
    /// What a report asks for; `None` while nothing at all must be written.
    #[must_use]
    pub fn of(report: &Report) -> Option<Self> {
        let labels = labels(report)?;
        let annotations = [
            (STATUS_ANNOTATION.to_owned(), status_annotation(report)),
            (BOOT_ID_ANNOTATION.to_owned(), report.boot_id.clone()),
        ];
        Some(Self {
            labels,
            annotations: annotations.into(),
            conditions: conditions(report),
            ready: report.ready,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn an_unsettled_report_asks_for_nothing_not_even_for_a_condition() {
        let mut report = report();
        assert!(Desired::of(&report).is_some());
        report.settled = false;
        assert_eq!(Desired::of(&report), None);
    }

    #[test]
    fn the_boot_is_told_beside_the_labels() {
        let desired = Desired::of(&report()).unwrap();
        assert_eq!(desired.annotations[BOOT_ID_ANNOTATION], "boot");
        assert!(desired.annotations.contains_key(STATUS_ANNOTATION));
    }
}
