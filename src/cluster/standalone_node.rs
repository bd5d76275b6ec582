use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::node::{Applied, Report, labels};

/// The node task without a cluster: there is nobody to write labels to, so each label counts as written as soon as
/// it's said, and as gone as soon as it isn't.
#[must_use]
pub fn spawn_standalone_node(
    mut reports: watch::Receiver<Arc<Report>>,
    stop: CancellationToken,
) -> (watch::Receiver<Option<Applied>>, JoinHandle<()>) {
    let (out, applied) = watch::channel(None);
    let task = tokio::spawn(async move {
        loop {
            if let Some(labels) = labels(&reports.borrow_and_update()) {
                let now = Some(Applied { labels });
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
