//! What leaves the list: its label goes first, and only then what the label stands for.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::parts::{Bed, Installed, Nginx, NodeHistory, START};
use crate::workload::bytes;

const GONE: [&str; 2] = ["image.stoker.dev/gone", "weights.stoker.dev/gone-model"];

/// While it is in force the API server takes these labels off no Node.
const HOLD: &str = "
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: hold-labels}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules: [{apiGroups: [''], apiVersions: [v1], operations: [UPDATE], resources: [nodes]}]
  validations:
  - expression: >-
      oldObject.metadata.?labels.orValue({}).all(key,
        !(key in ['image.stoker.dev/gone', 'weights.stoker.dev/gone-model'])
        || key in object.metadata.?labels.orValue({}))
    message: these labels are held by the test
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: hold-labels}
spec: {policyName: hold-labels, validationActions: [Deny]}
";

/// What of the entries is on the node: the weights' names, their content, and the pins of the image's records.
#[derive(Debug, PartialEq, Eq)]
struct Goods {
    names: BTreeSet<PathBuf>,
    content: Vec<u8>,
    pins: BTreeSet<String>,
}

impl Goods {
    async fn on(installed: &Installed) -> Self {
        let node = installed.bed.node("node-a");
        let place = node.host_path("/var/cache/stoker/weights/gone-model");
        let mut names = BTreeSet::new();
        below(&place, &mut names);
        let content = std::fs::read(place.join("current/model.bin")).unwrap_or_default();
        let records = node.ctr(&["images", "ls"]).await;
        let records = String::from_utf8_lossy(&records.stdout).into_owned();
        let pinned = |line: &&str| line.contains("team/gone") && line.contains("stoker.dev/pinned=");
        let name = |line: &str| line.split_whitespace().next().unwrap().to_owned();
        Self { names, content, pins: records.lines().filter(pinned).map(name).collect() }
    }
}

fn below(dir: &Path, names: &mut BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().unwrap().is_dir() {
            below(&entry.path(), names);
        }
        names.insert(entry.path());
    }
}

/// The agent's requests to change its Node, as the audit log has them.
async fn patches(installed: &Installed) -> Vec<Value> {
    let log = installed.bed.control.audit_log().await;
    let is = |event: &Value| {
        event["user"]["username"] == "system:serviceaccount:stoker-system:stoker"
            && event["verb"] == "patch"
            && event["objectRef"]["resource"] == "nodes"
            && event["objectRef"]["subresource"].is_null()
    };
    log.into_iter().filter(is).collect()
}

#[tokio::test]
async fn c_an_entry_that_is_removed_loses_its_label_before_any_byte_goes() {
    let nginx = Nginx::start().await;
    let (model, kept) = (bytes(1, 2 << 20), bytes(2, 1 << 20));
    nginx.put("model.bin", &model);
    nginx.put("kept.bin", &kept);
    let installed = Installed::on(Bed::start(&["node-a"]).await).await;
    let (gone, stays) =
        (installed.push_app("team/gone", "gone").await, installed.push_app("team/kept", "kept").await);
    let entries = [
        format!("id: kept, image: \"{}\"", stays.by_tag()),
        format!("id: kept-model, weights: \"{}\"", nginx.url("kept.bin")),
        format!("id: gone, image: \"{}\"", gone.by_tag()),
        format!("id: gone-model, weights: \"{}\"", nginx.url("model.bin")),
    ];
    let entries = entries.each_ref().map(String::as_str);
    let rest =
        ["image.stoker.dev/kept", "stoker.dev/gpu", "stoker.dev/ready", "weights.stoker.dev/kept-model"];
    let mut all = [&rest[..], &GONE[..]].concat();
    all.sort_unstable();
    installed.list(&entries).await;
    let labels = installed.wait_labels("node-a", &all).await;
    let goods = Goods::on(&installed).await;
    assert!(goods.content == model && goods.pins.len() == 2, "{:?} {:?}", goods.names, goods.pins);
    let history = NodeHistory::follow(&installed.bed.control, "node-a").await;

    // As long as the API server keeps the labels, the goods stay, however often the agent asks.
    hold(&installed).await;
    let before = patches(&installed).await.len();
    installed.list(&entries[..2]).await;
    let refused = async || {
        let patches = patches(&installed).await;
        let refused = patches[before..].iter().filter(|event| event["responseStatus"]["code"] == 422);
        (refused.count() >= 2).then_some(())
    };
    installed.wait("node-a", "the agent to be refused twice", START, refused).await;
    assert_eq!(Goods::on(&installed).await, goods);
    assert_eq!(installed.labels("node-a").await, labels);

    installed.bed.control.kubectl_ok(&["delete", "validatingadmissionpolicybinding", "hold-labels"]).await;
    installed.wait_labels("node-a", &rest).await;
    let names = installed.bed.node("node-a").host_path("/var/cache/stoker/weights");
    let ended = async || {
        let goods = Goods::on(&installed).await;
        (goods.names.is_empty() && goods.pins.is_empty() && !names.join("gone-model").exists()).then_some(())
    };
    installed.wait("node-a", "the end of the names and the pins", START, ended).await;

    // The directory's time tells when the last of its names went: after the label had.
    let removed = jiff::Timestamp::try_from(names.metadata().unwrap().modified().unwrap()).unwrap();
    let dropped = patches(&installed).await;
    let dropped = dropped[before..].iter().find(|event| event["responseStatus"]["code"] == 200).unwrap();
    let dropped: jiff::Timestamp = dropped["stageTimestamp"].as_str().unwrap().parse().unwrap();
    // The kernel's time of a file is as old as its last tick.
    let tick = Duration::from_millis(10);
    assert!(removed + tick >= dropped, "the names went at {removed}, the label at {dropped}");

    let versions = history.until_now(&installed.bed.control).await;
    for pair in versions.windows(2) {
        let (before, after) = (pair[0].labels(), pair[1].labels());
        let lost: Vec<_> = before.keys().filter(|key| !after.contains_key(*key)).collect();
        assert!(lost.is_empty() || lost == GONE, "both go in one write, and nothing else: {lost:?}");
    }
    let kept_file = names.join("kept-model/current/kept.bin");
    assert!(std::fs::read(kept_file).unwrap() == kept, "what is listed stays");
}

/// Has the API server refuse to take the labels off, and waits until it does.
async fn hold(installed: &Installed) {
    let control = &installed.bed.control;
    control.apply(HOLD).await;
    let off = json!({"metadata": {"labels": {GONE[0]: null}}});
    let refuses = async || {
        let answer = control.try_call("PATCH", "/api/v1/nodes/node-a?dryRun=All", Some(&off)).await;
        answer.err().filter(|error| error.to_string().contains("held by the test")).map(drop)
    };
    installed.wait("node-a", "the policy to be in force", START, refuses).await;
}
