//! The test cluster: a control plane, a registry, and nodes with real kubelets.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::bed_node::BedNode;
use super::control_plane::ControlPlane;
use super::cri::pause_image;
use super::programs::system;
use super::registry::Registry;
use super::scratch::Scratch;
use super::wait::{START, within_asking};

/// How often a cluster is asked while it is waited for: more would only slow it down.
const POLL: Duration = Duration::from_millis(50);

/// What a test may want otherwise.
#[derive(Debug, Clone, Default)]
pub(crate) struct BedOptions {
    /// Fields of kubelet's configuration (kubelet.config.k8s.io/v1beta1), such as `registerWithTaints` or
    /// `imageGCHighThresholdPercent`.
    pub(crate) kubelet: Value,
    /// Files and directories of the machine that runs the test, each with its path on the nodes.
    pub(crate) binds: Vec<(PathBuf, String)>,
}

/// A cluster on one machine; only one at a time in a process, others wait for it.
///
/// Its nodes have directories and processes of their own, but the machine's network: a port that a pod listens on
/// is taken on both nodes. Pods on the host's network reach the API server as in any cluster; others have a loopback
/// of their own and reach nobody, so that only files and sockets, and probes by `exec`, work there.
#[derive(Debug)]
pub(crate) struct Bed {
    // Dropped in this order.
    nodes: Vec<BedNode>,
    /// The control plane.
    pub(crate) control: ControlPlane,
    /// A registry of plain HTTP that the nodes trust.
    pub(crate) registry: Registry,
    _room: SemaphorePermit<'static>,
}

impl Bed {
    /// Starts a cluster with these nodes; ready when pods can be scheduled to each.
    pub(crate) async fn start(nodes: &[&str]) -> Self {
        Self::start_with(nodes, &BedOptions::default()).await
    }

    /// The same, with options.
    pub(crate) async fn start_with(names: &[&str], options: &BedOptions) -> Self {
        static ROOM: Semaphore = Semaphore::const_new(1);
        let room = ROOM.acquire().await.expect("it is never closed");
        let (mut control, (registry, pause)) =
            tokio::join!(ControlPlane::start_naming(names), registry_with_pause());
        let (host, url) = (registry.host(), registry.url());
        let start = names.iter().map(|name| BedNode::start(name, &control, (&host, &url), &pause, options));
        let (controllers, nodes) =
            tokio::join!(control.start_controllers(), futures::future::join_all(start));
        control.controllers = controllers;
        let bed = Self { nodes, control, registry, _room: room };
        for name in names {
            bed.wait(&format!("node {name} to be ready"), START, async || bed.schedulable(name).await).await;
        }
        bed
    }

    /// The names of its nodes.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.nodes.iter().map(BedNode::name).collect()
    }

    /// A node.
    pub(crate) fn node(&self, name: &str) -> &BedNode {
        let node = self.nodes.iter().find(|node| node.name() == name);
        node.unwrap_or_else(|| panic!("there is no node {name}"))
    }

    /// The same, to kill something there or start it again.
    pub(crate) fn node_mut(&mut self, name: &str) -> &mut BedNode {
        let node = self.nodes.iter_mut().find(|node| node.name() == name);
        node.unwrap_or_else(|| panic!("there is no node {name}"))
    }

    /// Asks `condition` until it gives something, and gives that.
    ///
    /// # Panics
    /// When `deadline` passes first; what the cluster looks like then is printed.
    pub(crate) async fn wait<T>(
        &self,
        what: &str,
        deadline: Duration,
        condition: impl AsyncFnMut() -> Option<T>,
    ) -> T {
        if let Some(value) = within_asking(POLL, deadline, condition).await {
            return value;
        }
        for args in [
            ["get", "nodes,pods", "--all-namespaces", "--output=wide"],
            ["get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"],
        ] {
            let output = self.control.kubectl(&args).await;
            eprintln!("--- kubectl {}\n{}", args.join(" "), String::from_utf8_lossy(&output.stdout));
        }
        panic!("waited {deadline:?} for {what}: it didn't come");
    }

    /// Waits until a pod runs and all its containers are ready; gives the pod. Pods are named `NAMESPACE/NAME`, or
    /// by their name alone in the namespace `default`.
    pub(crate) async fn pod_running(&self, pod: &str) -> Value {
        let running = async || {
            let pod = self.get_pod(pod).await?;
            let containers = pod["status"]["containerStatuses"].as_array()?;
            let ready = containers.iter().all(|container| container["ready"] == true);
            (pod["status"]["phase"] == "Running" && ready).then(|| pod.clone())
        };
        self.wait(&format!("pod {pod} to run"), START, running).await
    }

    /// What all containers of a pod have logged.
    pub(crate) async fn pod_logs(&self, pod: &str) -> String {
        let (namespace, name) = split(pod);
        self.control.kubectl_ok(&["logs", "--namespace", namespace, name, "--all-containers"]).await
    }

    /// The events of a pod as `REASON: MESSAGE`, in the order in which they came.
    pub(crate) async fn events_of(&self, pod: &str) -> Vec<String> {
        let (namespace, name) = split(pod);
        let path = format!("/api/v1/namespaces/{namespace}/events?fieldSelector=involvedObject.name={name}");
        let events = self.control.call("GET", &path, None).await;
        let mut events = events["items"].as_array().cloned().unwrap_or_default();
        let version = |event: &Value| event["metadata"]["resourceVersion"].as_str()?.parse::<u64>().ok();
        events.sort_by_key(version);
        let text = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
        events.iter().map(|event| format!("{}: {}", text(event, "reason"), text(event, "message"))).collect()
    }

    /// The labels of a Node.
    pub(crate) async fn node_labels(&self, name: &str) -> BTreeMap<String, String> {
        let node = self.control.call("GET", &format!("/api/v1/nodes/{name}"), None).await;
        serde_json::from_value(node["metadata"]["labels"].clone()).expect("labels are text")
    }

    async fn get_pod(&self, pod: &str) -> Option<Value> {
        let (namespace, name) = split(pod);
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
        self.control.try_call("GET", &path, None).await.ok()
    }

    /// Whether a node is ready and has none of the cluster's own taints.
    async fn schedulable(&self, name: &str) -> Option<()> {
        let node = self.control.try_call("GET", &format!("/api/v1/nodes/{name}"), None).await.ok()?;
        let conditions = node["status"]["conditions"].as_array()?;
        let ready = conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
        let own =
            |taint: &Value| taint["key"].as_str().is_some_and(|key| key.starts_with("node.kubernetes.io/"));
        let tainted = node["spec"]["taints"].as_array().is_some_and(|taints| taints.iter().any(own));
        (ready && !tainted).then_some(())
    }
}

fn split(pod: &str) -> (&str, &str) {
    pod.split_once('/').unwrap_or(("default", pod))
}

/// A registry, and the reference of the sandboxes' image in it.
async fn registry_with_pause() -> (Registry, String) {
    let registry = Registry::start().await;
    let pause = registry.push(&pause_image(), "pause", "1").await.by_tag();
    (registry, pause)
}
