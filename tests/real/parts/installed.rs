//! Stoker in a test cluster, as `kubectl apply -k` installs it: the shipped DaemonSet's own pod, with its own token.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::agent::Status;
use super::bed::Bed;
use super::free_port::FreePort;
use super::gpu::Gpus;
use super::http;
use super::image::{ImageBuilder, Layer};
use super::overlay::Overlay;
use super::push::PushedImage;
use super::registry::Registry;
use super::stoker_image::stoker_image;
use super::wait::{START, within_asking};

/// The namespace of all that is installed.
pub(crate) const NAMESPACE: &str = "stoker-system";
/// The words by which its process is known among those of a node's pods.
pub(crate) const AGENT: &str = "stoker agent --list-configmap";
/// The list of a test that has nothing to list yet.
pub(crate) const EMPTY: &str = "apiVersion: stoker.dev/v1\nkind: PrefetchList\nentries: []\n";

const POLL: Duration = Duration::from_millis(50);
/// What every label and annotation of ours begins with.
const PREFIXES: [&str; 3] = ["stoker.dev/", "image.stoker.dev/", "weights.stoker.dev/"];

/// A cluster in which Stoker runs on every node that has a kubelet.
pub(crate) struct Installed {
    // Dropped in this order: the nodes see the GPUs' directory.
    /// The cluster.
    pub(crate) bed: Bed,
    /// The GPUs and the driver of every node.
    pub(crate) gpus: Gpus,
    /// The agent's image, as the DaemonSet names it.
    pub(crate) image: String,
    overlay: Overlay,
    http: FreePort,
}

impl Installed {
    /// Installs it with two GPUs, a healthy driver and an empty list; ready when its pod is.
    pub(crate) async fn on(bed: Bed) -> Self {
        Self::on_with(bed, Gpus::healthy(2), EMPTY, |overlay| overlay).await
    }

    /// The same with these GPUs, this list and more in the overlay: [`Overlay::without_http`] where there are several
    /// nodes, since they share one network.
    pub(crate) async fn on_with(
        bed: Bed,
        gpus: Gpus,
        list: &str,
        more: impl FnOnce(Overlay) -> Overlay,
    ) -> Self {
        let built = tokio::task::spawn_blocking(stoker_image).await.expect("the image can be built");
        let image = bed.registry.push(&built, "stoker", "test").await.by_tag();
        let http = FreePort::find();
        let overlay = Overlay::new(&image)
            .with_gpus(&gpus)
            .http_on(http.number())
            .env("agent", "STOKER_ALLOW_SCHEMES", "https,http,s3")
            .env("agent", "STOKER_GPU_INTERVAL", "0.5")
            .env("agent", "STOKER_FLEET_SPREAD", "0")
            .env("gpu-probe", "STOKER_GPU_INTERVAL", "0.5");
        let overlay = more(overlay);
        let installed = Self { bed, gpus, image, overlay, http };
        installed.apply().await;
        installed.apply_list(list).await;
        for node in installed.bed.names() {
            installed.agent_ready(node).await;
        }
        installed
    }

    /// Applies the overlay, again after it was changed.
    pub(crate) async fn apply(&self) {
        let path = self.overlay.path();
        let path = path.to_str().expect("a path in text");
        self.bed.control.kubectl_ok(&["apply", "--server-side", "-k", path]).await;
    }

    /// Has the cluster have this document as the list.
    pub(crate) async fn apply_list(&self, document: &str) {
        let list = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "stoker-list", "namespace": NAMESPACE},
            "data": {"list.yaml": document},
        });
        self.bed.control.apply(&list.to_string()).await;
    }

    /// A list of these entries, each a YAML mapping in one line, as the cluster's.
    pub(crate) async fn list(&self, entries: &[&str]) {
        self.apply_list(&list_of(entries)).await;
    }

    /// The agent's pod on a node; `None` while there is none that is to stay.
    pub(crate) async fn agent_pod(&self, node: &str) -> Option<Value> {
        let path = format!(
            "/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=app.kubernetes.io/name=stoker\
             &fieldSelector=spec.nodeName={node}"
        );
        let pods = self.bed.control.try_call("GET", &path, None).await.ok()?;
        let stays = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
        pods["items"].as_array()?.iter().find(stays).cloned()
    }

    /// Waits until the agent's pod on a node is ready, and gives it.
    pub(crate) async fn agent_ready(&self, node: &str) -> Value {
        let ready = async || {
            let pod = self.agent_pod(node).await?;
            let conditions = pod["status"]["conditions"].as_array()?;
            let ready = conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
            ready.then_some(pod)
        };
        self.wait(node, "the agent's pod to be ready", START, ready).await
    }

    /// All that the agent's container on a node has logged since it was started the last time, and what it logged
    /// before that.
    pub(crate) fn agent_logs(&self, node: &str) -> String {
        let mut logs = String::new();
        let below = |dir: &std::path::Path| {
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
            paths.sort();
            paths
        };
        for pod in below(&self.bed.node(node).host_path("/var/log/pods")) {
            let ours = pod.file_name().is_some_and(|name| name.to_string_lossy().starts_with(NAMESPACE));
            for log in below(&pod.join("agent")).into_iter().filter(|_| ours) {
                logs += &String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default());
            }
        }
        logs
    }

    /// What `stoker status --json` says on a node; `None` while the agent doesn't answer.
    pub(crate) async fn status(&self, node: &str) -> Option<Status> {
        Status::of_socket(&self.bed.node(node).host_path("/run/stoker/stoker.sock")).await
    }

    /// Waits until the status on a node is as `condition` says, and gives it.
    pub(crate) async fn wait_status(
        &self,
        node: &str,
        what: &str,
        condition: impl Fn(&Status) -> bool,
    ) -> Status {
        self.wait(node, what, START, async || self.status(node).await.filter(|status| condition(status)))
            .await
    }

    /// The labels of ours on a Node.
    pub(crate) async fn labels(&self, node: &str) -> BTreeMap<String, String> {
        own(&self.node(node).await["metadata"]["labels"])
    }

    /// A Node.
    pub(crate) async fn node(&self, node: &str) -> Value {
        self.bed.control.call("GET", &format!("/api/v1/nodes/{node}"), None).await
    }

    /// Waits until a Node has these labels of ours and no others, and gives them.
    pub(crate) async fn wait_labels(&self, node: &str, keys: &[&str]) -> BTreeMap<String, String> {
        let are = async || {
            let node = self.bed.control.try_call("GET", &format!("/api/v1/nodes/{node}"), None).await.ok()?;
            let labels = own(&node["metadata"]["labels"]);
            labels.keys().map(String::as_str).eq(keys.iter().copied()).then_some(labels)
        };
        self.wait(node, &format!("the labels {keys:?}"), START, are).await
    }

    /// Waits until a Node has this label, and gives its value.
    pub(crate) async fn wait_label(&self, node: &str, key: &str) -> String {
        let value = async || {
            let node = self.bed.control.try_call("GET", &format!("/api/v1/nodes/{node}"), None).await.ok()?;
            node["metadata"]["labels"][key].as_str().map(str::to_owned)
        };
        self.wait(node, &format!("the label {key}"), START, value).await
    }

    /// The events about a Node as `REASON: MESSAGE`, in the order in which they came.
    pub(crate) async fn events(&self, node: &str) -> Vec<String> {
        self.bed.events_of(node).await
    }

    /// `/metrics` of the agent. Only with one node: on a network that they share only one agent has the port.
    pub(crate) async fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.http.address());
        let answer = http::client().get(url).send().await.expect("the agent answers");
        answer.text().await.expect("the metrics are text")
    }

    /// The value of one line of the metrics, such as `stoker_list_errors`; `None` where there's no such line.
    pub(crate) async fn metric(&self, line: &str) -> Option<f64> {
        let text = self.metrics().await;
        text.lines().find_map(|one| one.strip_prefix(line)?.trim().parse().ok())
    }

    /// Pushes an image of a few MB in several layers, with a shell; another `text` is another image.
    pub(crate) async fn push_app(&self, repository: &str, text: &str) -> PushedImage {
        push_app(&self.bed.registry, repository, text).await
    }

    /// Asks `condition` until it gives something, and gives that.
    ///
    /// # Panics
    /// When `deadline` passes first; what the node's agent says and what it has logged is printed.
    pub(crate) async fn wait<T>(
        &self,
        node: &str,
        what: &str,
        deadline: Duration,
        condition: impl AsyncFnMut() -> Option<T>,
    ) -> T {
        if let Some(value) = within_asking(POLL, deadline, condition).await {
            return value;
        }
        let logs = self.agent_logs(node);
        let lines: Vec<&str> = logs.lines().collect();
        eprintln!("--- the agent's log\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        eprintln!("--- its status\n{:#?}", self.status(node).await);
        self.bed.wait(what, Duration::ZERO, async || None).await
    }
}

/// The same before anything is installed.
pub(crate) async fn push_app(registry: &Registry, repository: &str, text: &str) -> PushedImage {
    let mut image = ImageBuilder::new().with_index();
    for path in ["/bin/sh", "/bin/sleep", "/bin/cat", "/usr/bin/sha256sum"] {
        image = image.layer(Layer::new().program(path));
    }
    image = image.layer(Layer::new().file("text", text, 0o644)).entrypoint(&["/bin/sh", "-c"]);
    let image = image.with("Cmd", json!(["exec sleep 1000"]));
    registry.push(&image.build(), repository, "v1").await
}

/// A list document of these entries, each a YAML mapping in one line.
pub(crate) fn list_of(entries: &[&str]) -> String {
    let head = "apiVersion: stoker.dev/v1\nkind: PrefetchList\n";
    if entries.is_empty() {
        return EMPTY.to_owned();
    }
    entries.iter().fold(format!("{head}entries:\n"), |list, entry| format!("{list}- {{{entry}}}\n"))
}

fn own(labels: &Value) -> BTreeMap<String, String> {
    let labels: BTreeMap<String, String> = serde_json::from_value(labels.clone()).unwrap_or_default();
    labels.into_iter().filter(|(key, _)| PREFIXES.iter().any(|prefix| key.starts_with(prefix))).collect()
}
