use std::collections::BTreeMap;

use serde::Serialize;

use super::{EntryState, Report};

/// JSON of entry → state and reason, for people with kubectl.
pub const STATUS_ANNOTATION: &str = "stoker.dev/status";

/// The boot in which the labels were written: another one on the Node means that they're stale.
pub const BOOT_ID_ANNOTATION: &str = "stoker.dev/boot-id";

/// Every node's annotations are sent to everyone who watches nodes, so there is a cap, in bytes.
const MAX_BYTES: usize = 4096;

#[derive(Serialize)]
struct Status<'a> {
    entries: BTreeMap<&'a str, EntryStatus<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    more: usize,
}

#[derive(Serialize)]
struct EntryStatus<'a> {
    state: EntryState,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// The value of [`STATUS_ANNOTATION`]: states and reasons only, never bytes in flight, so that it changes only
/// when a state does. At most 4 KiB; what doesn't fit is counted in `more`.
#[must_use]
pub fn status_annotation(report: &Report) -> String {
    let json = |kept: usize| {
        let entries = report.entries.iter().take(kept).map(|entry| {
            let reason = entry.reason.as_ref().map(|reason| reason.code.as_str());
            // Else each node would be written twice for each try.
            let state = if entry.is_tried_again() { EntryState::Failed } else { entry.state };
            (entry.id.as_str(), EntryStatus { state, reason })
        });
        let status = Status { entries: entries.collect(), more: report.entries.len() - kept };
        serde_json::to_string(&status).unwrap_or_default()
    };
    // Each entry adds more than the count without it takes away, so the length grows with what is kept.
    json(most(report.entries.len(), |kept| json(kept).len() <= MAX_BYTES))
}

/// The largest number up to `all` that fits, when each below one that fits does too. Zero always fits. It looks at few:
/// each look writes out what it's about, and a list may have thousands of entries.
fn most(all: usize, mut fits: impl FnMut(usize) -> bool) -> usize {
    let (mut most, mut too_many) = (0, all + 1);
    while too_many - most > 1 {
        let half = most.midpoint(too_many);
        if fits(half) {
            most = half;
        } else {
            too_many = half;
        }
    }
    most
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{entry, report};
    use super::super::{GoodsKind, Reason};
    use super::*;

    #[test]
    fn it_says_state_and_reason() {
        let mut report = report();
        report.entries = vec![entry("a", GoodsKind::Image, EntryState::Failed)];
        report.entries[0].reason = Some(Reason::new("NotFound", "…"));
        assert_eq!(status_annotation(&report), r#"{"entries":{"a":{"state":"Failed","reason":"NotFound"}}}"#);
    }

    #[test]
    fn another_try_changes_nothing() {
        let mut report = report();
        report.entries = vec![entry("a", GoodsKind::Image, EntryState::Failed)];
        report.entries[0].reason = Some(Reason::new("NotFound", "…"));
        let failed = status_annotation(&report);
        report.entries[0].state = EntryState::Fetching;
        assert_eq!(status_annotation(&report), failed);
        report.entries[0].reason = Some(Reason::new(Reason::LAST_GOOD_VERSION, "…"));
        assert!(status_annotation(&report).contains("Fetching"));
    }

    #[test]
    fn it_is_cut_with_a_count() {
        let mut report = report();
        report.entries = (0..200)
            .map(|n| entry(&format!("{n}-{}", "x".repeat(40)), GoodsKind::Image, EntryState::Warm))
            .collect();
        let json = status_annotation(&report);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        let kept = value["entries"].as_object().unwrap().len();
        assert!(json.len() <= MAX_BYTES && kept > 10);
        assert_eq!(value["more"], 200 - kept);
        assert!(json.len() + 80 > MAX_BYTES, "no less than fits: {}", json.len());
    }

    #[test]
    fn a_long_list_takes_few_looks() {
        for (all, fitting) in [(0, 0), (1, 0), (1, 1), (64, 63), (4096, 73), (4096, 4096)] {
            let mut looks = 0;
            let found = most(all, |kept| {
                looks += 1;
                kept <= fitting
            });
            assert!(found == fitting && looks <= 13, "{found} of {all} in {looks} looks");
        }
    }
}
