//! A [`Report`] as the protocol spells it. Pure, and exhaustive: a field or a state that is added to the report
//! doesn't compile until it has a place here.

use std::collections::{BTreeMap, BTreeSet};

use super::proto;
use crate::node::{Applied, EntryReport, EntryState, GoodsKind, ListReport, Reason, Report};
use crate::types::{GpuPhase, GpuState};

/// The report, with the labels that it puts on the Node and what is known of those that stand there, as an answer to
/// `Status`.
pub(super) fn status(
    report: &Report,
    node_labels: BTreeMap<String, String>,
    applied: Option<&Applied>,
) -> proto::StatusResponse {
    // The labels say it already.
    let Report {
        gpu,
        list,
        entries,
        gate_passed: _,
        ready,
        ready_by,
        settled,
        left_alone: _,
        labels_version: _,
        done,
        boot_id,
    } = report;
    proto::StatusResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        boot_id: boot_id.clone(),
        ready: *ready,
        settled: *settled,
        done: *done,
        gpu: Some(to_gpu(gpu)),
        list: Some(to_list(list)),
        entries: entries.iter().map(entry).collect(),
        // Before that nothing is written, so nothing waits.
        unconfirmed_labels: if *settled { unconfirmed(&node_labels, applied) } else { Vec::new() },
        node_labels,
        ready_by: ready_by.map(|why| format!("{why:?}")).unwrap_or_default(),
    }
}

/// The keys whose label may stand on the Node otherwise than it should.
fn unconfirmed(wanted: &BTreeMap<String, String>, applied: Option<&Applied>) -> Vec<String> {
    let nothing = Applied::default();
    let applied = applied.unwrap_or(&nothing);
    let is_sure = |key: &str, value: &String| {
        applied.labels.get(key) == Some(value) && applied.values(key).all(|standing| standing == value)
    };
    let open = wanted.iter().filter(|(key, value)| !is_sure(key, value)).map(|(key, _)| key.as_str());
    let leaving = applied.may_stand().map(|(key, _)| key).filter(|key| !wanted.contains_key(*key));
    open.chain(leaving).collect::<BTreeSet<_>>().into_iter().map(str::to_owned).collect()
}

fn to_gpu(state: &GpuState) -> proto::Gpu {
    let GpuState { phase, reason, message, devices, expected, driver_version, open } = state;
    let phase = match phase {
        GpuPhase::Unknown => proto::GpuPhase::Unspecified,
        GpuPhase::NotApplicable => proto::GpuPhase::NotApplicable,
        GpuPhase::Waiting => proto::GpuPhase::Waiting,
        GpuPhase::Ready => proto::GpuPhase::Ready,
        GpuPhase::Degraded => proto::GpuPhase::Degraded,
        GpuPhase::Failed => proto::GpuPhase::Failed,
    };
    proto::Gpu {
        phase: phase.into(),
        // The variant's name is the CamelCase word.
        reason: format!("{reason:?}"),
        message: message.clone(),
        devices: *devices,
        expected: *expected,
        driver_version: driver_version.clone(),
        open: *open,
    }
}

fn to_list(list: &ListReport) -> proto::List {
    let ListReport { known: _, content, errors, warnings, paused, stale, removals_held } = list;
    proto::List {
        content: content.map(|digest| digest.hex()),
        errors: errors.clone(),
        warnings: warnings.clone(),
        paused: *paused,
        stale: *stale,
        removals_held: *removals_held,
    }
}

/// One entry.
pub(super) fn entry(entry: &EntryReport) -> proto::Entry {
    let EntryReport { id, kind, required, state, reason, revision, source, verified, requested, progress } =
        entry;
    let kind = match kind {
        None => proto::Kind::Unspecified,
        Some(GoodsKind::Image) => proto::Kind::Image,
        Some(GoodsKind::Weights) => proto::Kind::Weights,
    };
    let state = match state {
        EntryState::Pending => proto::EntryState::Pending,
        EntryState::Fetching => proto::EntryState::Fetching,
        EntryState::Warm => proto::EntryState::Warm,
        EntryState::Failed => proto::EntryState::Failed,
        EntryState::Skipped => proto::EntryState::Skipped,
        EntryState::Invalid => proto::EntryState::Invalid,
        EntryState::OverLimit => proto::EntryState::OverLimit,
    };
    let (bytes_done, bytes_total) = progress.as_ref().map_or((0, 0), |job| (job.done(), job.total()));
    proto::Entry {
        id: id.to_string(),
        kind: kind.into(),
        required: *required,
        state: state.into(),
        reason: reason.as_ref().map(self::reason),
        bytes_done,
        bytes_total,
        revision: revision.map(|revision| revision.hex()),
        source: source.clone(),
        verified: *verified,
        requested: *requested,
    }
}

/// A reason.
pub(super) fn reason(Reason { code, message }: &Reason) -> proto::Reason {
    proto::Reason { code: code.clone(), message: message.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::sample;

    #[test]
    fn every_field_has_its_place() {
        let report = sample::report();
        let labels = BTreeMap::from([("stoker.dev/gpu".to_owned(), "ready".to_owned())]);
        let applied = Applied { labels: labels.clone(), ..Applied::default() };
        let status = status(&report, labels.clone(), Some(&applied));

        assert_eq!(status.version, env!("CARGO_PKG_VERSION"));
        assert_eq!(status.boot_id, report.boot_id);
        assert_eq!((status.ready, status.settled, status.done), (false, true, false));
        assert_eq!((status.node_labels, status.unconfirmed_labels), (labels, Vec::new()));

        let gpu = status.gpu.unwrap();
        assert_eq!(gpu.phase(), proto::GpuPhase::Ready);
        assert_eq!(gpu.reason, "DriverReady");
        assert_eq!((gpu.devices, gpu.expected, gpu.open), (8, 8, true));
        assert_eq!(gpu.driver_version.as_deref(), Some("570.86.15"));

        let list = status.list.unwrap();
        assert_eq!(list.content, report.list.content.map(|digest| digest.hex()));
        assert_eq!((list.errors.len(), list.warnings.len()), (0, 1));
        assert_eq!((list.paused, list.stale, list.removals_held), (false, false, true));

        let [vllm, llama, typo] = status.entries.try_into().unwrap();
        assert_eq!((vllm.kind(), vllm.state()), (proto::Kind::Image, proto::EntryState::Warm));
        assert_eq!(vllm.revision, report.entries[0].revision.map(|revision| revision.hex()));
        assert!(vllm.verified && vllm.required && vllm.reason.is_none());
        assert_eq!((llama.kind(), llama.state()), (proto::Kind::Weights, proto::EntryState::Fetching));
        assert_eq!((llama.bytes_done, llama.bytes_total), (1 << 30, 4 << 30));
        assert_eq!((typo.kind(), typo.state()), (proto::Kind::Unspecified, proto::EntryState::Invalid));
        assert_eq!(typo.reason.unwrap().code, "Invalid");
    }

    #[test]
    fn labels_that_wait_for_the_api_server_are_named() {
        let labels = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        let wanted = labels(&[("new", "1"), ("other", "2"), ("right", "1"), ("written", "2")]);
        let applied = Applied {
            labels: labels(&[("gone", "1"), ("other", "1"), ("right", "1"), ("written", "2")]),
            perhaps: [("new", "1"), ("written", "1"), ("late", "1")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            ..Applied::default()
        };
        assert_eq!(unconfirmed(&wanted, Some(&applied)), ["gone", "late", "new", "other", "written"]);
        assert_eq!(unconfirmed(&wanted, None), ["new", "other", "right", "written"]);
    }

    #[test]
    fn each_state_and_phase_is_told_apart() {
        use std::collections::BTreeSet;
        let mut sample = sample::report().entries.remove(0);
        let states = [
            EntryState::Pending,
            EntryState::Fetching,
            EntryState::Warm,
            EntryState::Failed,
            EntryState::Skipped,
            EntryState::Invalid,
            EntryState::OverLimit,
        ];
        let seen: BTreeSet<i32> = states
            .into_iter()
            .map(|state| {
                sample.state = state;
                entry(&sample).state
            })
            .collect();
        assert_eq!(seen.len(), states.len());
        assert!(!seen.contains(&0), "no state is sent as unspecified");
    }
}
