//! The startup taint: a new node takes no pods before what they need is there.

use serde_json::{Value, json};

use crate::parts::{
    Bed, BedOptions, Fault, FaultProxy, Gpus, Installed, Nginx, NodeHistory, Rule, START, list_of, push_app,
};
use crate::workload::{bytes, pod, succeeded};

const OURS: &str = "stoker.dev/not-ready";
const OTHER: &str = "example.com/other";

fn taints(node: &Value) -> Vec<String> {
    let taints = node["spec"]["taints"].as_array().into_iter().flatten();
    taints.map(|taint| taint["key"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn i_a_node_registers_with_the_taint_and_a_pod_waits_until_required_entries_are_warm() {
    let nginx = Nginx::start().await;
    nginx.put("model.bin", bytes(1, 2 << 20));
    let slow = FaultProxy::start(&nginx.host());
    slow.add(Rule::get("/model.bin", Fault::Stall(1000)).always());
    let taint = |key: &str| json!({"key": key, "effect": "NoSchedule"});
    let options = BedOptions {
        kubelet: json!({"registerWithTaints": [taint("example.com/first"), taint(OURS), taint(OTHER)]}),
        ..BedOptions::default()
    };
    let bed = Bed::start_with(&["node-a"], &options).await;
    let app = push_app(&bed.registry, "team/app", "app").await;
    let image = format!("id: app, image: \"{}\", required: true", app.by_tag());
    let model = format!("id: model, weights: \"{}/model.bin\", required: true", slow.url());
    let list = list_of(&[&image, &model]);
    let installed = Installed::on_with(bed, Gpus::healthy(2), &list, |overlay| overlay).await;
    let history = NodeHistory::follow(&installed.bed.control, "node-a").await;
    let node = installed.node("node-a").await;
    assert_eq!(taints(&node), ["example.com/first", OURS, OTHER]);

    // Of two pods that wait for nothing else, the one that our taint keeps out isn't placed.
    let any = json!({"tolerations": [{"operator": "Exists"}]});
    let tolerant = pod("tolerant", &app.by_tag(), "true", any);
    installed.bed.control.apply(&tolerant.to_string()).await;
    let tolerated = ["example.com/first", OTHER].map(|key| json!({"key": key, "operator": "Exists"}));
    let server = pod("server", &app.by_tag(), "echo started", json!({"tolerations": tolerated}));
    installed.bed.control.apply(&server.to_string()).await;
    let path = "/api/v1/namespaces/default/pods/server";
    let refused = async || {
        let pod = installed.bed.control.call("GET", path, None).await;
        let conditions = pod["status"]["conditions"].to_string();
        conditions.contains("untolerated taint").then_some(pod)
    };
    let pending = installed.wait("node-a", "the scheduler's refusal", START, refused).await;
    assert_eq!(pending["status"]["phase"], "Pending");
    succeeded(&installed.bed, "tolerant").await;

    // One of the two is warm: that isn't enough.
    let keys = ["image.stoker.dev/app", "stoker.dev/gpu"];
    installed.wait_labels("node-a", &keys).await;
    assert_eq!(taints(&installed.node("node-a").await), ["example.com/first", OURS, OTHER]);
    let status = installed.status("node-a").await.expect("an answer");
    assert!(!status.ready, "{status:?}");

    slow.clear();
    succeeded(&installed.bed, "server").await;
    assert_eq!(installed.bed.pod_logs("server").await.trim(), "started");
    let events = installed.bed.events_of("server").await;
    assert!(events.iter().any(|event| event.contains("already present on machine")), "{events:?}");
    assert_eq!(taints(&installed.node("node-a").await), ["example.com/first", OTHER]);

    // A pod that is let in finds the labels.
    let versions = history.until_now(&installed.bed.control).await;
    let open = versions.iter().find(|version| !taints(&version.node).contains(&OURS.to_owned())).unwrap();
    for key in ["image.stoker.dev/app", "stoker.dev/gpu", "stoker.dev/ready", "weights.stoker.dev/model"] {
        assert!(open.labels().contains_key(key), "{key} was there before the taint went");
    }
    for version in versions.iter().filter(|version| version.version >= open.version) {
        assert_eq!(taints(&version.node), ["example.com/first", OTHER], "at {}", version.version);
    }
}
