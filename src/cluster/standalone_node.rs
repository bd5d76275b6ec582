use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::node::{Applied, Report, labels};

/// The node task without a cluster: there is nobody to write labels to, so each label counts as written as soon as
/// it's said, and as gone as soon as it isn't. Before anything was said there is none.
#[must_use]
pub fn spawn_standalone_node(
    mut reports: watch::Receiver<Arc<Report>>,
    stop: CancellationToken,
) -> (watch::Receiver<Option<Applied>>, JoinHandle<()>) {
    let (out, applied) = watch::channel(Some(Applied::default()));
    let task = tokio::spawn(async move {
        loop {
            let said = {
                let report = reports.borrow_and_update();
                labels(&report).map(|labels| (labels, report.labels_version))
            };
            if let Some((labels, labels_version)) = said {
                let now = Some(Applied { labels, labels_version, ..Applied::default() });
                out.send_if_modified(|applied| {
                    let changed = *applied != now;
                    *applied = now;
                    changed
                });
            }
            tokio::select! {
                () = stop.cancelled() => break,
                changed = reports.changed() => if changed.is_err() { break },
            }
        }
    });
    (applied, task)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{Applied, EntryReport, EntryState, GoodsKind, ListReport};
    use crate::types::{Digest, GpuState, Revision};

    fn report(settled: bool, version: u64) -> Arc<Report> {
        let warm = EntryReport {
            id: "a".parse().unwrap(),
            kind: Some(GoodsKind::Weights),
            required: false,
            state: EntryState::Warm,
            reason: None,
            revision: Some(Revision::of_image(Digest::of(b"r"))),
            source: String::new(),
            verified: true,
            requested: false,
            progress: None,
        };
        Arc::new(Report {
            gpu: GpuState::unknown(),
            list: ListReport::default(),
            entries: vec![warm],
            gate_passed: true,
            ready: false,
            ready_by: None,
            settled,
            left_alone: std::collections::BTreeMap::new(),
            labels_version: version,
            done: false,
            boot_id: "boot".to_owned(),
        })
    }

    #[tokio::test]
    async fn it_has_confirmed_that_nothing_stands_before_anything_was_said() {
        let (reports_out, reports) = watch::channel(report(false, 0));
        let stop = CancellationToken::new();
        let (mut applied, task) = spawn_standalone_node(reports, stop.clone());
        assert_eq!(*applied.borrow(), Some(Applied::default()), "else the agent would wait for it for ever");
        reports_out.send_replace(report(true, 1));
        let said = applied.wait_for(|now| now.as_ref().is_some_and(|now| now.labels_version == 1)).await;
        assert_eq!(said.unwrap().as_ref().unwrap().labels.len(), 1);
        stop.cancel();
        task.await.unwrap();
    }
}
