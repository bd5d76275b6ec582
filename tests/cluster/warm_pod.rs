//! From a list to a running pod: what the list names is on the node and its Node says so, and a pod that prefers it
//! lands there and starts without a pull.

use serde_json::json;

use crate::parts::{Bed, EMPTY, Gpus, Installed, S3, START, list_of};
use crate::workload::{affinity, bytes, pod, revision, succeeded, sums};

const MODEL: &str = "/var/cache/stoker/weights/llama/current";

/// A model of several files, one of them in a directory, in a bucket.
async fn model(s3: &S3) -> Vec<(&'static str, Vec<u8>)> {
    let files = vec![
        ("config.json", b"{}".to_vec()),
        ("model-1.safetensors", bytes(1, 3 << 20)),
        ("model-2.safetensors", bytes(2, (2 << 20) + 17)),
        ("tokenizer/tokenizer.json", bytes(3, 5000)),
    ];
    s3.make_bucket("models").await;
    for (path, bytes) in &files {
        s3.put("models", &format!("llama/{path}"), bytes.clone()).await;
    }
    files
}

/// Checks each file, and that nothing can be written.
const SCRIPT: &str = r#"
set -eu
cd /weights/llama/current/
printf '%s' "$SUMS" | sha256sum --check --strict -
if (echo spoilt > model-1.safetensors) 2>/dev/null || (: > new) 2>/dev/null; then
    echo "the weights can be written to"
    exit 3
fi
echo read
"#;

#[tokio::test]
async fn a_the_list_brings_goods_and_labels_and_a_pod_that_prefers_them_starts_there_without_pulling() {
    let s3 = S3::start().await;
    let files = model(&s3).await;
    let bed = Bed::start(&["node-a"]).await;
    bed.control.fake_node("node-b").await;
    // More room than any real node has.
    let room = json!({"cpu": "10000", "memory": "100Ti", "pods": "110"});
    let room = json!({"status": {"capacity": room, "allocatable": room}});
    bed.control.call("PATCH", "/api/v1/nodes/node-b/status", Some(&room)).await;
    let installed = Installed::on_with(bed, Gpus::healthy(2), EMPTY, |overlay| {
        s3.env().into_iter().fold(overlay, |overlay, (name, value)| overlay.env("agent", name, &value))
    })
    .await;
    let app = installed.push_app("team/app", "app").await;
    let keys = ["image.stoker.dev/app", "stoker.dev/gpu", "stoker.dev/ready", "weights.stoker.dev/llama"];

    let image = format!("id: app, image: \"{}\", required: true", app.by_tag());
    installed.apply_list(&list_of(&[&image, "id: llama, weights: s3://models/llama/"])).await;
    let labels = installed.wait_labels("node-a", &keys).await;
    assert_eq!(labels["image.stoker.dev/app"], app.digest.hex()[..12]);
    assert_eq!(labels["weights.stoker.dev/llama"], revision(&files));
    assert_eq!(installed.labels("node-b").await, [].into(), "only its own Node is written to");

    let said = async || {
        let node = installed.node("node-a").await;
        assert_eq!(
            node["metadata"]["annotations"]["stoker.dev/boot-id"],
            node["status"]["nodeInfo"]["bootID"]
        );
        let conditions = node["status"]["conditions"].as_array()?;
        let is_true = |kind| conditions.iter().any(|one| one["type"] == kind && one["status"] == "True");
        (is_true("stoker.dev/GPUReady") && is_true("stoker.dev/Warm")).then_some(())
    };
    installed.wait("node-a", "the conditions", START, said).await;
    let node = installed.bed.node("node-a");
    assert!(node.images().await.contains(&app.by_tag()));
    let snapshots = node.ctr(&["snapshots", "ls"]).await;
    let snapshots = String::from_utf8_lossy(&snapshots.stdout).into_owned();
    assert!(snapshots.contains(&app.chain_id.to_string()), "{snapshots}");
    for (path, bytes) in &files {
        let found = std::fs::read(node.host_path(MODEL).join(path)).expect("it is in the cache");
        assert!(found == *bytes, "{path} is as it was published");
    }
    let status = installed.status("node-a").await.expect("an answer");
    assert!(status.all_warm() && status.ready && status.labels == labels, "{status:?}");
    // Nothing of it was left to containerd.
    assert!(status.entry("app").is_some_and(|entry| entry.reason.is_none()), "{status:?}");

    // Left to itself the scheduler takes the empty Node: it is the affinity that decides.
    let request = json!({"requests": {"cpu": "300m"}});
    let mut other = pod("other", &app.by_tag(), "true", json!({}));
    other["spec"]["containers"][0]["resources"] = request.clone();
    installed.bed.control.apply(&other.to_string()).await;
    assert_eq!(placed(&installed, "other").await, "node-b");

    let pulls = installed.bed.registry.pulls();
    let affinity = affinity(&["image/app", "weights/llama"]).await;
    let weights =
        json!({"name": "weights", "hostPath": {"path": "/var/cache/stoker/weights", "type": "Directory"}});
    let spec = json!({"affinity": affinity, "volumes": [weights]});
    let mut server = pod("server", &app.by_tag(), SCRIPT, spec);
    let container = &mut server["spec"]["containers"][0];
    container["resources"] = request;
    container["env"] = json!([{"name": "SUMS", "value": sums(&files)}]);
    container["volumeMounts"] = json!([{"name": "weights", "mountPath": "/weights", "readOnly": true}]);
    installed.bed.control.apply(&server.to_string()).await;
    assert_eq!(placed(&installed, "server").await, "node-a");
    succeeded(&installed.bed, "server").await;

    let logs = installed.bed.pod_logs("server").await;
    let checked: Vec<String> = files.iter().map(|(path, _)| format!("{path}: OK")).collect();
    assert_eq!(logs.lines().collect::<Vec<_>>(), [checked, vec!["read".to_owned()]].concat());
    let events = installed.bed.events_of("server").await;
    assert!(events.iter().any(|event| event.contains("already present on machine")), "{events:?}");
    assert!(!events.iter().any(|event| event.contains("Pulling")), "{events:?}");
    assert_eq!(installed.bed.registry.pulls(), pulls, "nobody asked the registry");

    // One that is always to be pulled asks what its tag points at, and for nothing that it has.
    let mut always = pod("always", &app.by_tag(), "true", json!({"nodeName": "node-a"}));
    always["spec"]["containers"][0]["imagePullPolicy"] = json!("Always");
    installed.bed.control.apply(&always.to_string()).await;
    succeeded(&installed.bed, "always").await;
    let asked = installed.bed.registry.pulls().split_off(pulls.len());
    assert!(!asked.is_empty() && asked.iter().all(|one| one.contains("/manifests/")), "{asked:?}");
}

/// Where the scheduler has put a pod.
async fn placed(installed: &Installed, pod: &str) -> String {
    let path = format!("/api/v1/namespaces/default/pods/{pod}");
    let node = async || {
        let pod = installed.bed.control.try_call("GET", &path, None).await.ok()?;
        pod["spec"]["nodeName"].as_str().map(str::to_owned)
    };
    installed.bed.wait(&format!("pod {pod} to be placed"), START, node).await
}
