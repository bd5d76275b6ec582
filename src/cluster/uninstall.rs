//! Takes everything of Stoker's off the Nodes, for an admin who takes Stoker out of a cluster. Nothing else of a Node
//! is touched, and nothing but Nodes.

use futures::StreamExt as _;
use http::Request;
use http::header::CONTENT_TYPE;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::ListParams;
use serde_json::Value;

use super::Cluster;
use super::error::{ClusterError, Fault};
use super::leftovers::{Leftovers, remaining_taints};
use super::patience::Patience;

/// Nodes in one answer of the API server; each is some 20 KB.
const PAGE: u32 = 200;

/// Nodes at once: a cluster of thousands takes a minute, and the API server has other things to do.
const AT_ONCE: usize = 8;

/// How often one Node is tried while others write to it, or the API server is busy.
const TRIES: u32 = 6;

/// What every object of ours carries (`deploy/`).
const AGENTS: &str = "app.kubernetes.io/name=stoker";

/// What became of one Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cleaned {
    /// The Node's name.
    pub node: String,
    /// What of ours was on it.
    pub found: Leftovers,
    /// Taints of ours that it still has, since they weren't named.
    pub taints_left: Vec<String>,
    /// Why (some of) it is still there.
    pub error: Option<ClusterError>,
}

/// Why nothing was done, or not everything can be known.
#[derive(Debug, thiserror::Error)]
#[error("the Nodes can't be listed")]
pub struct UninstallError(#[source] ClusterError);

/// Takes our labels, annotations and conditions, and the taints with a key in `taints`, off every Node. With `dry_run`
/// it only looks.
///
/// # Errors
/// When the Nodes can't be listed. A Node that can't be cleaned is told in its [`Cleaned`].
pub async fn uninstall(
    cluster: &Cluster,
    taints: &[String],
    dry_run: bool,
) -> Result<Vec<Cleaned>, UninstallError> {
    let nodes: Api<Node> = Api::all(cluster.client().clone());
    let mut cleaned = Vec::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let listed = cluster.ask("list the Nodes", nodes.list(&page)).await.map_err(UninstallError)?;
        let each = listed.items.into_iter().map(|node| clean(cluster, &nodes, node, taints, dry_run));
        cleaned.extend(futures::stream::iter(each).buffered(AT_ONCE).collect::<Vec<_>>().await);
        match listed.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(cleaned),
        }
    }
}

/// How many pods of ours there still are: each writes its labels again.
///
/// # Errors
/// When the pods can't be listed.
pub async fn agents_running(cluster: &Cluster) -> Result<usize, ClusterError> {
    let pods: Api<Pod> = Api::all(cluster.client().clone());
    let params = ListParams::default().labels(AGENTS);
    Ok(cluster.ask("list the agents' pods", pods.list_metadata(&params)).await?.items.len())
}

async fn clean(
    cluster: &Cluster,
    nodes: &Api<Node>,
    mut node: Node,
    taints: &[String],
    dry_run: bool,
) -> Cleaned {
    let name = node.metadata.name.clone().unwrap_or_default();
    let found = Leftovers::on(&node, taints);
    let mut cleaned = Cleaned {
        node: name.clone(),
        found: found.clone(),
        taints_left: remaining_taints(&node, taints),
        error: None,
    };
    if dry_run {
        return cleaned;
    }
    let mut patience = Patience::default();
    for tried in 1.. {
        let Err(error) = take_off(cluster, &name, &node, taints).await else { break };
        match error.fault() {
            Fault::NotFound => break,
            // Somebody else wrote to it, or it's a new Node by that name: look again.
            Fault::Conflict | Fault::Invalid | Fault::Transient | Fault::Throttled { .. }
                if tried < TRIES =>
            {
                tokio::time::sleep(patience.after(error.fault(), fastrand::f64())).await;
            }
            _ => {
                cleaned.error = Some(error);
                break;
            }
        }
        match cluster.ask(&format!("read the Node {name}"), nodes.get(&name)).await {
            Ok(again) => {
                node = again;
                cleaned.taints_left = remaining_taints(&node, taints);
            }
            Err(error) if error.fault() == Fault::NotFound => break,
            // The old look will do for the next try.
            Err(_) => {}
        }
    }
    cleaned
}

async fn take_off(cluster: &Cluster, name: &str, node: &Node, taints: &[String]) -> Result<(), ClusterError> {
    let found = Leftovers::on(node, taints);
    if let Some(patch) = found.patch(node) {
        let what = format!("clean the Node {name}");
        cluster.ask(&what, json_patch(cluster, format!("/api/v1/nodes/{name}"), &patch)).await?;
    }
    if let Some(patch) = found.status_patch(node) {
        let what = format!("clean the status of the Node {name}");
        cluster.ask(&what, json_patch(cluster, format!("/api/v1/nodes/{name}/status"), &patch)).await?;
    }
    Ok(())
}

async fn json_patch(cluster: &Cluster, path: String, patch: &Value) -> Result<(), kube::Error> {
    let request = Request::patch(path)
        .header(CONTENT_TYPE, "application/json-patch+json")
        .body(patch.to_string().into_bytes())
        .map_err(kube::Error::HttpError)?;
    cluster.client().request_text(request).await.map(drop)
}
