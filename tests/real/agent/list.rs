//! Lists that change while the agent runs, and lists that break.

use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;

use crate::node::{BUCKET, Node, SOON, agent, assert_current, blobs, code, label_keys, list, our_pins};
use crate::parts::{Agent, Gpus, Nginx, Status, Version, until};

fn listed(ids: &'static [&str]) -> impl Fn(&Status) -> bool {
    move |status| {
        status.done
            && status.all_warm()
            && status.entries.iter().map(|entry| &*entry.id).eq(ids.iter().copied())
    }
}

#[tokio::test]
async fn what_leaves_the_list_loses_label_pin_and_names_and_nothing_else_does() {
    let mut node = Node::start(Version::V2_4).await;
    let (gone, kept) = (node.push("team/gone", "gone").await, node.push("team/kept", "kept").await);
    node.nginx.put("gone.bin", b"going");
    node.s3.put(BUCKET, "kept/kept.bin", b"staying".to_vec()).await;
    let entries = [
        format!("id: gone-image, image: \"{}\"", gone.by_tag()),
        format!("id: gone-weights, weights: \"{}\"", node.nginx.url("gone.bin")),
        format!("id: kept-image, image: \"{}\"", kept.by_tag()),
        format!("id: kept-weights, weights: s3://{BUCKET}/kept/"),
    ];
    let lines = entries.each_ref().map(String::as_str);
    node.agent.write_list(&list(&lines));
    node.agent.start().await;
    node.agent.wait_for("all", SOON, |status| status.entries.len() == 4 && status.all_warm()).await;
    let pins = our_pins(&node.containerd).await;
    assert_eq!(pins.iter().filter(|pin| pin.contains("team/gone")).count(), 2, "{pins:?}");
    let kept_file = node.agent.cache().join("weights/kept-weights/current/kept.bin");
    let (before, stored) = (kept_file.metadata().unwrap(), blobs(&node.agent));

    node.agent.write_list(&list(&lines[2..]));
    let status = node.agent.wait_for("the rest", SOON, listed(&["kept-image", "kept-weights"])).await;
    let keys = [
        "image.stoker.dev/kept-image",
        "stoker.dev/gpu",
        "stoker.dev/ready",
        "weights.stoker.dev/kept-weights",
    ];
    assert_eq!(label_keys(&status), keys);
    let names = node.agent.cache().join("weights/gone-weights");
    until("the names' end", SOON, async || (!names.exists()).then_some(())).await;
    let unpinned = async || {
        let pins = our_pins(&node.containerd).await;
        pins.iter().all(|pin| pin.contains("team/kept") || pin.contains(&kept.config.hex())).then_some(pins)
    };
    let pins = until("the pins' end", SOON, unpinned).await;
    assert_eq!(pins.iter().filter(|pin| pin.contains("team/kept")).count(), 2, "{pins:?}");
    let records = node.containerd.ctr_ok(&["images", "ls", "-q"]).await;
    assert!(
        records.contains(&gone.by_tag()),
        "only the pin goes, the image is kubelet's to collect: {records}"
    );
    assert_eq!(blobs(&node.agent), stored, "blobs stay until space is needed");
    let after = kept_file.metadata().unwrap();
    assert_eq!((before.ino(), before.ctime_nsec()), (after.ino(), after.ctime_nsec()), "untouched");

    // Listed again, it is warm without a byte.
    let asked =
        node.nginx.requests().into_iter().filter(|request| request.starts_with("GET /gone.bin")).count();
    node.agent.write_list(&list(&lines[1..]));
    node.agent.wait_for("its return", SOON, |status| status.entries.len() == 3 && status.all_warm()).await;
    assert_current(&node.agent, "gone-weights", &[("gone.bin", b"going")]);
    let asked_again =
        node.nginx.requests().into_iter().filter(|request| request.starts_with("GET /gone.bin")).count();
    assert!(asked_again <= asked + 1, "asked {asked} times, then {asked_again}");
}

/// As kubelet does it: the new files aside, a link beside, one rename.
fn swap_config_map(mount: &Path, version: &str, text: &str) {
    let dir = mount.join(format!("..{version}"));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("list.yaml"), text).unwrap();
    let next = mount.join("..data_tmp");
    symlink(format!("..{version}"), &next).unwrap();
    std::fs::rename(next, mount.join("..data")).unwrap();
    if !mount.join("list.yaml").is_symlink() {
        symlink("..data/list.yaml", mount.join("list.yaml")).unwrap();
    }
}

#[tokio::test]
async fn a_config_map_that_is_swapped_is_seen() {
    let gpus = Gpus::healthy(1);
    let nginx = Nginx::start().await;
    nginx.put("a.bin", b"first");
    nginx.put("b.bin", b"second");
    let entry = |id: &str| format!("id: {id}, weights: \"{}\"", nginx.url(&format!("{id}.bin")));
    let agent = agent(&gpus);
    let mount = agent.scratch().dir("config-map");
    swap_config_map(&mount, "one", &list(&[&entry("a")]));
    let mut agent = agent.env("STOKER_LIST", mount.join("list.yaml").to_str().unwrap());
    agent.start().await;
    agent.wait_for("a", SOON, listed(&["a"])).await;
    swap_config_map(&mount, "two", &list(&[&entry("a"), &entry("b")]));
    agent.wait_for("a and b", SOON, listed(&["a", "b"])).await;
    swap_config_map(&mount, "three", &list(&[&entry("b")]));
    agent.wait_for("b", SOON, listed(&["b"])).await;
    let names = agent.cache().join("weights/a");
    until("a's end", SOON, async || (!names.exists()).then_some(())).await;
}

/// The list's problems that the status tells.
fn list_errors(status: &Status) -> Vec<String> {
    let errors = status.list["errors"].as_array().cloned().unwrap_or_default();
    errors.iter().filter_map(|error| error.as_str().map(str::to_owned)).collect()
}

fn keeps(agent: &Agent, status: &Status) {
    assert_eq!(status.entries.iter().map(|entry| &*entry.state).collect::<Vec<_>>(), ["Warm", "Warm"]);
    for key in ["weights.stoker.dev/a", "weights.stoker.dev/b"] {
        assert!(status.labels.contains_key(key), "{:?}", status.labels);
    }
    assert_current(agent, "a", &[("a.bin", b"first")]);
    assert_current(agent, "b", &[("b.bin", b"second")]);
}

#[tokio::test]
async fn a_broken_list_drops_nothing_also_over_a_restart() {
    let gpus = Gpus::healthy(1);
    let nginx = Nginx::start().await;
    nginx.put("a.bin", b"first");
    nginx.put("b.bin", b"second");
    let entry = |id: &str| format!("id: {id}, weights: \"{}\"", nginx.url(&format!("{id}.bin")));
    let mut agent = agent(&gpus);
    let file = agent.write_list(&list(&[&entry("a"), &entry("b")]));
    agent.start().await;
    agent.wait_for("all", SOON, listed(&["a", "b"])).await;

    let broken = ["apiVersion: stoker.dev/v1\nkind: PrefetchList\nentries: [", "", "entries:\n"];
    for text in broken {
        agent.write_list(text);
        let noticed = |status: &Status| !list_errors(status).is_empty();
        keeps(&agent, &agent.wait_for("an error of the list", SOON, noticed).await);
        agent.write_list(&list(&[&entry("a"), &entry("b")]));
        agent.wait_for("its end", SOON, |status| list_errors(status).is_empty()).await;
    }
    std::fs::remove_file(&file).unwrap();
    let missing = |status: &Status| list_errors(status).iter().any(|error| error.contains("list.yaml"));
    keeps(&agent, &agent.wait_for("its absence", SOON, missing).await);

    agent.stop(SOON).await;
    agent.start().await;
    let settled = |status: &Status| missing(status) && status.all_warm() && !status.labels.is_empty();
    keeps(&agent, &agent.wait_for("the last good list", SOON, settled).await);
    agent.write_list(broken[0]);
    agent.kill9();
    agent.start().await;
    let broken = |status: &Status| !list_errors(status).is_empty() && !missing(status) && status.done;
    keeps(&agent, &agent.wait_for("the last good list", SOON, broken).await);

    // Only this empties it.
    agent.write_list(&list(&[]));
    agent.wait_for("an empty list", SOON, |status| status.entries.is_empty()).await;
    let weights = agent.cache().join("weights");
    let empty = async || (std::fs::read_dir(&weights).unwrap().count() == 0).then_some(());
    until("the names' end", SOON, empty).await;
}

#[tokio::test]
async fn a_bad_entry_keeps_its_last_good_version_also_over_a_restart() {
    let gpus = Gpus::healthy(1);
    let nginx = Nginx::start().await;
    nginx.put("a.bin", b"first");
    nginx.put("b.bin", b"second");
    let entry = |id: &str| format!("id: {id}, weights: \"{}\"", nginx.url(&format!("{id}.bin")));
    let mut agent = agent(&gpus);
    agent.write_list(&list(&[&entry("a"), &entry("b")]));
    agent.start().await;
    agent.wait_for("all", SOON, listed(&["a", "b"])).await;

    let bad = format!("{}, priority: 2000", entry("a"));
    agent.write_list(&list(&[&bad, &entry("b")]));
    let held = |status: &Status| code(status, "a").as_deref() == Some("LastGoodVersion");
    for _ in 0..2 {
        let status = agent.wait_for("its last good version", SOON, held).await;
        keeps(&agent, &status);
        let reason = &status.entry("a").unwrap().reason.as_ref().unwrap().message;
        assert!(reason.contains("priority"), "{reason}");
        agent.stop(SOON).await;
        agent.start().await;
    }
    // An entry whose id can't be read stops all removals: it could be any of them.
    let nameless = "id: \"not an id\", image: nginx";
    agent.write_list(&list(&[&entry("b"), nameless]));
    let held =
        agent.wait_for("a hold on removals", SOON, |status| status.list["removals_held"] == true).await;
    assert!(!held.labels.is_empty());
    agent.write_list(&list(&[&entry("b")]));
    agent.wait_for("b alone", SOON, listed(&["b"])).await;
}

#[tokio::test]
async fn a_paused_list_starts_nothing_and_drops_nothing() {
    let gpus = Gpus::healthy(1);
    let nginx = Nginx::start().await;
    nginx.put("a.bin", b"first");
    nginx.put("b.bin", b"second");
    let entry = |id: &str| format!("id: {id}, weights: \"{}\"", nginx.url(&format!("{id}.bin")));
    let mut agent = agent(&gpus);
    agent.write_list(&list(&[&entry("a")]));
    agent.start().await;
    agent.wait_for("a", SOON, listed(&["a"])).await;
    agent.write_list(&format!("paused: true\n{}", list(&[&entry("b")])));
    let paused = |status: &Status| code(status, "b").as_deref() == Some("Paused");
    agent.wait_for("a pause", SOON, paused).await;
    assert!(!nginx.requests().iter().any(|request| request.contains("b.bin")), "{:?}", nginx.requests());
    assert_current(&agent, "a", &[("a.bin", b"first")]);
    agent.write_list(&list(&[&entry("b")]));
    agent.wait_for("b", SOON, listed(&["b"])).await;
}
