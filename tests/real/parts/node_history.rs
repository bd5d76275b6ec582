//! What a Node was, one version after the other, as the API server tells it to those who watch.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, WatchEvent, WatchParams};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::control_plane::ControlPlane;
use super::wait::{START, until};

/// One version of a Node.
#[derive(Debug, Clone)]
pub(crate) struct NodeVersion {
    /// Its resourceVersion.
    pub(crate) version: u64,
    /// When it came.
    pub(crate) seen: jiff::Timestamp,
    /// All of it.
    pub(crate) node: Value,
}

impl NodeVersion {
    /// Its labels.
    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        serde_json::from_value(self.node["metadata"]["labels"].clone()).unwrap_or_default()
    }
}

/// A watch of one Node, from when it was started. No version is missed: if the watch breaks, [`Self::until_now`]
/// fails.
#[derive(Debug)]
pub(crate) struct NodeHistory {
    name: String,
    seen: Arc<Mutex<Vec<NodeVersion>>>,
    watching: JoinHandle<()>,
}

impl NodeHistory {
    /// Begins to watch.
    pub(crate) async fn follow(control: &ControlPlane, name: &str) -> Self {
        let nodes: Api<Node> = Api::all(control.client().await);
        let first = nodes.get(name).await.expect("the Node is there");
        let mut next = first.metadata.resource_version.clone().expect("a version");
        let seen = Arc::new(Mutex::new(vec![taken(&first)]));
        let only = WatchParams::default().fields(&format!("metadata.name={name}")).timeout(280);
        let into = Arc::clone(&seen);
        let watching = tokio::spawn(async move {
            loop {
                let events = nodes.watch(&only, &next).await.expect("a watch can begin");
                let mut events = pin!(events);
                while let Some(event) = events.next().await {
                    match event.expect("a watch goes on") {
                        WatchEvent::Added(node) | WatchEvent::Modified(node) => {
                            next = node.metadata.resource_version.clone().expect("a version");
                            into.lock().expect("nobody panics with the lock").push(taken(&node));
                        }
                        WatchEvent::Bookmark(mark) => next = mark.metadata.resource_version,
                        other => panic!("the Node is watched: {other:?}"),
                    }
                }
            }
        });
        Self { name: name.to_owned(), seen, watching }
    }

    /// What was seen so far; the first is the one that was there at the start.
    pub(crate) fn so_far(&self) -> Vec<NodeVersion> {
        assert!(!self.watching.is_finished(), "the watch of {} broke", self.name);
        self.seen.lock().expect("nobody panics with the lock").clone()
    }

    /// The same up to the one that the API server has now.
    pub(crate) async fn until_now(&self, control: &ControlPlane) -> Vec<NodeVersion> {
        let now = control.call("GET", &format!("/api/v1/nodes/{}", self.name), None).await;
        let now = version(now["metadata"]["resourceVersion"].as_str());
        until("the watch to have seen the newest Node", START, async || {
            let seen = self.so_far();
            seen.last().is_some_and(|last| last.version >= now).then_some(seen)
        })
        .await
    }
}

impl Drop for NodeHistory {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

fn taken(node: &Node) -> NodeVersion {
    NodeVersion {
        version: version(node.metadata.resource_version.as_deref()),
        seen: jiff::Timestamp::now(),
        node: serde_json::to_value(node).expect("JSON"),
    }
}

fn version(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).expect("the API server's versions are numbers")
}
