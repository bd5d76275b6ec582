//! The gate: what waits for the driver, and what doesn't.

use crate::node::{Node, SOON, agent, assert_current, code, label_keys, list, our_pins};
use crate::parts::{Gpus, Nginx, Status, Version};

fn gate_closed(status: &Status, ids: &[&str]) -> bool {
    ids.iter().all(|id| code(status, id).as_deref() == Some("GateClosed"))
}

#[tokio::test]
async fn nothing_is_pulled_before_the_driver_answers() {
    let mut node = Node::start_with(Version::V2_4, Gpus::without_driver(2)).await;
    let app = node.push("team/app", "app").await;
    node.nginx.put("w.bin", b"weights");
    node.agent.write_list(&list(&[
        &format!("id: app, image: \"{}\", required: true", app.by_tag()),
        &format!("id: w, weights: \"{}\"", node.nginx.url("w.bin")),
    ]));
    let before = node.registry.pulls();
    node.agent.start().await;
    let closed =
        |status: &Status| gate_closed(status, &["app", "w"]) && status.gpu["reason"] == "DriverNotLoaded";
    let status = node.agent.wait_for("a closed gate", SOON, closed).await;
    assert_eq!(status.entries.iter().map(|entry| &*entry.state).collect::<Vec<_>>(), ["Pending", "Pending"]);
    assert!(status.labels.is_empty() && !status.ready && !status.done, "{status:?}");
    let advice = &status.entry("app").unwrap().reason.as_ref().unwrap().message;
    assert!(advice.contains("nvidia kernel module"), "{advice}");
    assert_eq!(node.registry.pulls(), before);
    assert_eq!(node.nginx.requests(), Vec::<String>::new());

    node.gpus.load_driver();
    let status = node.agent.wait_for("warmth", SOON, Status::all_warm).await;
    assert!(status.gpu["open"] == true && status.ready, "{status:?}");
    let keys = ["image.stoker.dev/app", "stoker.dev/gpu", "stoker.dev/ready", "weights.stoker.dev/w"];
    assert_eq!(label_keys(&status), keys);
    assert_current(&node.agent, "w", &[("w.bin", b"weights")]);
    assert!(our_pins(&node.containerd).await.contains(&app.by_tag()));
}

#[tokio::test]
async fn a_gate_that_closes_takes_its_label_and_stops_no_pulling() {
    let gpus = Gpus::healthy(2);
    let nginx = Nginx::start().await;
    nginx.put("a.bin", b"first");
    nginx.put("b.bin", b"second");
    let first = format!("id: a, weights: \"{}\"", nginx.url("a.bin"));
    let second = format!("id: b, weights: \"{}\"", nginx.url("b.bin"));
    let mut agent = agent(&gpus);
    agent.write_list(&list(&[&first]));
    agent.start().await;
    let all = ["stoker.dev/gpu", "stoker.dev/ready", "weights.stoker.dev/a"];
    agent.wait_for("all labels", SOON, |status| label_keys(status) == all).await;

    // A GPU is lost (NVML_ERROR_GPU_IS_LOST): the driver still answers, so one probe proves nothing.
    gpus.answer(r#"{"devices": 2, "device_error": {"index": 1, "code": 15}}"#);
    let doubt = agent.wait_for("doubt", SOON, |status| status.gpu["reason"] != "DriverReady").await;
    assert_eq!(
        (&doubt.gpu["open"], label_keys(&doubt)),
        (&true.into(), all.to_vec()),
        "one failed probe closes nothing"
    );
    let closed = agent.wait_for("a closed gate", SOON, |status| status.gpu["open"] == false).await;
    assert_eq!(label_keys(&closed), ["weights.stoker.dev/a"]);
    assert!(!closed.ready);

    agent.write_list(&list(&[&first, &second]));
    let status =
        agent.wait_for("the new entry", SOON, |status| status.entries.len() == 2 && status.all_warm()).await;
    assert_eq!(label_keys(&status), ["weights.stoker.dev/a", "weights.stoker.dev/b"]);
    assert_current(&agent, "b", &[("b.bin", b"second")]);

    gpus.load_driver();
    agent
        .wait_for("the gate's return", SOON, |status| {
            status.ready && status.labels.contains_key("stoker.dev/gpu")
        })
        .await;
}

#[tokio::test]
async fn a_gate_that_was_open_in_this_boot_holds_no_pulling_after_a_restart() {
    let gpus = Gpus::healthy(1);
    let nginx = Nginx::start().await;
    nginx.put("a.bin", b"first");
    let mut agent = agent(&gpus);
    agent.start().await;
    agent.wait_for("an open gate", SOON, |status| status.gpu["open"] == true && status.ready).await;
    agent.stop(SOON).await;
    gpus.unload_driver();
    agent.write_list(&list(&[&format!("id: a, weights: \"{}\"", nginx.url("a.bin"))]));
    agent.start().await;
    let status = agent.wait_for("warmth", SOON, Status::all_warm).await;
    assert_eq!(label_keys(&status), ["weights.stoker.dev/a"]);
}

#[tokio::test]
async fn with_gate_label_pulling_starts_at_once_and_every_label_waits() {
    let gpus = Gpus::without_driver(2);
    let nginx = Nginx::start().await;
    nginx.put("a.bin", b"first");
    let mut agent = agent(&gpus).arg("--gate=label");
    agent.write_list(&list(&[&format!("id: a, weights: \"{}\", required: true", nginx.url("a.bin"))]));
    agent.start().await;
    let status = agent.wait_for("warmth", SOON, Status::all_warm).await;
    assert_eq!(status.gpu["open"], false);
    assert!(!status.ready);
    assert!(status.labels.is_empty(), "{:?}", status.labels);
    gpus.load_driver();
    let status = agent.wait_for("ready", SOON, |status| status.ready).await;
    assert_eq!(label_keys(&status), ["stoker.dev/gpu", "stoker.dev/ready", "weights.stoker.dev/a"]);
}

#[tokio::test]
async fn a_node_without_gpus_waits_unless_it_is_told_to_proceed() {
    let nginx = Nginx::start().await;
    nginx.put("a.bin", b"first");
    let entry = format!("id: a, weights: \"{}\", required: true", nginx.url("a.bin"));
    let none = Gpus::none();
    let mut waits = agent(&none);
    waits.write_list(&list(&[&entry]));
    waits.start().await;
    let status = waits.wait_for("a hold", SOON, |status| code(status, "a").as_deref() == Some("NoGpu")).await;
    assert_eq!(status.gpu["phase"], "NotApplicable");
    let advice = &status.entry("a").unwrap().reason.as_ref().unwrap().message;
    assert!(advice.contains("--no-gpu=proceed"), "{advice}");
    assert_eq!(nginx.requests(), Vec::<String>::new());
    assert!(status.labels.is_empty(), "{status:?}");

    let mut proceeds = agent(&none).arg("--no-gpu=proceed");
    proceeds.write_list(&list(&[&entry]));
    proceeds.start().await;
    let status = proceeds.wait_for("warmth", SOON, |status| status.all_warm() && status.ready).await;
    assert_eq!(label_keys(&status), ["stoker.dev/ready", "weights.stoker.dev/a"]);
}
