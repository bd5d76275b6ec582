//! A containerd that isn't there, comes, dies, or loses an image.

use std::os::unix::fs::symlink;

use crate::node::{Node, SOON, agent, code, list, our_pins, push};
use crate::parts::{Containerd, Fault, FaultProxy, Gpus, Registry, Rule, Status, Version, until};

#[tokio::test]
async fn an_image_that_is_removed_is_pulled_again() {
    let mut node = Node::start(Version::V2_4).await;
    let app = node.push("team/app", "app").await;
    node.agent.write_list(&list(&[&format!("id: app, image: \"{}\"", app.by_tag())]));
    node.agent.start().await;
    node.agent.wait_entry("app", "Warm", SOON).await;
    let pulls = node.registry.pulls().len();
    let records = our_pins(&node.containerd).await;
    assert_eq!(records.len(), 3, "{records:?}");
    let mut remove = vec!["images", "rm", "--sync"];
    remove.extend(records.iter().map(String::as_str));
    node.containerd.ctr_ok(&remove).await;

    let back = async || (our_pins(&node.containerd).await.len() == 3).then_some(());
    until("the image's return", SOON, back).await;
    let warm = |status: &Status| status.all_warm() && status.labels.contains_key("image.stoker.dev/app");
    node.agent.wait_for("warmth", SOON, warm).await;
    assert!(node.registry.pulls().len() > pulls, "{:?}", node.registry.pulls());
    let snapshots = node.containerd.ctr_ok(&["snapshots", "ls"]).await;
    assert!(snapshots.contains(&app.chain_id.to_string()), "{snapshots}");
}

#[tokio::test]
async fn a_containerd_that_comes_later_is_waited_for() {
    let gpus = Gpus::healthy(1);
    let registry = Registry::start().await;
    let app = push(&registry, "team/app", "app").await;
    let agent = agent(&gpus);
    let socket = agent.scratch().join("containerd.sock");
    let mut agent = agent.env("STOKER_CONTAINERD_ADDRESS", socket.to_str().unwrap());
    agent.write_list(&list(&[&format!("id: app, image: \"{}\"", app.by_tag())]));
    agent.start().await;
    let unavailable = |status: &Status| code(status, "app").as_deref() == Some("ContainerdUnavailable");
    let status = agent.wait_for("its absence", SOON, unavailable).await;
    let entry = status.entry("app").unwrap();
    assert_eq!(entry.state, "Pending");
    let message = &entry.reason.as_ref().unwrap().message;
    assert!(message.contains(socket.to_str().unwrap()), "{message}");
    assert!(message.contains("--containerd-address"), "{message}");

    let containerd = Containerd::start(Version::V2_4).await;
    containerd.trust(&registry.host(), &registry.url());
    symlink(containerd.address(), &socket).unwrap();
    agent.wait_entry("app", "Warm", SOON).await;
    assert!(our_pins(&containerd).await.contains(&app.by_tag()));
}

#[tokio::test]
async fn a_containerd_that_is_killed_in_mid_pull_is_pulled_into_again() {
    let mut node = Node::start(Version::V2_4).await;
    let app = node.push("team/app", "app").await;
    let proxy = FaultProxy::start(&node.registry.host());
    node.containerd.trust(&node.registry.host(), &proxy.url());
    proxy.add(Rule::get("/blobs/sha256", Fault::Stall(10)).always());
    node.agent.write_list(&list(&[&format!("id: app, image: \"{}\"", app.by_tag())]));
    node.agent.start().await;
    until("a pull under way", SOON, async || (proxy.stalled() > 0).then_some(())).await;
    node.containerd.kill9();
    let away = |status: &Status| status.entry("app").is_some_and(|entry| entry.state != "Fetching");
    let status = node.agent.wait_for("its absence", SOON, away).await;
    assert!(!status.labels.contains_key("image.stoker.dev/app"), "{status:?}");
    proxy.clear();
    node.containerd.restart().await;
    node.agent.wait_entry("app", "Warm", SOON).await;
    let snapshots = node.containerd.ctr_ok(&["snapshots", "ls"]).await;
    assert!(snapshots.contains(&app.chain_id.to_string()), "{snapshots}");
    assert!(our_pins(&node.containerd).await.contains(&app.by_tag()));
}

#[tokio::test]
async fn a_restart_of_containerd_changes_no_label() {
    let mut node = Node::start(Version::V2_4).await;
    let app = node.push("team/app", "app").await;
    node.agent.write_list(&list(&[&format!("id: app, image: \"{}\"", app.by_tag())]));
    node.agent.start().await;
    // The image is there before its job has pinned it; a job that fails is started again.
    node.agent.wait_for("warmth", SOON, |status| status.all_warm() && status.done).await;
    node.containerd.kill9();
    let pulls = node.registry.pulls().len();
    let noticed = async || node.agent.log().contains("containerd can't be asked").then_some(());
    until("the agent's notice of it", SOON, noticed).await;
    let status = node.agent.status().await.expect("the agent answers without containerd");
    assert!(status.labels.contains_key("image.stoker.dev/app"), "what was seen last is kept: {status:?}");
    node.containerd.restart().await;
    let status = node.agent.wait_for("warmth", SOON, |status| status.all_warm() && status.done).await;
    assert!(status.labels.contains_key("image.stoker.dev/app"));
    assert_eq!(node.registry.pulls().len(), pulls, "nothing is pulled again: {:?}", node.registry.pulls());
}

#[tokio::test]
async fn an_agent_that_is_killed_in_mid_pull_ends_warm_after_a_new_start() {
    let mut node = Node::start(Version::V2_4).await;
    let app = node.push("team/app", "app").await;
    let proxy = FaultProxy::start(&node.registry.host());
    node.containerd.trust(&node.registry.host(), &proxy.url());
    proxy.add(Rule::get("/blobs/sha256", Fault::Stall(10)).always());
    node.agent.write_list(&list(&[&format!("id: app, image: \"{}\"", app.by_tag())]));
    node.agent.start().await;
    until("a pull under way", SOON, async || (proxy.stalled() > 0).then_some(())).await;
    node.agent.kill9();
    proxy.clear();
    node.agent.start().await;
    node.agent.wait_entry("app", "Warm", SOON).await;
    let snapshots = node.containerd.ctr_ok(&["snapshots", "ls"]).await;
    assert!(snapshots.contains(&app.chain_id.to_string()), "{snapshots}");
    assert_eq!(our_pins(&node.containerd).await.len(), 3);
}
