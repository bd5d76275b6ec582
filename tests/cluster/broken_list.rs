//! A list that can't be read is not an empty one.

use serde_json::Value;

use crate::parts::{AGENT, Bed, Installed, Nginx, NodeHistory, START, Status, list_of};
use crate::workload::bytes;

const BROKEN: [&str; 4] = [
    "entries: [",
    "just text",
    "apiVersion: stoker.dev/v9\nkind: PrefetchList\nentries: []\n",
    "apiVersion: stoker.dev/v1\nkind: PrefetchList\nentries: {}\n",
];

#[tokio::test]
async fn d_a_broken_list_and_a_broken_entry_drop_nothing_and_are_told_everywhere() {
    let nginx = Nginx::start().await;
    nginx.put("model.bin", bytes(1, 2 << 20));
    nginx.put("later.bin", bytes(2, 1 << 20));
    let installed = Installed::on(Bed::start(&["node-a"]).await).await;
    let app = installed.push_app("team/app", "app").await;
    let image = format!("id: app, image: \"{}\"", app.by_tag());
    let model = format!("id: model, weights: \"{}\"", nginx.url("model.bin"));
    installed.list(&[&image, &model]).await;
    let keys = ["image.stoker.dev/app", "stoker.dev/gpu", "stoker.dev/ready", "weights.stoker.dev/model"];
    let labels = installed.wait_labels("node-a", &keys).await;
    let history = NodeHistory::follow(&installed.bed.control, "node-a").await;

    let mut read = installed.metric("stoker_list_invalid_total").await.expect("a counter");
    for name in ["stoker_list_errors", "stoker_list_broken_entries"] {
        assert_eq!(installed.metric(name).await, Some(0.0), "{name}");
    }
    for document in BROKEN {
        installed.apply_list(document).await;
        let more = async || installed.metric("stoker_list_invalid_total").await.filter(|now| *now > read);
        read = installed.wait("node-a", &format!("{document:?} to be read"), START, more).await;
        assert!(installed.metric("stoker_list_errors").await.is_some_and(|errors| errors > 0.0));
        let status = installed.status("node-a").await.expect("an answer");
        assert!(status.all_warm() && status.entries.len() == 2, "{document:?}: {status:?}");
        assert!(
            status.list["errors"].as_array().is_some_and(|errors| !errors.is_empty()),
            "{:?}",
            status.list
        );
        assert_eq!(status.labels, labels, "{document:?}");
    }
    told(&installed, "ListInvalid: ").await;

    // An agent that starts while the list is broken goes on with what it kept.
    installed.bed.node("node-a").kill9(AGENT);
    let again = |list: &Value| list["errors"].as_array().is_some_and(|errors| !errors.is_empty());
    let knows = |status: &Status| status.all_warm() && status.entries.len() == 2 && again(&status.list);
    let status = installed.wait_status("node-a", "a new agent to know all", knows).await;
    assert_eq!(status.labels, labels);

    // An object that is gone is no empty list either.
    installed
        .bed
        .control
        .kubectl_ok(&["delete", "configmap", "stoker-list", "--namespace=stoker-system"])
        .await;
    let missing = |list: &Value| list["errors"].to_string().contains("stoker-list");
    let status =
        installed.wait_status("node-a", "the list to be missed", |status| missing(&status.list)).await;
    assert!(status.all_warm() && status.labels == labels, "{status:?}");

    // One broken entry: it keeps its last good version, and the others are as they should be.
    let broken = "id: model, weights: \"ftp://example.com/model.bin\", priority: 900";
    let later = format!("id: later, weights: \"{}\"", nginx.url("later.bin"));
    installed.apply_list(&list_of(&[&image, broken, &later])).await;
    installed.wait_label("node-a", "weights.stoker.dev/later").await;
    let status = installed.status("node-a").await.expect("an answer");
    let entry = status.entry("model").expect("it is listed");
    let why = entry.reason.as_ref().expect("a reason");
    assert_eq!((&*entry.state, &*why.code), ("Warm", "LastGoodVersion"));
    assert!(why.message.contains("ftp"), "{why:?}");
    assert_eq!(installed.metric("stoker_list_errors").await, Some(0.0), "as a whole it can be read");
    assert_eq!(installed.metric("stoker_list_broken_entries").await, Some(1.0));
    let annotated = async || {
        let node = installed.node("node-a").await;
        let text = node["metadata"]["annotations"]["stoker.dev/status"].as_str()?.to_owned();
        let status: Value = serde_json::from_str(&text).expect("JSON");
        (status["entries"]["model"]["reason"] == "LastGoodVersion").then_some(())
    };
    installed.wait("node-a", "the reason in the annotation", START, annotated).await;
    let event = told(&installed, "EntryInvalid: ").await;
    assert!(event.contains("model") && event.contains("weights"), "{event}");

    let versions = history.until_now(&installed.bed.control).await;
    for version in &versions {
        let now = version.labels();
        let dropped: Vec<_> = labels.iter().filter(|(key, value)| now.get(*key) != Some(value)).collect();
        assert!(dropped.is_empty(), "{dropped:?} at {}", version.version);
    }
    let place = installed.bed.node("node-a").host_path("/var/cache/stoker/weights/model/current/model.bin");
    assert!(std::fs::read(place).unwrap() == bytes(1, 2 << 20));
    assert!(installed.bed.node("node-a").images().await.contains(&app.by_tag()));
}

/// Waits for an event about the Node that begins so, and gives it.
async fn told(installed: &Installed, begin: &str) -> String {
    let event = async || {
        let events = installed.events("node-a").await;
        events.into_iter().find(|event| event.starts_with(begin))
    };
    installed.wait("node-a", &format!("the event {begin}"), START, event).await
}
