//! Mishaps that come together: what is warm stays said, and nothing is said that isn't so.

use serde_json::json;

use crate::parts::{
    Bed, BedOptions, Gpus, Installed, Nginx, NodeHistory, NodeVersion, START, list_of, push_app,
};
use crate::workload::bytes;

const AGENT: &str = "stoker agent --list-configmap";
const KEYS: [&str; 4] =
    ["image.stoker.dev/app", "stoker.dev/gpu", "stoker.dev/ready", "weights.stoker.dev/model"];
const GOODS: [&str; 2] = [KEYS[0], KEYS[3]];
const TAINT: &str = "stoker.dev/not-ready";
const UPGRADE: &str = "nvidia.com/gpu-driver-upgrade-state";

/// An image and weights, warm on one node; and the list that names them.
async fn warm(nginx: &Nginx) -> (Installed, String) {
    nginx.put("model.bin", bytes(1, 2 << 20));
    let options = BedOptions {
        kubelet: json!({"registerWithTaints": [{"key": TAINT, "effect": "NoSchedule"}]}),
        ..BedOptions::default()
    };
    let bed = Bed::start_with(&["node-a"], &options).await;
    let app = push_app(&bed.registry, "team/app", "app").await;
    let image = format!("id: app, image: \"{}\", required: true", app.by_tag());
    let model = format!("id: model, weights: \"{}\", required: true", nginx.url("model.bin"));
    let list = list_of(&[&image, &model]);
    let installed = Installed::on_with(bed, Gpus::healthy(2), &list, |overlay| overlay).await;
    installed.wait_labels("node-a", &KEYS).await;
    untainted(&installed).await;
    installed.wait_status("node-a", "nothing left to do", |status| status.done).await;
    (installed, list)
}

/// Waits until the startup taint, with which the Node was registered, is gone.
async fn untainted(installed: &Installed) {
    let untainted = async || {
        let node = installed.node("node-a").await;
        (!node["spec"]["taints"].to_string().contains(TAINT)).then_some(())
    };
    installed.wait("node-a", "the taint to go", START, untainted).await;
}

/// Waits until the agent's container is ready after so many restarts, and has `each` look at all on the way.
async fn restarted(installed: &Installed, times: u64, each: impl Fn()) {
    let again = async || {
        each();
        let pod = installed.agent_pod("node-a").await?;
        let containers = pod["status"]["containerStatuses"].as_array()?;
        let agent = containers.iter().find(|one| one["name"] == "agent")?;
        (agent["restartCount"] == times && agent["ready"] == true).then_some(())
    };
    installed.wait("node-a", "the agent's container to be started again", START, again).await;
}

/// The labels of ours in each version of a Node.
fn said(versions: &[NodeVersion]) -> Vec<Vec<String>> {
    let ours = |version: &NodeVersion| {
        version.labels().into_keys().filter(|key| KEYS.contains(&key.as_str())).collect::<Vec<_>>()
    };
    let mut said: Vec<_> = versions.iter().map(ours).collect();
    said.dedup();
    said
}

#[tokio::test]
async fn losing_the_list_the_api_server_or_the_node_itself_takes_no_label() {
    let nginx = Nginx::start().await;
    let (mut installed, list) = warm(&nginx).await;
    let labels = installed.labels("node-a").await;
    let app = labels["image.stoker.dev/app"].clone();

    // The list is deleted while nobody watches it.
    let history = NodeHistory::follow(&installed.bed.control, "node-a").await;
    installed.bed.node("node-a").kill9(AGENT);
    let delete = ["delete", "configmap", "stoker-list", "--namespace=stoker-system"];
    installed.bed.control.kubectl_ok(&delete).await;
    restarted(&installed, 1, || ()).await;
    let missed = installed.wait_status("node-a", "the list to be missed", |status| {
        status.done && status.list["errors"].to_string().contains("there is no such ConfigMap")
    });
    let status = missed.await;
    assert!(status.all_warm() && status.ready && status.labels == labels, "{status:?}");
    installed.apply_list(&list).await;
    installed.wait_status("node-a", "the list", |status| status.list["errors"] == json!([])).await;
    assert_eq!(said(&history.until_now(&installed.bed.control).await), [KEYS]);
    drop(history);

    // The API server and the agent are killed together, and the image goes too: it's back before anyone can be told.
    installed.bed.control.kill_api_server();
    installed.bed.node("node-a").kill9(AGENT);
    let images = installed.bed.node("node-a").images().await;
    let image = images.iter().find(|image| image.ends_with("team/app:v1")).expect("it is warm").clone();
    installed.bed.node("node-a").remove_image(&image).await;
    installed.wait_status("node-a", "both to be warm", |status| status.all_warm()).await;
    assert!(installed.bed.node("node-a").images().await.contains(&image));
    installed.bed.control.start_api_server().await;
    let history = NodeHistory::follow(&installed.bed.control, "node-a").await;
    restarted(&installed, 2, || ()).await;
    let status = installed.wait_status("node-a", "all to be told", |status| !status.labels.is_empty()).await;
    assert_eq!((&status.labels, &status.labels["image.stoker.dev/app"]), (&labels, &app));
    assert_eq!(said(&history.until_now(&installed.bed.control).await), [KEYS]);
    drop(history);

    // The Node is deleted, and kubelet registers it again.
    let uid = installed.node("node-a").await["metadata"]["uid"].clone();
    installed.bed.control.kubectl_ok(&["delete", "node", "node-a", "--wait=false"]).await;
    installed.bed.node_mut("node-a").kill_kubelet();
    installed.bed.node_mut("node-a").start_kubelet();
    let anew = async || {
        let node = installed.bed.control.try_call("GET", "/api/v1/nodes/node-a", None).await.ok()?;
        (node["metadata"]["uid"] != uid).then_some(())
    };
    installed.wait("node-a", "a new Node", START, anew).await;
    assert_eq!(installed.wait_labels("node-a", &KEYS).await, labels);
    untainted(&installed).await;
}

#[tokio::test]
async fn an_agent_that_is_killed_during_an_upgrade_of_the_driver_opens_nothing_and_probes_nothing() {
    let nginx = Nginx::start().await;
    let (installed, _) = warm(&nginx).await;
    let history = NodeHistory::follow(&installed.bed.control, "node-a").await;

    // The upgrade begins in the moment in which the agent dies.
    installed.bed.node("node-a").kill9(AGENT);
    let begun = format!("{UPGRADE}=drain-required");
    installed.bed.control.kubectl_ok(&["label", "node", "node-a", &begun]).await;
    installed.wait_labels("node-a", &GOODS).await;
    restarted(&installed, 1, || ()).await;
    // And the agent dies once more while it lasts. A probe that was started now would stay to be seen.
    installed.gpus.answer(r#"{"hang": true}"#);
    installed.bed.node("node-a").kill9(AGENT);
    let nobody_probes = || {
        let processes = installed.bed.node("node-a").processes();
        let probes: Vec<_> = processes.iter().filter(|(_, line)| line.contains("--child")).collect();
        assert!(probes.is_empty(), "{probes:?}");
    };
    restarted(&installed, 2, nobody_probes).await;
    let held = installed.wait_status("node-a", "the hold", |status| {
        nobody_probes();
        status.gpu["reason"] == "DriverUpgrade"
    });
    assert!(!held.await.ready);

    installed.gpus.load_driver();
    installed.bed.control.kubectl_ok(&["label", "node", "node-a", &format!("{UPGRADE}-")]).await;
    installed.wait_labels("node-a", &KEYS).await;
    let said = said(&history.until_now(&installed.bed.control).await);
    assert_eq!(said, [&KEYS[..], &GOODS[..], &KEYS[..]], "the gate closed once and opened once");
}
