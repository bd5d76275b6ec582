//! What the API server lets the agent do with the token of its pod: what is shipped in `deploy/` allows what the agent
//! does, and nothing more.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::parts::{ControlPlane, until};

const MERGE: &str = "application/merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";
const JSON: &str = "application/json";
const JSON_PATCH: &str = "application/json-patch+json";

const OWN: &str = "/api/v1/nodes/node-a";
const OTHER: &str = "/api/v1/nodes/node-b";
const TAINT: &str = "stoker.dev/not-ready";

/// The agent's pod, with the token that kubelet would give it, and objects that are not its own.
const OBJECTS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: stoker-a, namespace: stoker-system}
spec:
  serviceAccountName: stoker
  nodeName: node-a
  containers: [{name: agent, image: none}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: stoker-list, namespace: stoker-system}
data: {list.yaml: 'entries: []'}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: other, namespace: stoker-system}
---
apiVersion: v1
kind: Secret
metadata: {name: other, namespace: stoker-system}
";

/// A cluster with two Nodes in which Stoker is installed, and two holders of its account's tokens.
struct Installed {
    control: ControlPlane,
    /// With the token of the pod on node-a.
    agent: kube::Client,
    /// With a token of the same account that is bound to no pod.
    unbound: kube::Client,
}

impl Installed {
    async fn start() -> Self {
        let control = ControlPlane::start().await;
        for node in ["node-a", "node-b"] {
            control.fake_node(node).await;
            let taints = json!([
                {"key": "example.com/first", "effect": "NoSchedule"},
                {"key": TAINT, "effect": "NoSchedule"},
                {"key": "example.com/last", "value": "x", "effect": "NoExecute"},
            ]);
            let metadata = json!({"annotations": {"example.com/kept": "yes"}});
            let own = json!({"spec": {"taints": taints}, "metadata": metadata});
            control.call("PATCH", &format!("/api/v1/nodes/{node}"), Some(&own)).await;
        }
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
        let deploy = deploy.to_str().expect("a path in text");
        control.kubectl_ok(&["apply", "--server-side", "-k", deploy]).await;
        control.apply(OBJECTS).await;
        let pod = control.call("GET", "/api/v1/namespaces/stoker-system/pods/stoker-a", None).await;
        let uid = pod["metadata"]["uid"].as_str().expect("a uid").to_owned();
        let holder = async |pod| {
            let token = control.token("stoker-system", "stoker", pod, 3600).await;
            control.client_of(&control.kubeconfig_for_token(&token)).await
        };
        let (agent, unbound) = (holder(Some(("stoker-a", &*uid))).await, holder(None).await);
        let installed = Self { control, agent, unbound };
        installed.until_in_force().await;
        installed
    }

    /// A policy is in force about a second after it was made.
    async fn until_in_force(&self) {
        let path = format!("{OTHER}?dryRun=All");
        let body = json!({"metadata": {"labels": {"stoker.dev/gpu": "ready"}}});
        until("the policy to be in force", Duration::from_secs(60), async || {
            send(&self.agent, "PATCH", &path, MERGE, &body).await.err()
        })
        .await;
    }

    async fn refuses(&self, what: &str, (method, path, kind, body): Request<'_>, words: &str) {
        refused(&self.agent, what, (method, path, kind, body), words).await;
    }

    /// What the API server has of a Node without what is written by itself.
    async fn node(&self, path: &str) -> Value {
        let mut node = self.control.call("GET", path, None).await;
        for field in ["managedFields", "resourceVersion"] {
            node["metadata"].as_object_mut().expect("an object").remove(field);
        }
        node
    }
}

/// Method, path, content type, body.
type Request<'a> = (&'a str, &'a str, &'a str, Value);

/// Sends a request; an answer that isn't 2xx is its code and what the API server says.
async fn send(
    client: &kube::Client,
    method: &str,
    path: &str,
    kind: &str,
    body: &Value,
) -> Result<Value, (u16, String)> {
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let request = http::Request::builder().method(method).uri(path).header("content-type", kind);
    match client.request(request.body(body).expect("a request")).await {
        Ok(answer) => Ok(answer),
        Err(kube::Error::Api(status)) => Err((status.code, status.message.clone())),
        Err(error) => panic!("{method} {path}: {error}"),
    }
}

/// Asserts that a request is refused with 403 and these words.
async fn refused(client: &kube::Client, what: &str, (method, path, kind, body): Request<'_>, words: &str) {
    match send(client, method, path, kind, &body).await {
        Err((403, message)) => assert!(message.contains(words), "{what}: {message}"),
        other => panic!("{what}: not refused: {other:?}"),
    }
}

/// Asserts that a request is let through.
async fn allowed(client: &kube::Client, what: &str, (method, path, kind, body): Request<'_>) -> Value {
    let answer = send(client, method, path, kind, &body).await;
    answer.unwrap_or_else(|error| panic!("{what}: {error:?}"))
}

fn merge(path: &str, body: Value) -> Request<'_> {
    ("PATCH", path, MERGE, body)
}

fn get(path: &str) -> Request<'_> {
    ("GET", path, JSON, Value::Null)
}

fn status() -> String {
    format!("{OWN}/status")
}

const LABELS: &str =
    "the Stoker agent may only change labels under stoker.dev/, image.stoker.dev/ and weights.stoker.dev/";
const ANNOTATIONS: &str = "the Stoker agent may only change annotations under stoker.dev/";
const METADATA: &str = "the Stoker agent may change no metadata but labels and annotations";
const SPEC: &str = "the Stoker agent may change nothing in a Node's spec but its taints";
const TAINTS: &str = "the Stoker agent may only take taints off, and only stoker.dev/not-ready";
const STATUS: &str = "the Stoker agent may change nothing in a Node's status but conditions";
const CONDITIONS: &str = "the Stoker agent may only change conditions under stoker.dev/";

#[tokio::test]
async fn the_agents_token_writes_nothing_but_its_own_on_its_own_node() {
    let installed = Installed::start().await;
    let before = (installed.node(OWN).await, installed.node(OTHER).await);
    assert_eq!(before.0["spec"]["taints"].as_array().expect("taints").len(), 3);

    another_node(&installed).await;
    keys_of_others(&installed).await;
    taints_of_others(&installed).await;
    fields_of_others(&installed).await;
    other_objects(&installed).await;
    let mine = json!({"metadata": {"labels": {"stoker.dev/gpu": "ready"}}});
    let no_node = "the Stoker agent's token names no node";
    refused(&installed.unbound, "a token that is bound to no pod", merge(OWN, mine), no_node).await;

    assert_eq!((installed.node(OWN).await, installed.node(OTHER).await), before, "nothing has changed");
    whatever_rbac_says(&installed).await;
    assert_eq!((installed.node(OWN).await, installed.node(OTHER).await), before, "nothing has changed");
}

async fn another_node(installed: &Installed) {
    let words = "the Stoker agent on node node-a may not change node node-b";
    let label = json!({"metadata": {"labels": {"stoker.dev/gpu": "ready"}}});
    installed.refuses("a label of ours on another Node", merge(OTHER, label), words).await;
    let untaint = json!([{"op": "remove", "path": "/spec/taints/1"}]);
    installed.refuses("another Node's taint", ("PATCH", OTHER, JSON_PATCH, untaint), words).await;
    let status = format!("{OTHER}/status");
    let conditions = json!({"status": {"conditions": []}});
    installed.refuses("another Node's status", merge(&status, conditions), words).await;
}

async fn keys_of_others(installed: &Installed) {
    let looks_alike =
        ["xstoker.dev/x", "stoker.dev.evil/x", "a.stoker.dev/x", "images.stoker.dev/x", "stoker.dev"];
    for key in ["example.com/x", "x", "node-restriction.kubernetes.io/x"].into_iter().chain(looks_alike) {
        let label = json!({"metadata": {"labels": {key: "x"}}});
        installed.refuses(&format!("the label {key}"), merge(OWN, label), LABELS).await;
        let annotation = json!({"metadata": {"annotations": {key: "x"}}});
        installed.refuses(&format!("the annotation {key}"), merge(OWN, annotation), ANNOTATIONS).await;
    }
    for (what, value) in [("changed", json!("x")), ("taken off", Value::Null)] {
        let label = json!({"metadata": {"labels": {"kubernetes.io/hostname": value}}});
        installed.refuses(&format!("a foreign label {what}"), merge(OWN, label.clone()), LABELS).await;
        installed.refuses(&format!("through the status, {what}"), merge(&status(), label), LABELS).await;
        let annotation = json!({"metadata": {"annotations": {"example.com/kept": value}}});
        installed.refuses(&format!("a foreign annotation {what}"), merge(OWN, annotation), ANNOTATIONS).await;
    }
    // What is a label of ours isn't an annotation of ours.
    let annotation = json!({"metadata": {"annotations": {"image.stoker.dev/x": "x"}}});
    installed.refuses("an annotation under a prefix of labels", merge(OWN, annotation), ANNOTATIONS).await;
    let applied = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "node-a", "labels": {"stoker.dev/gpu": "ready", "example.com/x": "x"}},
    });
    let path = format!("{OWN}?fieldManager=stoker&force=true");
    installed.refuses("a foreign label beside our own", ("PATCH", &path, APPLY, applied), LABELS).await;
}

async fn taints_of_others(installed: &Installed) {
    let new = |key: &str| json!({"key": key, "effect": "NoSchedule"});
    let patches = [
        ("a taint added", json!([{"op": "add", "path": "/spec/taints/-", "value": new("example.com/new")}])),
        (
            "a taint of ours added",
            json!([{"op": "add", "path": "/spec/taints/-", "value": new("stoker.dev/other")}]),
        ),
        (
            "a taint changed",
            json!([{"op": "replace", "path": "/spec/taints/0/effect", "value": "NoExecute"}]),
        ),
        (
            "our taint changed",
            json!([{"op": "replace", "path": "/spec/taints/1/effect", "value": "PreferNoSchedule"}]),
        ),
        ("a taint taken off", json!([{"op": "remove", "path": "/spec/taints/2"}])),
        ("all taints taken off", json!([{"op": "remove", "path": "/spec/taints"}])),
    ];
    for (what, patch) in patches {
        installed.refuses(what, ("PATCH", OWN, JSON_PATCH, patch), TAINTS).await;
    }
}

async fn fields_of_others(installed: &Installed) {
    let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": "node-b", "uid": "1"}]);
    for (what, fields, words) in [
        ("finalizers", json!({"metadata": {"finalizers": ["example.com/x"]}}), METADATA),
        ("owners", json!({"metadata": {"ownerReferences": owner}}), METADATA),
        ("unschedulable", json!({"spec": {"unschedulable": true}}), SPEC),
        ("the provider's id", json!({"spec": {"providerID": "x://y"}}), SPEC),
    ] {
        installed.refuses(what, merge(OWN, fields), words).await;
    }
    let image = json!([{"names": ["example.com/x:1"], "sizeBytes": 1}]);
    for (field, value) in [
        ("capacity", json!({"cpu": "9"})),
        ("allocatable", json!({"nvidia.com/gpu": "8"})),
        ("images", image),
        ("addresses", json!([{"type": "InternalIP", "address": "192.0.2.1"}])),
        ("nodeInfo", json!({"bootID": "x"})),
        ("volumesInUse", json!(["x"])),
    ] {
        installed.refuses(field, merge(&status(), json!({"status": {field: value}})), STATUS).await;
    }
    let condition =
        |kind: &str, value: &str| json!({"type": kind, "status": value, "reason": "X", "message": ""});
    let applied = |conditions: Value| {
        let metadata = json!({"name": "node-a"});
        json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata, "status": {"conditions": conditions}})
    };
    let path = format!("{}?fieldManager=stoker&force=true", status());
    for kind in ["Ready", "DiskPressure", "example.com/X", "xstoker.dev/GPUReady"] {
        let body = applied(json!([condition("stoker.dev/GPUReady", "True"), condition(kind, "False")]));
        installed.refuses(&format!("the condition {kind}"), ("PATCH", &path, APPLY, body), CONDITIONS).await;
    }
    let none = json!({"status": {"conditions": []}});
    installed.refuses("kubelet's condition taken off", merge(&status(), none), CONDITIONS).await;
}

async fn other_objects(installed: &Installed) {
    let own = "/api/v1/namespaces/stoker-system";
    for (what, path) in [
        ("another ConfigMap", format!("{own}/configmaps/other")),
        ("all ConfigMaps of its namespace", format!("{own}/configmaps")),
        ("all ConfigMaps", "/api/v1/configmaps".to_owned()),
        ("a Secret", format!("{own}/secrets/other")),
        ("all Secrets", "/api/v1/secrets".to_owned()),
        ("its own pod", format!("{own}/pods/stoker-a")),
        ("the policy", "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies".to_owned()),
        ("a watch on all ConfigMaps", format!("{own}/configmaps?watch=true")),
    ] {
        installed.refuses(what, get(&path), "is forbidden: User").await;
    }
    let list = format!("{own}/configmaps/stoker-list");
    installed.refuses("writing the list", merge(&list, json!({"data": null})), "cannot patch").await;
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-c"}});
    installed.refuses("a new Node", ("POST", "/api/v1/nodes", JSON, node.clone()), "cannot create").await;
    let applied = ("PATCH", "/api/v1/nodes/node-c?fieldManager=stoker", APPLY, node);
    installed.refuses("a new Node, applied", applied, "cannot create").await;
    installed.refuses("deleting its Node", ("DELETE", OWN, JSON, Value::Null), "cannot delete").await;
    let events = format!("{own}/events");
    installed
        .refuses("an event elsewhere", ("POST", &events, JSON, event("stoker-system")), "cannot create")
        .await;
    let events = "/api/v1/namespaces/default/events";
    installed.refuses("reading events", get(events), "cannot list").await;
}

/// The policy holds by itself: also an account that was given every right writes to its own Node only.
async fn whatever_rbac_says(installed: &Installed) {
    let account = "--serviceaccount=stoker-system:stoker";
    let bind = ["create", "clusterrolebinding", "too-much", "--clusterrole=cluster-admin", account];
    installed.control.kubectl_ok(&bind).await;
    // Rights are in force a moment later.
    let secrets = "/api/v1/secrets";
    until("the rights to be in force", Duration::from_secs(60), async || {
        send(&installed.agent, "GET", secrets, JSON, &Value::Null).await.ok()
    })
    .await;
    let words = "the Stoker agent may not create or delete a Node";
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-c"}});
    installed.refuses("a new Node", ("POST", "/api/v1/nodes", JSON, node.clone()), words).await;
    let applied = ("PATCH", "/api/v1/nodes/node-c?fieldManager=stoker", APPLY, node);
    installed.refuses("a new Node, applied", applied, words).await;
    for node in [OWN, OTHER] {
        installed.refuses("deleting a Node", ("DELETE", node, JSON, Value::Null), words).await;
    }
    installed.refuses("all Nodes", ("DELETE", "/api/v1/nodes", JSON, Value::Null), words).await;
    let label = json!({"metadata": {"labels": {"stoker.dev/gpu": "ready"}}});
    let words = "may not change node node-b";
    installed.refuses("another Node", merge(OTHER, label), words).await;
}

fn event(namespace: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "node-a.1", "namespace": namespace},
        "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": "node-a", "uid": "1"},
        "reason": "GPUReady",
        "message": "the driver answers",
        "type": "Normal",
        "source": {"component": "stoker"},
    })
}

#[tokio::test]
async fn what_the_agent_does_is_allowed_and_others_are_not_touched_by_the_policy() {
    let installed = Installed::start().await;
    let agent = &installed.agent;
    let uid = installed.node(OWN).await["metadata"]["uid"].clone();
    let list = "/api/v1/namespaces/stoker-system/configmaps";
    allowed(agent, "the list", get(&format!("{list}/stoker-list"))).await;
    allowed(agent, "the list by name", get(&format!("{list}?fieldSelector=metadata.name%3Dstoker-list")))
        .await;
    allowed(agent, "its Node", get(OWN)).await;
    allowed(agent, "its Node by name", get("/api/v1/nodes?fieldSelector=metadata.name%3Dnode-a")).await;

    let path = format!("{OWN}?fieldManager=stoker&force=true");
    let apply = |labels: Value, annotations: Value| {
        let metadata = json!({"name": "node-a", "uid": uid, "labels": labels, "annotations": annotations});
        ("PATCH", path.as_str(), APPLY, json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata}))
    };
    let labels = json!({
        "stoker.dev/gpu": "ready",
        "stoker.dev/ready": "true",
        "image.stoker.dev/vllm": "0123456789ab",
        "weights.stoker.dev/llama-70b": "0123456789ab",
    });
    let annotations = json!({"stoker.dev/status": "{}", "stoker.dev/boot-id": "x"});
    let node = allowed(agent, "labels and annotations", apply(labels, annotations)).await;
    assert_eq!(node["metadata"]["labels"]["weights.stoker.dev/llama-70b"], "0123456789ab");
    let fewer = apply(json!({"stoker.dev/gpu": "ready"}), json!({"stoker.dev/status": "{}"}));
    let node = allowed(agent, "labels dropped", fewer).await;
    assert_eq!(node["metadata"]["labels"]["weights.stoker.dev/llama-70b"], Value::Null);
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], "node-a");
    let stray = json!({"metadata": {"uid": uid, "labels": {"stoker.dev/gpu": null}}});
    allowed(agent, "a label of ours that another manager owns", merge(OWN, stray)).await;

    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let condition =
        json!({"type": "stoker.dev/Warm", "status": "True", "reason": "AllWarm", "lastTransitionTime": now});
    let body = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "node-a", "uid": uid},
        "status": {"conditions": [condition]},
    });
    let path = format!("{}?fieldManager=stoker&force=true", status());
    let node = allowed(agent, "conditions", ("PATCH", &path, APPLY, body)).await;
    let kinds: Vec<_> = node["status"]["conditions"].as_array().expect("conditions").iter().collect();
    assert!(kinds.iter().any(|one| one["type"] == "stoker.dev/Warm"), "{kinds:?}");
    assert!(kinds.iter().any(|one| one["type"] == "Ready"), "{kinds:?}");

    let untaint = json!([
        {"op": "test", "path": "/metadata/uid", "value": uid},
        {"op": "test", "path": "/spec/taints/1", "value": {"key": TAINT, "effect": "NoSchedule"}},
        {"op": "remove", "path": "/spec/taints/1"},
    ]);
    let node = allowed(agent, "its taint taken off", ("PATCH", OWN, JSON_PATCH, untaint)).await;
    assert_eq!(node["spec"]["taints"].as_array().expect("taints").len(), 2);

    let events = "/api/v1/namespaces/default/events";
    allowed(agent, "an event", ("POST", events, JSON, event("default"))).await;
    let again = merge("/api/v1/namespaces/default/events/node-a.1", json!({"count": 2}));
    allowed(agent, "the same event again", again).await;
    let event = json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "node-a.2", "namespace": "default"},
        "regarding": {"apiVersion": "v1", "kind": "Node", "name": "node-a", "uid": "1"},
        "eventTime": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
        "reason": "GPUReady",
        "action": "Probe",
        "type": "Normal",
        "reportingController": "stoker.dev/agent",
        "reportingInstance": "node-a",
    });
    let events = "/apis/events.k8s.io/v1/namespaces/default/events";
    allowed(agent, "an event of the newer kind", ("POST", events, JSON, event)).await;

    // Whoever isn't the agent writes as before, also when all of Stoker is deleted but its policy.
    installed.control.kubectl_ok(&["delete", "namespace", "stoker-system", "--wait=false"]).await;
    let foreign = json!({"metadata": {"labels": {"example.com/x": "x"}}, "spec": {"unschedulable": true}});
    installed.control.call("PATCH", OWN, Some(&foreign)).await;
    installed.control.call("PATCH", OTHER, Some(&foreign)).await;
}
