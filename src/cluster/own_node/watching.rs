use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::super::one_object::{OneObject, Seen};
use super::super::patience::Patience;
use super::super::{Cluster, ClusterError, Fault};
use super::object::{ObjectVersion, facts, on_node};
use crate::list::NodeFacts;
use crate::node::OnNode;

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
        let nodes = Api::all(self.cluster.client().clone());
        let node = OneObject::new(self.cluster.clone(), nodes, format!("the Node {}", self.name), self.name);
        let mut patience = Patience::default();
        let mut problem: Option<String> = None;
        loop {
            let began = Instant::now();
            let Err(error) = self.look(&node).await;
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
    async fn look(&self, node: &OneObject<Node>) -> Result<Infallible, ClusterError> {
        let (found, mut version) = node.read().await?;
        match found {
            Some(node) => self.there(&node, true),
            None => self.absent("there is no Node of this name yet; waiting for it"),
        }
        loop {
            version = self.follow(node, &version).await?;
        }
    }

    /// Follows the Node after `version` until the watch ends in the regular way. Gives the version that was reached.
    async fn follow(&self, node: &OneObject<Node>, version: &str) -> Result<String, ClusterError> {
        let mut watching = node.watch(version).await?;
        loop {
            match watching.next().await {
                Seen::There(node) => self.there(&node, false),
                Seen::Gone => self.absent("the Node was deleted; waiting for another of this name"),
                Seen::Version => {}
                Seen::Ended => return Ok(watching.version),
                Seen::Cut => return Err(ClusterError::cut(&format!("watch the Node {}", self.name))),
                Seen::Failed(error) => return Err(error),
            }
        }
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
