//! The cluster that all races run on: one node with Stoker on it, an object store, and what is timed by watches.

use std::pin::pin;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, PostParams, WatchEvent, WatchParams};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::parts::{Bed, BedNode, EMPTY, Gpus, Installed, PushedImage, S3, list_of};

/// The only node.
const NODE: &str = "node-a";
/// No watch lasts longer, and nothing here takes as long.
const WATCHED_SECONDS: u32 = 280;
const LIST: &str = "/api/v1/namespaces/stoker-system/configmaps/stoker-list";

/// Such a cluster, with an empty list.
pub(crate) struct Cluster {
    // Dropped in this order.
    /// The cluster and Stoker in it.
    pub(crate) installed: Installed,
    /// Where the weights come from.
    pub(crate) s3: S3,
    client: kube::Client,
}

impl Cluster {
    /// Starts it; ready when Stoker's pod is.
    pub(crate) async fn start() -> Self {
        let s3 = S3::start().await;
        let bed = Bed::start(&[NODE]).await;
        let installed = Installed::on_with(bed, Gpus::healthy(1), EMPTY, |overlay| {
            s3.env().into_iter().fold(overlay, |overlay, (name, value)| overlay.env("agent", name, &value))
        })
        .await;
        let client = installed.bed.control.client().await;
        let cluster = Self { installed, s3, client };
        cluster.clear().await;
        cluster
    }

    /// The node.
    pub(crate) fn node(&self) -> &BedNode {
        self.installed.bed.node(NODE)
    }

    /// Writes the list, and tells how long after the API server's answer a watch shows this label on the Node.
    pub(crate) async fn list_until_label(&self, entries: &[String], key: &str) -> Duration {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let now = nodes.get(NODE).await.expect("the Node is there").metadata.resource_version;
        let watch = WatchParams::default().fields(&format!("metadata.name={NODE}")).timeout(WATCHED_SECONDS);
        let events = nodes.watch(&watch, &now.expect("a version")).await.expect("a watch can begin");
        let answered = self.write_list(entries).await;
        let has = |node: &Node| node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(key));
        shown(events, has).await.unwrap_or_else(|| panic!("the label {key} didn't come"));
        answered.elapsed()
    }

    /// Empties the list, and waits until the Node names nothing warm.
    pub(crate) async fn clear(&self) {
        self.write_list(&[]).await;
        self.installed.wait_labels(NODE, &["stoker.dev/gpu", "stoker.dev/ready"]).await;
    }

    /// Writes the list; gives the moment of the API server's answer.
    async fn write_list(&self, entries: &[String]) -> Instant {
        let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
        let patch = json!({"data": {"list.yaml": list_of(&entries)}});
        self.installed.bed.control.call("PATCH", LIST, Some(&patch)).await;
        Instant::now()
    }

    /// Creates a pod, and tells how long after that request was sent a watch shows it in `phase`. The pod is deleted.
    pub(crate) async fn pod_until(&self, pod: &Value, phase: &str) -> Duration {
        let pods: Api<Pod> = Api::default_namespaced(self.client.clone());
        let pod: Pod = serde_json::from_value(pod.clone()).expect("a pod");
        let sent = Instant::now();
        let created = pods.create(&PostParams::default(), &pod).await.expect("the pod is taken");
        let name = created.metadata.name.expect("a name");
        let version = created.metadata.resource_version.expect("a version");
        let watch = WatchParams::default().fields(&format!("metadata.name={name}")).timeout(WATCHED_SECONDS);
        let events = pods.watch(&watch, &version).await.expect("a watch can begin");
        let phase_of = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone());
        let ends = |pod: &Pod| phase_of(pod).is_some_and(|now| now == phase || now == "Failed");
        let last = shown(events, ends).await;
        let took = sent.elapsed();
        if last.as_ref().and_then(phase_of).as_deref() != Some(phase) {
            let events = self.installed.bed.events_of(&name).await;
            let logs = self.installed.bed.pod_logs(&name).await;
            let status = last.and_then(|pod| serde_json::to_string(&pod.status).ok()).unwrap_or_default();
            panic!("pod {name} isn't {phase}: {status}\n{events:#?}\n{logs}");
        }
        self.installed.bed.control.kubectl_ok(&["delete", "pod", &name, "--wait"]).await;
        took
    }

    /// Takes an image away as `crictl rmi` does, and waits until its snapshots and layers are gone too.
    pub(crate) async fn remove_image(&self, image: &PushedImage) {
        self.node().remove_image(&image.by_tag()).await;
        let gone = async || {
            let snapshots = self.node().ctr(&["snapshots", "ls"]).await;
            let content = self.node().ctr(&["content", "ls", "--quiet"]).await;
            let left = String::from_utf8_lossy(&[snapshots.stdout, content.stdout].concat()).into_owned();
            let layers = image.layers.iter().map(|layer| layer.digest.to_string());
            let mut names = layers.chain([image.chain_id.to_string()]);
            (!names.any(|name| left.contains(&name))).then_some(())
        };
        self.installed.wait(NODE, "the image to be gone", Duration::from_secs(120), gone).await;
    }
}

/// The first object of a watch that `is` what is waited for; `None` when the watch ends before.
async fn shown<K>(
    events: impl futures::Stream<Item = kube::Result<WatchEvent<K>>>,
    is: impl Fn(&K) -> bool,
) -> Option<K> {
    let mut events = pin!(events);
    while let Some(event) = events.next().await {
        match event.expect("a watch goes on") {
            WatchEvent::Added(object) | WatchEvent::Modified(object) if is(&object) => return Some(object),
            WatchEvent::Error(error) => panic!("the watch broke: {error:?}"),
            _ => {}
        }
    }
    None
}

/// A pod whose one container runs a shell script once, with more in its container and in its spec.
pub(crate) fn pod(name: &str, image: &str, script: &str, container: Value, spec: Value) -> Value {
    let mut own = json!({
        "name": "it",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-c", script],
    });
    let mut all = json!({"hostNetwork": true, "terminationGracePeriodSeconds": 1, "restartPolicy": "Never"});
    extend(&mut own, container);
    extend(&mut all, spec);
    all["containers"] = json!([own]);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": all})
}

fn extend(value: &mut Value, more: Value) {
    let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) else {
        panic!("these are objects")
    };
    value.extend(more);
}
