//! What leaves the list: its label goes first, and only then what the label stands for.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::parts::{Bed, Installed, Nginx, NodeHistory, START};
use crate::workload::bytes;

const WEIGHTS: &str = "/var/cache/stoker/weights";
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
    reason: Forbidden
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
        let place = node.host_path(WEIGHTS).join("gone-model");
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
    for (name, bytes) in [("first.bin", &kept), ("model.bin", &model), ("kept.bin", &kept)] {
        nginx.put(name, bytes);
    }
    let installed = Installed::on(Bed::start(&["node-a"]).await).await;
    let (gone, stays) =
        (installed.push_app("team/gone", "gone").await, installed.push_app("team/kept", "kept").await);
    let entries = [
        format!("id: kept, image: \"{}\"", stays.by_tag()),
        format!("id: kept-model, weights: \"{}\"", nginx.url("kept.bin")),
        format!("id: gone, image: \"{}\"", gone.by_tag()),
        format!("id: gone-model, weights: \"{}\"", nginx.url("model.bin")),
        format!("id: first, weights: \"{}\"", nginx.url("first.bin")),
    ];
    let entries = entries.each_ref().map(String::as_str);
    let rest =
        ["image.stoker.dev/kept", "stoker.dev/gpu", "stoker.dev/ready", "weights.stoker.dev/kept-model"];
    let mut both = [&rest[..], &GONE[..]].concat();
    both.sort_unstable();
    let mut all = [&both[..], &["weights.stoker.dev/first"]].concat();
    all.sort_unstable();
    installed.list(&entries).await;
    installed.wait_labels("node-a", &all).await;
    let goods = Goods::on(&installed).await;
    assert!(goods.content == model && goods.pins.len() == 2, "{:?} {:?}", goods.names, goods.pins);
    let history = NodeHistory::follow(&installed.bed.control, "node-a").await;

    // The directory's time tells when a name in it went: after the API server had answered that the label is off.
    let asked = patches(&installed).await.len();
    installed.list(&entries[..4]).await;
    let labels = installed.wait_labels("node-a", &both).await;
    let removed = names_end(&installed, "first").await;
    let dropped = accepted(&patches(&installed).await[asked..]);
    assert!(removed >= dropped, "the names went at {removed}, the label at {dropped}");

    // As long as the API server keeps the labels, the goods stay, however often the agent asks.
    hold(&installed).await;
    let asked = patches(&installed).await.len();
    installed.list(&entries[..2]).await;
    let refused = async || {
        let patches = patches(&installed).await;
        let refused = patches[asked..].iter().filter(|event| event["responseStatus"]["code"] == 403);
        (refused.count() >= 2).then_some(())
    };
    installed.wait("node-a", "the agent to be refused twice", START, refused).await;
    assert_eq!(Goods::on(&installed).await, goods);
    assert_eq!(installed.labels("node-a").await, labels);

    installed.bed.control.kubectl_ok(&["delete", "validatingadmissionpolicybinding", "hold-labels"]).await;
    installed.wait_labels("node-a", &rest).await;
    let removed = names_end(&installed, "gone-model").await;
    let dropped = accepted(&patches(&installed).await[asked..]);
    assert!(removed >= dropped, "the names went at {removed}, the labels at {dropped}");
    let unpinned = async || Goods::on(&installed).await.pins.is_empty().then_some(());
    installed.wait("node-a", "the end of the pins", START, unpinned).await;

    let versions = history.until_now(&installed.bed.control).await;
    let lost = versions.windows(2).flat_map(|pair| {
        let after = pair[1].labels();
        pair[0].labels().into_keys().filter(move |key| !after.contains_key(key))
    });
    let lost: Vec<String> = lost.collect();
    assert_eq!(lost, [&["weights.stoker.dev/first"], &GONE[..]].concat(), "each once, and nothing else");
    let kept_file = installed.bed.node("node-a").host_path(WEIGHTS).join("kept-model/current/kept.bin");
    assert!(std::fs::read(kept_file).unwrap() == kept, "what is listed stays");
}

/// Waits until an entry has no name in the cache any more, and tells when the last one went. The kernel's time of a
/// directory is as old as its last tick, so a tick is added.
async fn names_end(installed: &Installed, id: &str) -> jiff::Timestamp {
    let weights = installed.bed.node("node-a").host_path(WEIGHTS);
    let gone = async || (!weights.join(id).exists()).then_some(());
    installed.wait("node-a", &format!("the end of the names of {id}"), START, gone).await;
    let changed = weights.metadata().unwrap().modified().unwrap();
    jiff::Timestamp::try_from(changed).unwrap() + Duration::from_millis(10)
}

/// When the API server had answered the first of these that it accepted.
fn accepted(patches: &[Value]) -> jiff::Timestamp {
    let accepted = patches.iter().find(|event| event["responseStatus"]["code"] == 200);
    accepted.unwrap()["stageTimestamp"].as_str().unwrap().parse().unwrap()
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
