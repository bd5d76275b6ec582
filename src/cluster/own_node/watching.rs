use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::super::client::DEADLINE;
use super::super::{Cluster, ClusterError, Fault};
use super::backoff::Backoff;
use super::object::{ObjectVersion, facts, on_node};
use crate::list::NodeFacts;
use crate::node::OnNode;

/// The own Node, as the watch last told.
#[derive(Debug, Clone)]
pub(super) enum Sight {
    /// The API server hasn't answered yet.
    NotYet,
    /// There is none of that name.
    Absent,
    /// It's there.
    There {
        /// What it carries.
        on: Arc<OnNode>,
        /// Which version this is.
        version: ObjectVersion,
        /// The API server was asked for it anew; otherwise this is a change since.
        listed: bool,
    },
}

/// Watches the Node of this name, and no other, for ever. An error is followed by a new look at it, which costs the
/// API server no more than another watch would: it's one object.
pub(super) async fn watch(
    cluster: Cluster,
    name: &str,
    sights: &watch::Sender<Sight>,
    facts_out: &watch::Sender<Option<Arc<NodeFacts>>>,
) {
    let what = format!("watch the Node {name}");
    let mut backoff = Backoff::default();
    let mut problem: Option<String> = None;
    loop {
        let error = match look(&cluster, name, sights, facts_out, &mut backoff).await {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => ClusterError::of(cluster.server(), &what, &error),
            watcher::Error::WatchError(status) => {
                ClusterError::of(cluster.server(), &what, &kube::Error::Api(status))
            }
            watcher::Error::NoResourceVersion => ClusterError::late(cluster.server(), &what, DEADLINE),
        };
        // The way in which every watch ends at times is no problem: a version that isn't kept any more.
        if error.fault() != Fault::Expired && problem.replace(error.to_string()) != Some(error.to_string()) {
            tracing::warn!(node = name, "{error}; trying again");
        }
        backoff.failed(error.fault(), Instant::now(), fastrand::f64());
        if let Some(until) = backoff.until() {
            sleep_until(until).await;
        }
    }
}

/// Reads the Node and follows it, until something goes wrong.
async fn look(
    cluster: &Cluster,
    name: &str,
    sights: &watch::Sender<Sight>,
    facts_out: &watch::Sender<Option<Arc<NodeFacts>>>,
    backoff: &mut Backoff,
) -> watcher::Error {
    let nodes: Api<Node> = Api::all(cluster.client().clone());
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = pin!(watcher(nodes, config));
    let (mut listing, mut found) = (true, false);
    loop {
        let next = events.next();
        let event = if listing {
            // A watch may be silent for long; the first answer may not.
            timeout(DEADLINE, next).await.unwrap_or(Some(Err(watcher::Error::NoResourceVersion)))
        } else {
            next.await
        };
        match event {
            Some(Ok(Event::Init)) => (listing, found) = (true, false),
            Some(Ok(Event::InitApply(node))) => {
                found = true;
                publish(name, &node, true, sights, facts_out);
            }
            Some(Ok(Event::InitDone)) => {
                listing = false;
                backoff.succeeded();
                if !found {
                    tracing::info!(node = name, "there is no Node of this name yet; waiting for it");
                    sights.send_replace(Sight::Absent);
                }
            }
            Some(Ok(Event::Apply(node))) => publish(name, &node, false, sights, facts_out),
            Some(Ok(Event::Delete(_))) => {
                tracing::info!(node = name, "the Node was deleted; waiting for another of this name");
                sights.send_replace(Sight::Absent);
            }
            Some(Err(error)) => return error,
            None => return watcher::Error::NoResourceVersion,
        }
    }
}

fn publish(
    name: &str,
    node: &Node,
    listed: bool,
    sights: &watch::Sender<Sight>,
    facts_out: &watch::Sender<Option<Arc<NodeFacts>>>,
) {
    let facts = facts(name, node);
    facts_out.send_if_modified(|published| {
        let changed = published.as_deref() != Some(&facts);
        if changed {
            *published = Some(Arc::new(facts));
        }
        changed
    });
    let on = Arc::new(on_node(node));
    sights.send_replace(Sight::There { on, version: ObjectVersion::of(node), listed });
}
