//! The test cluster itself: it starts, answers, stops, and leaves nothing.

use std::net::TcpListener;
use std::path::Path;

use serde_json::json;

use crate::parts::ControlPlane;

/// What is left of a part whose directory is or was `dir`: the directory, and processes that name it.
fn left_of(dir: &Path) -> Vec<String> {
    let dir = dir.to_string_lossy();
    let mut left: Vec<String> = std::fs::metadata(&*dir).map(|_| dir.to_string()).into_iter().collect();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(&*dir) {
            left.push(command);
        }
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    left.extend(mounts.lines().filter(|line| line.contains(&*dir)).map(str::to_owned));
    left
}

const AGENT: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: agent, namespace: default}
---
apiVersion: v1
kind: Pod
metadata: {name: agent, namespace: default}
spec:
  serviceAccountName: agent
  nodeName: fake-a
  containers: [{name: agent, image: none}]
";

#[tokio::test]
async fn a_control_plane_answers_and_leaves_nothing() {
    let control = ControlPlane::start().await;
    let dir = control.directory().to_owned();
    let address = control.address();
    control.fake_node("fake-a").await;
    let node = control.call("GET", "/api/v1/nodes/fake-a", None).await;
    assert_eq!(node["spec"]["taints"], json!(null));
    let ready = control.kubectl_ok(&["get", "node", "fake-a", "--no-headers"]).await;
    assert!(ready.split_whitespace().nth(1) == Some("Ready"), "{ready}");
    let version = control.client().await.apiserver_version().await.expect("a version");
    assert_eq!(version.git_version, "v1.36.3");
    let service = control.call("GET", "/api/v1/namespaces/default/services/kubernetes", None).await;
    let published = format!(
        "{}:{}",
        service["spec"]["clusterIP"].as_str().expect("an address"),
        service["spec"]["ports"][0]["port"]
    );
    assert_eq!(published, address.to_string());
    drop(control);
    assert_eq!(left_of(&dir), Vec::<String>::new());
    TcpListener::bind(address).expect("its port is free again");
}

#[tokio::test]
async fn tokens_are_the_agents_own_and_the_audit_log_tells_who_asked() {
    let control = ControlPlane::start().await;
    control.fake_node("fake-a").await;
    control.apply(AGENT).await;
    let pod = control.call("GET", "/api/v1/namespaces/default/pods/agent", None).await;
    let uid = pod["metadata"]["uid"].as_str().expect("a uid");
    // The first is made by the API server, the second is signed here.
    for seconds in [3600, 60] {
        let token = control.token("default", "agent", Some(("agent", uid)), seconds).await;
        let kubeconfig = control.kubeconfig_for_token(&token);
        let who = control.kubectl_with(&kubeconfig, &["auth", "whoami", "-o", "json"]).await;
        let who: serde_json::Value = serde_json::from_slice(&who.stdout).expect("JSON");
        let user = &who["status"]["userInfo"];
        assert_eq!(user["username"], "system:serviceaccount:default:agent");
        assert_eq!(user["extra"]["authentication.kubernetes.io/node-name"], json!(["fake-a"]));
        let refused = control.kubectl_with(&kubeconfig, &["get", "node", "fake-a"]).await;
        assert!(String::from_utf8_lossy(&refused.stderr).contains("Forbidden"), "{refused:?}");
    }
    let log = control.audit_log().await;
    let refused = |event: &&serde_json::Value| {
        event["user"]["username"] == "system:serviceaccount:default:agent"
            && event["verb"] == "get"
            && event["requestURI"].as_str().is_some_and(|uri| uri.starts_with("/api/v1/nodes/fake-a"))
            && event["responseStatus"]["code"] == 403
    };
    assert_eq!(log.iter().filter(refused).count(), 2);
}

#[tokio::test]
async fn an_api_server_that_was_killed_comes_back_with_all_it_had() {
    let mut control = ControlPlane::start_with_controllers().await;
    control.fake_node("fake-a").await;
    let before = control.address();
    control.kill_api_server();
    assert!(control.try_call("GET", "/readyz", None).await.is_err(), "it is down");
    control.start_api_server().await;
    assert_eq!(control.address(), before);
    control.call("GET", "/api/v1/nodes/fake-a", None).await;
    // The controllers have found it again too: a new namespace gets its service account.
    control.kubectl_ok(&["create", "namespace", "later"]).await;
    control
        .kubectl_ok(&["wait", "serviceaccount/default", "-n", "later", "--for=create", "--timeout=60s"])
        .await;
    let log = control.audit_log().await;
    assert!(log.len() > 100, "the log goes over the restart: {}", log.len());
}
