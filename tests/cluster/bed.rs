//! The test cluster itself: it starts, answers, stops, and leaves nothing.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::parts::{Bed, ControlPlane, ImageBuilder, Layer, left_of};

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

/// A pod of an image that only waits; `more` is added to its spec.
fn pod(name: &str, image: &str, more: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: default}}
spec:
  hostNetwork: true
  terminationGracePeriodSeconds: 1
  containers: [{{name: it, image: \"{image}\", imagePullPolicy: IfNotPresent}}]
  {more}
"
    )
}

/// All settings of this machine's kernel that tell the same twice.
fn kernel_settings() -> BTreeMap<PathBuf, Vec<u8>> {
    ["kernel", "vm", "net/ipv4", "net/bridge", "net/netfilter"]
        .iter()
        .flat_map(|dir| std::fs::read_dir(Path::new("/proc/sys").join(dir)).into_iter().flatten().flatten())
        .map(|entry| entry.path())
        .filter(|path| !["random", "ns_last_pid", "nr_hugepages"].iter().any(|name| path.ends_with(name)))
        .filter_map(|path| Some((path.clone(), std::fs::read(path).ok()?)))
        .collect()
}

/// What kubelet and containerd would leave in the directories of a machine that isn't made for them.
fn usual_places() -> Vec<PathBuf> {
    let places = [
        "/etc/cni",
        "/opt/cni",
        "/run/stoker",
        "/usr/libexec/kubernetes",
        "/var/cache/stoker",
        "/var/lib/cni",
        "/var/lib/containerd",
        "/var/lib/kubelet",
        "/var/lib/stoker",
        "/var/log/containers",
        "/var/log/pods",
    ];
    let files = |place: &str| std::fs::read_dir(place).into_iter().flatten().flatten();
    let inside = places.iter().flat_map(|place| files(place)).map(|entry| entry.path());
    places.iter().map(PathBuf::from).filter(|path| path.exists()).chain(inside).collect()
}

#[tokio::test]
async fn a_bed_runs_a_pod_from_its_registry_and_leaves_nothing() {
    let (settings, places) = (kernel_settings(), usual_places());
    let bed = Bed::start(&["node-a"]).await;
    let image = ImageBuilder::new()
        .layer(Layer::new().program("/bin/sh").program("/bin/sleep"))
        .entrypoint(&[
            "/bin/sh",
            "-c",
            "echo \"$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT\"; exec sleep 1000",
        ])
        .build();
    let image = bed.registry.push(&image, "waits", "1").await.by_tag();
    bed.control.apply(&pod("waits", &image, "")).await;
    let running = bed.pod_running("waits").await;
    assert_eq!(running["spec"]["nodeName"], "node-a");
    assert_eq!(bed.pod_logs("waits").await.trim(), bed.control.address().to_string());
    let events = bed.events_of("waits").await;
    assert!(events.iter().any(|event| event.starts_with("Pulled: Successfully pulled")), "{events:?}");
    assert!(events.iter().all(|event| !event.starts_with("Failed")), "{events:?}");
    assert_eq!(bed.node_labels("node-a").await["kubernetes.io/hostname"], "node-a");

    let node = bed.node("node-a");
    assert!(node.images().await.contains(&image));
    assert!(node.host_path("/var/log/pods").read_dir().expect("a directory").next().is_some());
    assert!(node.ctr(&["task", "ls"]).await.status.success());
    bed.control.kubectl_ok(&["delete", "pod", "waits", "--wait"]).await;
    node.remove_image(&image).await;
    assert!(!node.images().await.contains(&image));

    let dirs = [bed.control.directory(), bed.registry.directory(), node.directory()].map(Path::to_owned);
    let address = bed.control.address();
    assert!(dirs.iter().all(|dir| left_of(dir).len() > 1));
    drop(bed);
    for dir in &dirs {
        assert_eq!(left_of(dir), Vec::<String>::new());
    }
    TcpListener::bind(address).expect("the API server's port is free again");
    assert_eq!(usual_places(), places);
    let changed =
        |(setting, value): &(PathBuf, Vec<u8>)| settings.get(setting).is_some_and(|was| was != value);
    let changed: Vec<PathBuf> = kernel_settings().into_iter().filter(changed).map(|(path, _)| path).collect();
    assert_eq!(changed, Vec::<PathBuf>::new());
}
