//! Somebody removes a warm image from under the agent.

use crate::parts::{Bed, Fault, FaultProxy, Installed, Nginx, NodeHistory, Rule, START};
use crate::workload::bytes;

const IMAGE: &str = "image.stoker.dev/app";
const REST: [&str; 4] =
    ["image.stoker.dev/other", "stoker.dev/gpu", "stoker.dev/ready", "weights.stoker.dev/model"];

#[tokio::test]
async fn h_a_removed_image_loses_its_label_and_gets_it_back_with_the_image() {
    let nginx = Nginx::start().await;
    nginx.put("model.bin", bytes(1, 1 << 20));
    let installed = Installed::on(Bed::start(&["node-a"]).await).await;
    let node = installed.bed.node("node-a");
    let app = installed.push_app("team/app", "app").await;
    let other = installed.push_app("team/other", "other").await;
    let entries = [
        format!("id: app, image: \"{}\", required: true", app.by_tag()),
        format!("id: other, image: \"{}\"", other.by_tag()),
        format!("id: model, weights: \"{}\"", nginx.url("model.bin")),
    ];
    let mut all = [&[IMAGE], &REST[..]].concat();
    all.sort_unstable();
    installed.list(&entries.each_ref().map(String::as_str)).await;
    let labels = installed.wait_labels("node-a", &all).await;
    installed.wait_status("node-a", "nothing left to do", |status| status.done).await;
    let history = NodeHistory::follow(&installed.bed.control, "node-a").await;

    // The registry hesitates, so that what is said meanwhile can be seen.
    let slow = FaultProxy::start(&installed.bed.registry.host());
    slow.add(Rule::get("/team/app/", Fault::Stall(0)).always());
    node.trust(&installed.bed.registry.host(), &slow.url());
    node.remove_image(&app.by_tag()).await;
    installed.wait_labels("node-a", &REST).await;
    let stalled = async || (slow.stalled() > 0).then_some(());
    installed.wait("node-a", "the image to be pulled again", START, stalled).await;
    let images = node.images().await;
    assert!(!images.contains(&app.by_tag()) && images.contains(&other.by_tag()), "{images:?}");
    let status = installed.status("node-a").await.expect("an answer");
    let states: Vec<_> =
        status.entries.iter().map(|entry| (entry.id.as_str(), entry.state.as_str())).collect();
    assert_eq!(states, [("app", "Fetching"), ("other", "Warm"), ("model", "Warm")]);
    assert!(status.ready, "once reached it holds");

    slow.clear();
    assert_eq!(installed.wait_labels("node-a", &all).await, labels);
    assert!(node.images().await.contains(&app.by_tag()));
    let records = node.ctr(&["images", "ls"]).await;
    let records = String::from_utf8_lossy(&records.stdout).into_owned();
    let pinned = |line: &&str| line.contains(&app.by_tag()) && line.contains("stoker.dev/pinned=");
    assert_eq!(records.lines().filter(pinned).count(), 1, "pinned again: {records}");

    // The one label went and came back, and nothing else was said.
    let versions = history.until_now(&installed.bed.control).await;
    let mut said: Vec<Vec<String>> = versions
        .iter()
        .map(|version| version.labels().into_keys().filter(|key| all.contains(&key.as_str())).collect())
        .collect();
    said.dedup();
    let rest = REST.map(str::to_owned).to_vec();
    let whole: Vec<String> = all.iter().map(|key| (*key).to_owned()).collect();
    assert_eq!(said, [whole.clone(), rest, whole]);
}
