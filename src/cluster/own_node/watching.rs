use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{ListParams, WatchEvent, WatchParams};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::super::client::DEADLINE;
use super::super::patience::Patience;
use super::super::{Cluster, ClusterError, Fault};
use super::object::{ObjectVersion, facts, on_node};
use crate::list::NodeFacts;
use crate::node::OnNode;

/// How long a watch lasts at most, in seconds, of which each picks its own: a fleet started together doesn't come back
/// together.
const WATCH_SECONDS: std::ops::Range<u32> = 300..600;

/// A look that held this long has worked, whatever ended it: no single request takes as long.
const WORKED: Duration = Duration::from_secs(45);

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

/// Watches one Node and tells what it sees.
pub(super) struct Watcher<'a> {
    pub(super) cluster: Cluster,
    /// The name of the Node; no other is ever asked for.
    pub(super) name: &'a str,
    pub(super) sights: watch::Sender<Sight>,
    pub(super) facts: watch::Sender<Option<Arc<NodeFacts>>>,
}

impl Watcher<'_> {
    /// Watches for ever. Whatever goes wrong, the Node is read again: it's one object, which costs the API server no
    /// more than another watch would.
    pub(super) async fn run(self) {
        let nodes: Api<Node> = Api::all(self.cluster.client().clone());
        let mut patience = Patience::default();
        let mut problem: Option<String> = None;
        loop {
            let began = Instant::now();
            let Err(error) = self.look(&nodes).await;
            if began.elapsed() >= WORKED {
                patience.worked();
                problem = None;
            }
            // A version that isn't kept any more is how a watch ends when the API server was started again.
            let text = error.to_string();
            if error.fault() != Fault::Expired && problem.as_ref() != Some(&text) {
                tracing::warn!("{text}; trying again");
                problem = Some(text);
            }
            sleep(patience.after(error.fault(), fastrand::f64())).await;
        }
    }

    /// Reads the Node as it is now, from no cache, and follows it from there until something goes wrong.
    async fn look(&self, nodes: &Api<Node>) -> Result<Infallible, ClusterError> {
        let only = format!("metadata.name={}", self.name);
        let what = format!("read the Node {}", self.name);
        let params = ListParams::default().fields(&only);
        let found = self.cluster.ask(&what, nodes.list(&params)).await?;
        let mut version = found.metadata.resource_version.unwrap_or_default();
        match found.items.first() {
            Some(node) => self.there(node, true),
            None => self.absent("there is no Node of this name yet; waiting for it"),
        }
        loop {
            version = self.follow(nodes, &only, version).await?;
        }
    }

    /// Follows the Node after `version` until the watch ends in the regular way. Gives the version that was reached.
    async fn follow(
        &self,
        nodes: &Api<Node>,
        only: &str,
        mut version: String,
    ) -> Result<String, ClusterError> {
        let what = format!("watch the Node {}", self.name);
        let seconds = fastrand::u32(WATCH_SECONDS);
        let params = WatchParams::default().fields(only).timeout(seconds);
        let events = self.cluster.ask(&what, nodes.watch(&params, &version)).await?;
        let began = Instant::now();
        // The server ends it; should it have vanished behind something that keeps the connection open, we do.
        let lasts = Duration::from_secs(seconds.into());
        let mut events = pin!(events.take_until(sleep(lasts + DEADLINE)));
        while let Some(event) = events.next().await {
            let reached = match event.map_err(|error| self.cluster.error(&what, &error))? {
                WatchEvent::Added(node) | WatchEvent::Modified(node) => {
                    self.there(&node, false);
                    node.metadata.resource_version
                }
                WatchEvent::Deleted(node) => {
                    self.absent("the Node was deleted; waiting for another of this name");
                    node.metadata.resource_version
                }
                WatchEvent::Bookmark(bookmark) => Some(bookmark.metadata.resource_version),
                WatchEvent::Error(status) => {
                    return Err(self.cluster.error(&what, &kube::Error::Api(status)));
                }
            };
            version = reached.unwrap_or(version);
        }
        let is_regular = began.elapsed() + Duration::from_secs(1) >= lasts;
        if is_regular { Ok(version) } else { Err(ClusterError::cut(&what)) }
    }

    fn there(&self, node: &Node, listed: bool) {
        let facts = facts(self.name, node);
        self.facts.send_if_modified(|told| {
            let changed = told.as_deref() != Some(&facts);
            if changed {
                *told = Some(Arc::new(facts));
            }
            changed
        });
        let on = Arc::new(on_node(node));
        self.sights.send_replace(Sight::There { on, version: ObjectVersion::of(node), listed });
    }

    fn absent(&self, why: &str) {
        tracing::info!(node = self.name, "{why}");
        self.sights.send_replace(Sight::Absent);
    }
}
