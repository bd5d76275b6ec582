//! What the own Node is told, on a real API server.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use stoker::cluster::{Cluster, NodeSettings, NodeWatches, spawn_node};
use stoker::node::{Applied, EntryReport, EntryState, GoodsKind, ListReport, Reason, Report};
use stoker::rt::Metrics;
use stoker::types::{Digest, GpuPhase, GpuReason, GpuState, Revision};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::parts::{ControlPlane, until};

const NODE: &str = "node-a";
const PATH: &str = "/api/v1/nodes/node-a";
const TAINT: &str = "stoker.dev/not-ready";
const SOON: Duration = Duration::from_secs(60);

/// A node task with reports of ours.
struct Rig {
    reports: watch::Sender<Arc<Report>>,
    watches: NodeWatches,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Rig {
    async fn start(control: &ControlPlane, report: Report) -> Self {
        Self::start_as(control.kubeconfig(), report).await
    }

    async fn start_as(kubeconfig: &Path, report: Report) -> Self {
        let cluster = Cluster::connect(Some(kubeconfig)).await.expect("a cluster");
        let (reports, receiver) = watch::channel(Arc::new(report));
        let stop = CancellationToken::new();
        let mut settings = NodeSettings::new(NODE);
        settings.spread = Duration::ZERO;
        settings.gate_warn_after = Duration::from_secs(2);
        let (watches, task) = spawn_node(cluster, settings, receiver, Arc::new(Metrics::new()), stop.clone());
        Self { reports, watches, stop, task }
    }

    fn report(&self, change: impl FnOnce(&mut Report)) {
        self.reports.send_modify(|report| change(Arc::make_mut(report)));
    }

    fn applied(&self) -> Option<Applied> {
        self.watches.applied.borrow().clone()
    }

    fn may_stand(&self, label: &str) -> bool {
        self.applied().expect("the Node was read").values(label).next().is_some()
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("the task ends");
    }
}

fn report() -> Report {
    Report {
        gpu: GpuState::unknown(),
        list: ListReport::default(),
        entries: Vec::new(),
        gate_passed: true,
        ready: false,
        settled: true,
        done: false,
        boot_id: "this-boot".to_owned(),
        ready_by: None,
        left_alone: Default::default(),
        labels_version: 1,
    }
}

fn warm(id: &str) -> EntryReport {
    EntryReport {
        id: id.parse().expect("an id"),
        kind: Some(GoodsKind::Image),
        required: false,
        state: EntryState::Warm,
        reason: None,
        revision: Some(Revision::of_image(Digest::of(id.as_bytes()))),
        source: "docker.io/library/image".to_owned(),
        verified: true,
        requested: false,
        progress: None,
    }
}

fn open_gate(report: &mut Report) {
    report.gpu.open = true;
    report.gpu.phase = GpuPhase::Ready;
    report.gpu.reason = GpuReason::DriverReady;
    (report.gpu.devices, report.gpu.expected) = (1, 1);
}

async fn node(control: &ControlPlane) -> Value {
    control.call("GET", PATH, None).await
}

/// Our labels on a Node.
fn ours(node: &Value) -> BTreeSet<String> {
    let labels = node["metadata"]["labels"].as_object().expect("labels");
    labels.keys().filter(|key| key.contains("stoker.dev/")).cloned().collect()
}

fn keys(keys: &[&str]) -> BTreeSet<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

async fn labelled(control: &ControlPlane, wanted: &[&str]) -> Value {
    let wanted = keys(wanted);
    until(&format!("the labels {wanted:?}"), SOON, async || {
        let node = control.try_call("GET", PATH, None).await.ok()?;
        (ours(&node) == wanted).then_some(node)
    })
    .await
}

/// The Node without anything that the agent may write.
fn others(mut node: Value) -> Value {
    let metadata = node["metadata"].as_object_mut().expect("metadata");
    metadata.remove("managedFields");
    metadata.remove("resourceVersion");
    for key in ["labels", "annotations"] {
        if let Some(keys) = metadata.get_mut(key).and_then(Value::as_object_mut) {
            keys.retain(|key, _| !key.contains("stoker.dev/"));
        }
    }
    if metadata.get("annotations") == Some(&json!({})) {
        metadata.remove("annotations");
    }
    let conditions = node["status"]["conditions"].as_array_mut().expect("conditions");
    conditions.retain(|condition| !condition["type"].as_str().is_some_and(|kind| kind.contains("stoker")));
    node
}

fn condition<'a>(node: &'a Value, kind: &str) -> Option<&'a Value> {
    node["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// The writes to the Node that the agent has sent, each with the answer's code.
async fn writes(control: &ControlPlane) -> Vec<(String, i64)> {
    let log = control.audit_log().await;
    let own = log.iter().filter(|event| {
        let agent = event["userAgent"].as_str().unwrap_or_default();
        agent.starts_with("stoker/") && event["verb"] == "patch" && event["objectRef"]["resource"] == "nodes"
    });
    own.map(|event| {
        let uri = event["requestURI"].as_str().unwrap_or_default().to_owned();
        (uri, event["responseStatus"]["code"].as_i64().unwrap_or_default())
    })
    .collect()
}

#[tokio::test]
async fn the_node_carries_exactly_what_is_said_and_keeps_what_others_say() {
    let control = ControlPlane::start().await;
    control.fake_node(NODE).await;
    let extra = json!({"metadata": {"labels": {"zone": "z"}, "annotations": {"note": "n"}}});
    control.call("PATCH", PATH, Some(&extra)).await;
    let before = node(&control).await;

    // Before all is known nothing is written, but what stands is told.
    let mut unsettled = report();
    unsettled.settled = false;
    let mut rig = Rig::start(&control, unsettled).await;
    rig.watches.applied.wait_for(Option::is_some).await.expect("the task lives");
    let facts = rig.watches.facts.wait_for(Option::is_some).await.expect("the task lives").clone();
    assert_eq!(facts.expect("facts").labels["zone"], "z");
    assert_eq!(writes(&control).await, []);

    rig.report(|report| {
        report.settled = true;
        open_gate(report);
        report.ready = true;
        report.entries = vec![warm("a"), warm("b")];
    });
    let all = ["image.stoker.dev/a", "image.stoker.dev/b", "stoker.dev/gpu", "stoker.dev/ready"];
    labelled(&control, &all).await;
    let node = until("both conditions", SOON, async || {
        let node = node(&control).await;
        let warm = condition(&node, "stoker.dev/Warm").is_some_and(|warm| warm["status"] == "True");
        let gpu = condition(&node, "stoker.dev/GPUReady").is_some_and(|gpu| gpu["status"] == "True");
        (warm && gpu).then_some(node)
    })
    .await;
    assert_eq!(others(node.clone()), others(before.clone()));
    assert_eq!(node["metadata"]["annotations"]["stoker.dev/boot-id"], "this-boot");
    assert!(node["metadata"]["annotations"]["stoker.dev/status"].is_string());
    let applied = rig.watches.applied.wait_for(|applied| {
        applied
            .as_ref()
            .is_some_and(|applied| applied.labels.keys().cloned().collect::<BTreeSet<_>>() == keys(&all))
    });
    drop(tokio::time::timeout(SOON, applied).await.expect("what was confirmed is told"));

    // The same again, and an agent that was restarted: no request, and the same version.
    let sent = writes(&control).await.len();
    assert_eq!(sent, 2, "labels and annotations in one, conditions in another");
    let last = Arc::clone(&rig.reports.borrow());
    rig.report(|_| ());
    rig.stop().await;
    let mut rig = Rig::start(&control, (*last).clone()).await;
    rig.watches.applied.wait_for(Option::is_some).await.expect("the task lives");
    rig.report(|report| drop(report.entries.pop()));
    let node = labelled(&control, &["image.stoker.dev/a", "stoker.dev/gpu", "stoker.dev/ready"]).await;
    until("the confirmation", SOON, async || (!rig.may_stand("image.stoker.dev/b")).then_some(())).await;
    assert_eq!(others(node), others(before));
    until("the condition", SOON, async || (writes(&control).await.len() == sent + 2).then_some(())).await;
    rig.stop().await;
}

#[tokio::test]
async fn what_somebody_else_writes_in_our_name_is_mended() {
    let control = ControlPlane::start().await;
    control.fake_node(NODE).await;
    let stray = json!({"metadata": {
        "labels": {"image.stoker.dev/stray": "x", "weights.stoker.dev/old": "y", "xstoker.dev/other": "z"},
        "annotations": {"stoker.dev/boot-id": "another-boot", "stoker.dev/foreign": "f"},
    }});
    control.call("PATCH", PATH, Some(&stray)).await;
    let mut first = report();
    first.entries = vec![warm("a")];
    let rig = Rig::start(&control, first).await;
    let wanted = ["image.stoker.dev/a", "xstoker.dev/other"];
    let mended = labelled(&control, &wanted).await;
    assert_eq!(mended["metadata"]["annotations"]["stoker.dev/boot-id"], "this-boot");
    assert_eq!(mended["metadata"]["annotations"]["stoker.dev/foreign"], "f", "that key isn't ours");
    let right = mended["metadata"]["labels"]["image.stoker.dev/a"].clone();

    let edits = json!({"metadata": {"labels": {"image.stoker.dev/a": "wrong", "stoker.dev/gpu": "ready"}}});
    control.call("PATCH", PATH, Some(&edits)).await;
    until("the edit to be mended", SOON, async || {
        let node = node(&control).await;
        (ours(&node) == keys(&wanted) && node["metadata"]["labels"]["image.stoker.dev/a"] == right)
            .then_some(())
    })
    .await;
    control.call("PATCH", PATH, Some(&json!({"metadata": {"labels": {"image.stoker.dev/a": null}}}))).await;
    labelled(&control, &wanted).await;
    assert!(rig.may_stand("image.stoker.dev/a"));
    rig.stop().await;
}

#[tokio::test]
async fn a_node_that_comes_later_or_is_made_anew_is_written_anew() {
    let control = ControlPlane::start().await;
    let mut first = report();
    first.entries = vec![warm("a")];
    let rig = Rig::start(&control, first).await;
    // It watches by name before there is anything of that name.
    until("the watch", SOON, async || {
        let log = control.audit_log().await;
        log.iter().any(|event| event["verb"] == "watch" && event["objectRef"]["name"] == NODE).then_some(())
    })
    .await;
    assert_eq!(rig.applied(), None, "there is nothing to read yet");
    control.fake_node(NODE).await;
    labelled(&control, &["image.stoker.dev/a"]).await;

    for change in ["b", "c"] {
        // The report changes at the very moment: a write may be on its way to the Node that goes.
        rig.report(|report| report.entries.push(warm(change)));
        control.call("DELETE", PATH, None).await;
        control.fake_node(NODE).await;
        let wanted: Vec<String> = rig
            .reports
            .borrow()
            .entries
            .iter()
            .map(|entry| format!("image.stoker.dev/{}", entry.id))
            .collect();
        labelled(&control, &wanted.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    control.call("DELETE", PATH, None).await;
    until("nothing to stand", SOON, async || {
        rig.applied().is_some_and(|applied| applied.may_stand().next().is_none()).then_some(())
    })
    .await;
    let created = control.audit_log().await.into_iter().filter(|event| {
        event["userAgent"].as_str().is_some_and(|agent| agent.starts_with("stoker/"))
            && event["objectRef"]["resource"] == "nodes"
            && !["get", "list", "watch", "patch"].contains(&event["verb"].as_str().unwrap_or_default())
    });
    assert_eq!(created.count(), 0);
    assert!(control.try_call("GET", PATH, None).await.is_err(), "a Node is never created");
    rig.stop().await;
}

#[tokio::test]
async fn the_startup_taint_goes_beside_others_that_are_being_written() {
    let control = ControlPlane::start().await;
    control.fake_node(NODE).await;
    let taints = json!([
        {"key": "kept", "effect": "NoSchedule"},
        {"key": TAINT, "effect": "NoSchedule"},
        {"key": TAINT, "effect": "NoExecute", "value": "v"},
        {"key": "also-kept", "effect": "PreferNoSchedule"},
    ]);
    control.call("PATCH", PATH, Some(&json!({"spec": {"taints": taints}}))).await;
    let rig = Rig::start(&control, report()).await;
    until("the first write", SOON, async || {
        condition(&node(&control).await, "stoker.dev/Warm").is_some().then_some(())
    })
    .await;
    let taint_keys = |node: &Value| -> Vec<String> {
        let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
        taints.iter().map(|taint| taint["key"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(taint_keys(&node(&control).await).len(), 4, "not ready, so they stay");

    rig.report(|report| {
        open_gate(report);
        report.ready = true;
    });
    // Somebody else puts taints before ours all the while.
    let client = control.client().await;
    let mut added = 0;
    until("the startup taints to go", SOON, async || {
        added += 1;
        let taint = json!({"key": format!("race-{added}"), "effect": "NoSchedule"});
        let patch = json!([{"op": "add", "path": "/spec/taints/0", "value": taint}]);
        let request = http::Request::patch(PATH).header("content-type", "application/json-patch+json");
        let request = request.body(patch.to_string().into_bytes()).expect("a request");
        let after: Value = client.request(request).await.expect("a taint can be added");
        (!taint_keys(&after).contains(&TAINT.to_owned())).then_some(())
    })
    .await;
    let after = node(&control).await;
    let mut expected: Vec<String> = (1..=added).rev().map(|n| format!("race-{n}")).collect();
    expected.extend(["kept", "also-kept"].map(str::to_owned));
    assert_eq!(taint_keys(&after), expected);
    assert_eq!(ours(&after), keys(&["stoker.dev/gpu", "stoker.dev/ready"]));
    let log = control.audit_log().await;
    let first = |wanted: &str| {
        log.iter().position(|event| {
            event["userAgent"].as_str().is_some_and(|agent| agent.starts_with("stoker/"))
                && event["verb"] == wanted
                && event["objectRef"]["resource"] == "nodes"
                && event["objectRef"]["name"] == NODE
        })
    };
    assert!(first("patch") < first("get"), "labels come before the taint goes");
    rig.stop().await;
}

#[tokio::test]
async fn while_the_api_server_is_away_labels_may_stand_and_then_they_catch_up() {
    let mut control = ControlPlane::start().await;
    control.fake_node(NODE).await;
    let mut first = report();
    first.entries = vec![warm("a")];
    let rig = Rig::start(&control, first).await;
    labelled(&control, &["image.stoker.dev/a"]).await;
    until("the conditions", SOON, async || (writes(&control).await.len() == 2).then_some(())).await;

    control.kill_api_server();
    rig.report(|report| report.entries.push(warm("b")));
    until("a write that gets no answer", SOON, async || rig.may_stand("image.stoker.dev/b").then_some(()))
        .await;
    rig.report(|report| report.entries = vec![warm("c")]);
    until("another one", SOON, async || rig.may_stand("image.stoker.dev/c").then_some(())).await;
    for n in 0..50 {
        rig.report(|report| report.entries = vec![warm("c"), warm(&format!("n{n}"))]);
        tokio::task::yield_now().await;
    }
    rig.report(|report| report.entries = vec![warm("c")]);
    for label in ["a", "b", "c"] {
        assert!(rig.may_stand(&format!("image.stoker.dev/{label}")), "{label} may be there");
    }
    let before = writes(&control).await.len();
    control.start_api_server().await;
    labelled(&control, &["image.stoker.dev/c"]).await;
    // The label that was dropped is gone for sure only when a lost write can't come any more.
    assert!(rig.may_stand("image.stoker.dev/b"));
    until("what is sure", Duration::from_secs(90), async || {
        let applied = rig.applied().expect("it was read");
        let keys: BTreeSet<&str> = applied.may_stand().map(|(key, _)| key).collect();
        (keys == BTreeSet::from(["image.stoker.dev/c"])).then_some(())
    })
    .await;
    let after = writes(&control).await;
    assert!(after.len() - before <= 3, "a burst: {after:?}");
    rig.stop().await;
}

/// Reason → how many events, and how often they were told.
async fn events(control: &ControlPlane) -> BTreeMap<String, (usize, u64)> {
    let found = control.call("GET", "/apis/events.k8s.io/v1/namespaces/default/events", None).await;
    let mut events = BTreeMap::new();
    for event in found["items"].as_array().expect("items") {
        if event["reportingController"] == "stoker.dev/agent" {
            assert_eq!(event["regarding"]["name"], NODE);
            let reason = event["reason"].as_str().expect("a reason").to_owned();
            let (count, times): &mut (usize, u64) = events.entry(reason).or_default();
            *count += 1;
            *times += event["series"]["count"].as_u64().unwrap_or(1);
        }
    }
    events
}

#[tokio::test]
async fn people_are_told_once_by_events() {
    let control = ControlPlane::start().await;
    control.fake_node(NODE).await;
    let taints = json!({"spec": {"taints": [{"key": TAINT, "effect": "NoSchedule"}]}});
    control.call("PATCH", PATH, Some(&taints)).await;
    let mut first = report();
    first.gpu.expected = 1;
    first.gpu.reason = GpuReason::DriverNotLoaded;
    first.list.errors = vec!["line 1: this is no list".to_owned()];
    let mut broken = warm("broken");
    (broken.state, broken.revision) = (EntryState::Invalid, None);
    broken.reason = Some(Reason::new("Invalid", "image: it is empty"));
    first.entries = vec![broken];
    let rig = Rig::start(&control, first).await;
    let told = async |wanted: &[(&str, u64)]| {
        let wanted = wanted.iter().map(|(reason, times)| ((*reason).to_owned(), (1, *times))).collect();
        until(&format!("the events {wanted:?}"), SOON, async || {
            let told = events(&control).await;
            assert!(told.values().all(|(count, _)| *count == 1), "one event a cause: {told:?}");
            (told == wanted).then_some(())
        })
        .await;
    };
    told(&[("DriverMayNotTolerateTaint", 1), ("EntryInvalid", 1), ("ListInvalid", 1)]).await;
    let described = control.kubectl_ok(&["describe", "node", NODE]).await;
    assert!(described.contains("DriverMayNotTolerateTaint") && described.contains(TAINT), "{described}");

    // An agent that was restarted says nothing twice; what comes back is counted.
    let last = Arc::clone(&rig.reports.borrow());
    rig.stop().await;
    let rig = Rig::start(&control, (*last).clone()).await;
    until("the events of the second run", SOON, async || {
        let log = control.audit_log().await;
        let refused = log.iter().filter(|event| {
            event["objectRef"]["resource"] == "events" && event["responseStatus"]["code"] == 409
        });
        (refused.count() == 3).then_some(())
    })
    .await;
    rig.report(|report| report.list.errors.clear());
    until("the change to be written", SOON, async || {
        let reason = condition(&node(&control).await, "stoker.dev/Warm")?["reason"].clone();
        (reason != "ListInvalid").then_some(())
    })
    .await;
    rig.report(|report| report.list.errors = vec!["line 1: this is no list".to_owned()]);
    told(&[("DriverMayNotTolerateTaint", 1), ("EntryInvalid", 1), ("ListInvalid", 2)]).await;
    rig.stop().await;
}

const POLICY: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: no-gpu-label}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: ["*"], operations: [UPDATE], resources: [nodes]}]
  validations:
  - expression: "!('stoker.dev/gpu' in object.metadata.?labels.orValue({}))"
    message: no such label here
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: no-gpu-label}
spec: {policyName: no-gpu-label, validationActions: [Deny]}
"#;

#[tokio::test]
async fn labels_that_are_refused_hold_the_taint_but_not_the_conditions_and_are_not_sent_in_a_storm() {
    let control = ControlPlane::start().await;
    control.fake_node(NODE).await;
    let taints = json!({"spec": {"taints": [{"key": TAINT, "effect": "NoSchedule"}]}});
    control.call("PATCH", PATH, Some(&taints)).await;
    control.apply(POLICY).await;
    until("the policy to be in force", SOON, async || {
        let refused = json!({"metadata": {"labels": {"stoker.dev/gpu": "test"}}});
        control.try_call("PATCH", &format!("{PATH}?dryRun=All"), Some(&refused)).await.is_err().then_some(())
    })
    .await;
    let mut first = report();
    open_gate(&mut first);
    first.ready = true;
    let rig = Rig::start(&control, first).await;
    until("the conditions", SOON, async || condition(&node(&control).await, "stoker.dev/GPUReady").map(drop))
        .await;
    // Also a change that may not wait is not sent again and again.
    rig.report(|report| report.ready = false);
    rig.report(|report| report.ready = true);
    until("some tries", SOON, async || (writes(&control).await.len() >= 5).then_some(())).await;
    let tries = writes(&control).await;
    assert!(tries.iter().filter(|(_, code)| *code == 422).count() >= 3, "{tries:?}");
    assert!(!rig.may_stand("stoker.dev/gpu"), "it was refused");
    let node = node(&control).await;
    assert_eq!(node["spec"]["taints"][0]["key"], TAINT);
    assert_eq!(ours(&node), keys(&[]));
    control.kubectl_ok(&["delete", "validatingadmissionpolicybinding", "no-gpu-label"]).await;
    labelled(&control, &["stoker.dev/gpu", "stoker.dev/ready"]).await;
    until("the taint to go", SOON, async || {
        let node = control.call("GET", PATH, None).await;
        node["spec"]["taints"].as_array().is_none_or(Vec::is_empty).then_some(())
    })
    .await;
    let sent = writes(&control).await.len();
    assert!(sent < 15, "a storm: {sent} writes");
    rig.stop().await;
}

const RIGHTS: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: {name: agent, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: agent}
rules:
- {apiGroups: [""], resources: [nodes], verbs: [get, list, watch, patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: agent}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: agent}
subjects: [{kind: ServiceAccount, name: agent, namespace: default}]
"#;

#[tokio::test]
async fn what_is_not_allowed_does_not_hold_up_what_is() {
    let control = ControlPlane::start().await;
    control.fake_node(NODE).await;
    control.apply(RIGHTS).await;
    let token = control.token("default", "agent", None, 3600).await;
    let mut first = report();
    open_gate(&mut first);
    first.entries = vec![warm("a")];
    let rig = Rig::start_as(&control.kubeconfig_for_token(&token), first).await;
    labelled(&control, &["image.stoker.dev/a", "stoker.dev/gpu"]).await;
    until("both refusals", SOON, async || {
        let log = control.audit_log().await;
        let refused = |path: &str| {
            log.iter().any(|event| {
                event["responseStatus"]["code"] == 403
                    && event["requestURI"].as_str().is_some_and(|uri| uri.contains(path))
            })
        };
        (refused("/nodes/node-a/status") && refused("/namespaces/default/events")).then_some(())
    })
    .await;
    rig.report(|report| report.entries.clear());
    labelled(&control, &["stoker.dev/gpu"]).await;
    let status = RIGHTS.replace("resources: [nodes]", "resources: [nodes, nodes/status]");
    control.apply(&status).await;
    until("the conditions", SOON, async || condition(&node(&control).await, "stoker.dev/Warm").map(drop))
        .await;
    rig.stop().await;
}
