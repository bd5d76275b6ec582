//! `stoker uninstall`, against a real API server.

use std::path::Path;

use serde_json::{Value, json};

use crate::parts::ControlPlane;

const ADMIN: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules:
- {apiGroups: [''], resources: [nodes], verbs: [get, list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
subjects: [{kind: ServiceAccount, name: reader, namespace: default}]
";

/// How it ended, what it printed and what it complained about.
async fn uninstall(kubeconfig: &Path, args: &[&str]) -> (i32, String, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_stoker"));
    command.arg("uninstall").arg("--kubeconfig").arg(kubeconfig).args(args);
    let output = command.kill_on_drop(true).output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// A Node as an agent leaves it, with a label, an annotation, a condition and a taint of others on it.
async fn used_node(control: &ControlPlane, name: &str) {
    control.fake_node(name).await;
    let path = format!("/api/v1/nodes/{name}");
    let main = json!({
        "metadata": {
            "labels": {
                "stoker.dev/gpu": "ready",
                "image.stoker.dev/vllm": "0123456789ab",
                "weights.stoker.dev/llama": "0123456789ab",
                "example.com/stoker.dev": "theirs",
            },
            "annotations": {"stoker.dev/status": "{}", "example.com/note": "theirs"},
        },
        "spec": {"taints": [
            {"key": "example.com/theirs", "effect": "NoSchedule"},
            {"key": "stoker.dev/not-ready", "effect": "NoSchedule"},
        ]},
    });
    control.call("PATCH", &path, Some(&main)).await;
    let status = control.call("GET", &path, None).await["status"].clone();
    let mut conditions = status["conditions"].as_array().unwrap().clone();
    let now = "2026-01-01T00:00:00Z";
    for kind in ["stoker.dev/Warm", "stoker.dev/GPUReady"] {
        conditions.push(json!({"type": kind, "status": "True", "lastTransitionTime": now}));
    }
    let status = json!({"status": {"conditions": conditions}});
    control.call("PATCH", &format!("{path}/status"), Some(&status)).await;
}

async fn node(control: &ControlPlane, name: &str) -> Value {
    control.call("GET", &format!("/api/v1/nodes/{name}"), None).await
}

fn taints(node: &Value) -> Vec<&str> {
    let taints = node["spec"]["taints"].as_array().into_iter().flatten();
    taints.map(|taint| taint["key"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn every_key_of_ours_goes_and_nothing_else() {
    let control = ControlPlane::start().await;
    used_node(&control, "used").await;
    control.fake_node("unused").await;
    let before = node(&control, "used").await;
    let unused = node(&control, "unused").await;

    let (code, out, errors) = uninstall(control.kubeconfig(), &["--dry-run"]).await;
    assert_eq!((code, errors.as_str()), (0, ""), "{out}");
    assert!(
        out.contains("used    would lose 3 labels, 1 annotation, 2 conditions: image.stoker.dev/vllm"),
        "{out}"
    );
    assert_eq!(node(&control, "used").await, before, "a dry run changes nothing");

    let (code, out, errors) = uninstall(control.kubeconfig(), &[]).await;
    assert_eq!((code, errors.as_str()), (0, ""), "{out}");
    assert!(out.contains("used    lost 3 labels, 1 annotation, 2 conditions\n"), "{out}");
    assert!(out.contains("unused  nothing of Stoker's\n"), "{out}");
    assert!(out.contains("still has the taint stoker.dev/not-ready"), "{out}");
    let cleaned = node(&control, "used").await;
    let labels = cleaned["metadata"]["labels"].as_object().unwrap();
    let labels: Vec<&str> = labels.keys().map(String::as_str).collect();
    assert_eq!(labels, ["example.com/stoker.dev", "kubernetes.io/hostname"]);
    assert_eq!(cleaned["metadata"]["annotations"]["example.com/note"], "theirs");
    assert_eq!(cleaned["metadata"]["annotations"]["stoker.dev/status"], Value::Null);
    assert_eq!(cleaned["status"]["conditions"].as_array().unwrap().len(), 1);
    assert_eq!(cleaned["status"]["conditions"][0]["type"], "Ready");
    assert_eq!(taints(&cleaned), ["example.com/theirs", "stoker.dev/not-ready"]);

    let (code, out, _) = uninstall(control.kubeconfig(), &["--taint", "stoker.dev/not-ready"]).await;
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("used    lost 1 taint\n") && !out.contains("still has"), "{out}");
    assert_eq!(taints(&node(&control, "used").await), ["example.com/theirs"]);
    assert_eq!(node(&control, "unused").await, unused, "nothing was written to it");
}

#[tokio::test]
async fn a_node_that_cannot_be_cleaned_is_named_with_the_missing_right() {
    let control = ControlPlane::start().await;
    control.apply(ADMIN).await;
    used_node(&control, "used").await;
    control.fake_node("unused").await;
    let reader = control.kubeconfig_for_token(&control.token("default", "reader", None, 3600).await);
    let (code, out, errors) = uninstall(&reader, &[]).await;
    assert_eq!(code, 1, "{out}{errors}");
    assert!(out.contains("could not clean the Node used") && out.contains("cannot patch resource"), "{out}");
    assert!(out.contains("unused  nothing of Stoker's\n"), "{out}");
    assert!(errors.contains("whether agents still run isn't known"), "{errors}");
}

#[tokio::test]
async fn nodes_beyond_the_first_page_are_cleaned_and_agents_that_still_run_are_warned_of() {
    let control = ControlPlane::start().await;
    control.apply(ADMIN).await;
    for n in 0..205 {
        let labels = json!({"stoker.dev/gpu": "ready"});
        let node = json!({"metadata": {"name": format!("node-{n:03}"), "labels": labels}});
        control.call("POST", "/api/v1/nodes", Some(&node)).await;
    }
    let pod = json!({
        "metadata": {"name": "agent", "labels": {"app.kubernetes.io/name": "stoker"}},
        "spec": {
            "serviceAccountName": "reader",
            "nodeName": "node-000",
            "containers": [{"name": "agent", "image": "none"}],
        },
    });
    control.call("POST", "/api/v1/namespaces/default/pods", Some(&pod)).await;
    let (code, out, errors) = uninstall(control.kubeconfig(), &[]).await;
    assert_eq!(code, 0, "{out}{errors}");
    assert_eq!(out.lines().filter(|line| line.ends_with("lost 1 label")).count(), 205, "{out}");
    assert!(
        errors.contains("1 pod of Stoker's is still there") && errors.contains("delete the DaemonSet"),
        "{errors}"
    );
}

/// What it says without a kubeconfig, in this environment.
async fn complaint(env: &[(&str, &str)]) -> String {
    let home = tempfile::tempdir().unwrap();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_stoker"));
    command.arg("uninstall").env_clear().env("HOME", home.path()).envs(env.iter().copied());
    let output = command.kill_on_drop(true).output().await.unwrap();
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn without_a_cluster_it_says_what_was_tried() {
    let outside = complaint(&[]).await;
    assert!(outside.contains("no cluster is configured") && outside.contains("--kubeconfig"), "{outside}");
    let service = [("KUBERNETES_SERVICE_HOST", "10.96.0.1"), ("KUBERNETES_SERVICE_PORT", "443")];
    let inside = complaint(&service).await;
    assert!(inside.contains("the pod's own credentials") && inside.contains("automount"), "{inside}");
}

#[tokio::test]
async fn a_proxy_meant_for_registries_is_not_in_the_way() {
    let control = ControlPlane::start().await;
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_stoker"));
    command.args(["uninstall", "--dry-run", "--kubeconfig"]).arg(control.kubeconfig());
    for proxy in ["socks5://127.0.0.1:1", "http://127.0.0.1:1", "::"] {
        let output = command.env("HTTPS_PROXY", proxy).kill_on_drop(true).output().await.unwrap();
        assert!(output.status.success(), "{proxy}: {output:?}");
    }
}
