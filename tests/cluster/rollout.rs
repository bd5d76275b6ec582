//! The agent ends and comes back: by kill -9, and by a rolling update. The node says the same all the while.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::parts::{AGENT, Bed, FaultProxy, Installed, Nginx, NodeHistory, START, Seen, stoker_image};
use crate::workload::bytes;

/// The bytes that were asked for: blobs of the image at the registry, ranges of files at the store. The one byte that
/// tells a file's version isn't among them.
fn fetched(installed: &Installed, store: &FaultProxy) -> Vec<String> {
    let blobs = installed.bed.registry.pulls().into_iter();
    let blobs = blobs.filter(|request| request.contains("GET /v2/team/app/blobs/"));
    let is_get = |seen: &Seen| seen.method == "GET" && seen.range.as_deref() != Some("bytes=0-0");
    let ranges = store.seen().into_iter().filter(is_get);
    blobs.chain(ranges.map(|seen| format!("{} {:?}", seen.path, seen.range))).collect()
}

/// What a Node says of ours, by the API server's word.
fn said(node: &Value) -> BTreeMap<String, String> {
    let metadata = &node["metadata"];
    let mut said = BTreeMap::new();
    for field in ["labels", "annotations"] {
        let all: BTreeMap<String, String> =
            serde_json::from_value(metadata[field].clone()).unwrap_or_default();
        said.extend(all.into_iter().filter(|(key, _)| key.contains("stoker.dev/")));
    }
    for condition in node["status"]["conditions"].as_array().into_iter().flatten() {
        let kind = condition["type"].as_str().unwrap_or_default();
        if kind.starts_with("stoker.dev/") {
            said.insert(kind.to_owned(), condition.to_string());
        }
    }
    said
}

#[tokio::test]
async fn e_an_agent_that_is_killed_and_then_updated_changes_no_label_and_fetches_nothing_twice() {
    let nginx = Nginx::start().await;
    nginx.put("model.bin", bytes(1, 5 << 20));
    let store = FaultProxy::start(&nginx.host());
    let installed = Installed::on(Bed::start(&["node-a"]).await).await;
    let app = installed.push_app("team/app", "app").await;
    let image = format!("id: app, image: \"{}\", required: true", app.by_tag());
    let model = format!("id: model, weights: \"{}/model.bin\", required: true", store.url());
    installed.list(&[&image, &model]).await;
    let keys = ["image.stoker.dev/app", "stoker.dev/gpu", "stoker.dev/ready", "weights.stoker.dev/model"];
    let labels = installed.wait_labels("node-a", &keys).await;
    installed.wait_status("node-a", "nothing left to do", |status| status.done).await;
    let complete = async || (said(&installed.node("node-a").await).len() == labels.len() + 4).then_some(());
    installed.wait("node-a", "two annotations and two conditions", START, complete).await;
    let requests = fetched(&installed, &store);
    assert!(requests.len() > 4, "{requests:?}");
    let body_bytes = store.body_bytes();
    let history = NodeHistory::follow(&installed.bed.control, "node-a").await;

    let pod = installed.agent_ready("node-a").await;
    installed.bed.node("node-a").kill9(AGENT);
    let again = async || {
        let pod = installed.agent_pod("node-a").await?;
        let containers = pod["status"]["containerStatuses"].as_array()?;
        let agent = containers.iter().find(|one| one["name"] == "agent")?;
        (agent["restartCount"] == 1 && agent["ready"] == true).then_some(())
    };
    installed.wait("node-a", "the agent's container to be started again", START, again).await;
    let status = installed.wait_status("node-a", "the agent to know all", |status| status.done).await;
    assert!(status.all_warm() && status.labels == labels, "{status:?}");

    // Another image: each node's pod is replaced.
    let next = tokio::task::spawn_blocking(stoker_image).await.unwrap();
    let next = installed.bed.registry.push(&next, "stoker", "next").await.by_tag();
    let [agent, probe] = ["agent", "gpu-probe"].map(|name| format!("{name}={next}"));
    let set = ["set", "image", "daemonset/stoker", "--namespace=stoker-system", &agent, &probe];
    installed.bed.control.kubectl_ok(&set).await;
    let rolled = ["rollout", "status", "daemonset/stoker", "--namespace=stoker-system", "--timeout=60s"];
    installed.bed.control.kubectl_ok(&rolled).await;
    let new = installed.agent_ready("node-a").await;
    assert_ne!(new["metadata"]["uid"], pod["metadata"]["uid"]);
    let status = installed.wait_status("node-a", "the new agent to know all", |status| status.done).await;
    assert!(status.all_warm() && status.labels == labels, "{status:?}");

    let versions = history.until_now(&installed.bed.control).await;
    let first = said(&versions[0].node);
    for version in &versions {
        assert_eq!(said(&version.node), first, "at {}", version.version);
        assert_eq!(version.node["spec"]["taints"], versions[0].node["spec"]["taints"]);
    }
    assert_eq!(fetched(&installed, &store), requests, "nothing was fetched twice");
    assert!(store.body_bytes() < body_bytes + 100, "the store has sent hardly a byte");
}
