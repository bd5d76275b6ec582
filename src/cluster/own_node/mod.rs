//! The own Node: what it carries is watched, what it should carry is written, and people are told by events.
//!
//! What to write, and when, is decided purely in `node/`; here it is sent. Written are labels, annotations and
//! conditions of ours, and the startup taints are taken off; nothing else of the Node, and no other Node, ever.

mod backoff;
mod object;
mod requests;
mod taints;
mod telling;
mod trouble;
mod watching;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Cluster;
use crate::list::NodeFacts;
use crate::node::{Applied, Pace, Report};
use crate::rt::Metrics;
use requests::Requests;
use telling::Teller;
use watching::{Sight, Watcher};
use writer::Writer;

/// Which Node is ours, and how it's treated.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    /// Its name.
    pub name: String,
    /// The keys of the startup taints, which go once the node is ready.
    pub taints: Vec<String>,
    /// How long the gate may be shut before people are told.
    pub gate_warn_after: Duration,
    /// Over how long a fleet spreads what can wait: states, conditions, and Events about the list.
    pub spread: Duration,
}

impl NodeSettings {
    /// The defaults, for the Node of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            taints: vec!["stoker.dev/not-ready".to_owned()],
            gate_warn_after: Duration::from_secs(20 * 60),
            spread: Duration::from_secs(20),
        }
    }
}

/// What the agent learns from its Node.
#[derive(Debug)]
pub struct NodeWatches {
    /// Every label of ours that may stand on it: what isn't here can't be there. `None` until it was read once.
    pub applied: watch::Receiver<Option<Applied>>,
    /// The Node as selectors see it; `None` until it was read once.
    pub facts: watch::Receiver<Option<Arc<NodeFacts>>>,
}

/// Keeps the own Node as the reports say, until `stop` or until nobody makes reports any more.
#[must_use]
pub fn spawn_node(
    cluster: Cluster,
    settings: NodeSettings,
    reports: watch::Receiver<Arc<Report>>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> (NodeWatches, JoinHandle<()>) {
    let (applied_out, applied) = watch::channel(None);
    let (facts_out, facts) = watch::channel(None);
    let task = tokio::spawn(async move {
        let (sights_out, sights) = watch::channel(Sight::NotYet);
        let teller = Teller::new(cluster.clone(), settings.clone());
        let watcher =
            Watcher { cluster: cluster.clone(), name: &settings.name, sights: sights_out, facts: facts_out };
        let requests = Requests::new(cluster, &settings.name);
        let writer =
            Writer::new(requests, settings.taints.clone(), Pace::new(settings.spread), applied_out, metrics);
        // All of them are dropped together: a request that is cut off is as one without an answer.
        tokio::select! {
            () = stop.cancelled() => {}
            () = watcher.run() => {}
            () = writer.run(reports.clone(), sights.clone()) => {}
            () = teller.run(reports, sights) => {}
        }
    });
    (NodeWatches { applied, facts }, task)
}
