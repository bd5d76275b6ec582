//! What is shipped in `deploy/` is what a real API server takes, and its controllers make pods of.

use std::time::Duration;

use serde_json::{Value, json};

use crate::parts::{ControlPlane, Scratch, until};

fn deploy(path: &str) -> String {
    format!("{}/deploy/{path}", env!("CARGO_MANIFEST_DIR"))
}

#[tokio::test]
async fn the_api_server_takes_every_manifest_as_it_is() {
    let control = ControlPlane::start().await;
    // Without controllers there is none, and the example pod wants it.
    control.kubectl_ok(&["create", "serviceaccount", "default"]).await;
    let apply = async |how: &str, what: &str| {
        let dry = ["apply", "--server-side", "--validate=strict", "--dry-run=server", how, what];
        control.kubectl_ok(&dry).await
    };
    control.kubectl_ok(&["apply", "--server-side", "--validate=strict", "-k", &deploy("")]).await;
    for entry in std::fs::read_dir(deploy("examples")).expect("examples").flatten() {
        let path = entry.path();
        let name = path.to_string_lossy();
        if path.is_dir() {
            apply("-k", &name).await;
        } else if !name.ends_with("karpenter-nodepool.yaml") {
            apply("-f", &name).await;
        }
    }
    // A component is nothing by itself: all of them, over the base.
    let scratch = Scratch::new("components");
    let up = "../".repeat(scratch.path().components().count() - 1);
    let of = |path: &str| format!("{up}{}", deploy(path).trim_start_matches('/'));
    let names = ["every-linux-node", "flowcontrol", "root-disk", "taint"];
    let shipped = std::fs::read_dir(deploy("components")).expect("components").count();
    assert_eq!(shipped, names.len(), "each is tried here");
    let components: Vec<String> = names.iter().map(|name| of(&format!("components/{name}"))).collect();
    let kustomization = json!({"resources": [of("base")], "components": components});
    scratch.file("kustomization.yaml", kustomization.to_string());
    let applied = apply("-k", &scratch.path().to_string_lossy()).await;
    assert!(applied.contains("flowschema.flowcontrol.apiserver.k8s.io/stoker"), "{applied}");
}

#[tokio::test]
async fn the_agent_is_admitted_on_gpu_nodes_and_the_policy_is_understood() {
    let control = ControlPlane::start_with_controllers().await;
    for node in ["plain", "gpu"] {
        control.fake_node(node).await;
        let linux = json!({"metadata": {"labels": {"kubernetes.io/os": "linux"}}});
        control.call("PATCH", &format!("/api/v1/nodes/{node}"), Some(&linux)).await;
    }
    let labelled = json!({
        "metadata": {"labels": {"nvidia.com/gpu.present": "true"}},
        "spec": {"taints": [{"key": "stoker.dev/not-ready", "effect": "NoExecute"}]},
    });
    control.call("PATCH", "/api/v1/nodes/gpu", Some(&labelled)).await;
    control.kubectl_ok(&["apply", "--server-side", "-k", &deploy("")]).await;

    // Through pod security, the quota of its priority class, the node's taint.
    let pods = "/api/v1/namespaces/stoker-system/pods";
    let pod = until("a pod", Duration::from_secs(60), async || {
        let pods = control.call("GET", pods, None).await;
        pods["items"].as_array()?.iter().find(|pod| pod["spec"]["nodeName"].is_string()).cloned()
    })
    .await;
    assert_eq!(pod["spec"]["nodeName"], "gpu");
    assert_eq!(pod["spec"]["priorityClassName"], "system-node-critical");
    let set = "/apis/apps/v1/namespaces/stoker-system/daemonsets/stoker";
    let set = control.call("GET", set, None).await;
    assert_eq!(set["status"]["desiredNumberScheduled"], 1, "not on a node without GPUs");

    let policy = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/stoker-own-node";
    let status = until("the policy to be looked at", Duration::from_secs(60), async || {
        let policy = control.call("GET", policy, None).await;
        policy["status"]["observedGeneration"].is_number().then(|| policy["status"].clone())
    })
    .await;
    assert_eq!(status["typeChecking"]["expressionWarnings"], Value::Null);
}
