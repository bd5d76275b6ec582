use super::cut::cut;
use super::{EntryState, Report};
use crate::types::GpuPhase;

/// Every node's conditions are sent to everyone who watches nodes, so there is a cap, in bytes.
const MAX_MESSAGE: usize = 1024;

/// A node condition of ours, for people and for controllers that read conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// `stoker.dev/GPUReady` or `stoker.dev/Warm`.
    pub kind: &'static str,
    /// True or False.
    pub status: bool,
    /// One CamelCase word.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

impl Condition {
    /// The status, as the API server wants it.
    #[must_use]
    pub fn status_word(&self) -> &'static str {
        if self.status { "True" } else { "False" }
    }
}

/// Both conditions, as they stand now.
#[must_use]
pub fn conditions(report: &Report) -> [Condition; 2] {
    [gpu_ready(report), warm(report)]
}

fn gpu_ready(report: &Report) -> Condition {
    let gpu = &report.gpu;
    let message = if gpu.message.is_empty() {
        gpu.reason.advice().to_owned()
    } else {
        format!("{}: {}", gpu.reason.advice(), gpu.message)
    };
    Condition {
        kind: "stoker.dev/GPUReady",
        status: gpu.open && gpu.phase != GpuPhase::NotApplicable,
        reason: format!("{:?}", gpu.reason),
        message: cut(message, MAX_MESSAGE),
    }
}

/// Warm tells of every listed entry that applies here, also of those that `stoker.dev/ready` no longer waits for.
fn warm(report: &Report) -> Condition {
    let applying = || report.entries.iter().filter(|entry| entry.state != EntryState::Skipped);
    let cold: Vec<&str> =
        applying().filter(|entry| entry.state != EntryState::Warm).map(|entry| entry.id.as_str()).collect();
    let total = applying().count();
    let (reason, message) = if !report.list.errors.is_empty() {
        ("ListInvalid", report.list.errors.join("; "))
    } else if cold.is_empty() {
        ("AllWarm", format!("{total} of {total} entries are warm"))
    } else {
        let shown = cold.iter().take(8).copied().collect::<Vec<_>>().join(", ");
        let more = if cold.len() > 8 { ", …" } else { "" };
        (
            "EntriesNotWarm",
            format!("{} of {total} entries are warm; not warm: {shown}{more}", total - cold.len()),
        )
    };
    Condition {
        kind: "stoker.dev/Warm",
        status: reason == "AllWarm",
        reason: reason.to_owned(),
        message: cut(message, MAX_MESSAGE),
    }
}

#[cfg(test)]
mod tests {
    use super::super::GoodsKind;
    use super::super::report::tests::{entry, report};
    use super::*;

    #[test]
    fn warm_names_what_is_cold_and_leaves_out_what_is_not_for_this_node() {
        let mut report = report();
        report.entries = vec![
            entry("a", GoodsKind::Image, EntryState::Warm),
            entry("b", GoodsKind::Image, EntryState::Failed),
            entry("c", GoodsKind::Image, EntryState::Skipped),
        ];
        let [_, warm] = conditions(&report);
        assert_eq!((warm.status, warm.reason.as_str()), (false, "EntriesNotWarm"));
        assert_eq!(warm.message, "1 of 2 entries are warm; not warm: b");
    }

    #[test]
    fn an_unreadable_list_is_said() {
        let mut report = report();
        report.list.errors = vec!["the document is empty".to_owned()];
        assert_eq!(conditions(&report)[1].reason, "ListInvalid");
    }
}
