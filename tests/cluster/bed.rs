//! The test cluster with its nodes: pods run there as they do anywhere, and nothing of it is left.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::parts::{
    Bed, BedOptions, ImageBuilder, Layer, START, Scratch, hold_when_told, leaves_nothing_when_killed,
    left_of, part,
};

/// Pushes an image whose containers run a shell script; gives its reference.
async fn push_shell(bed: &Bed, script: &str) -> String {
    let image = ImageBuilder::new()
        .layer(Layer::new().program("/bin/sh").program("/bin/sleep"))
        .entrypoint(&["/bin/sh", "-c", script]);
    bed.registry.push(&image.build(), "shell", "1").await.by_tag()
}

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: waits, namespace: default}
spec:
  hostNetwork: true
  terminationGracePeriodSeconds: 1
  containers: [{name: it, image: IMAGE, imagePullPolicy: IfNotPresent, securityContext: {privileged: true}}]
";

/// What kubelet, containerd and their like are known to set in a kernel.
fn kernel_settings() -> Vec<(&'static str, String)> {
    let settings = [
        "kernel/keys/root_maxbytes",
        "kernel/keys/root_maxkeys",
        "kernel/panic",
        "kernel/panic_on_oops",
        "net/ipv4/conf/all/route_localnet",
        "net/ipv4/ip_forward",
        "vm/max_map_count",
        "vm/overcommit_memory",
        "vm/panic_on_oom",
    ];
    let read = |name| std::fs::read_to_string(Path::new("/proc/sys").join(name)).unwrap_or_default();
    settings.map(|name| (name, read(name))).to_vec()
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
    let script = "echo \"$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT\"; exec sleep 1000";
    let image = push_shell(&bed, script).await;
    bed.control.apply(&POD.replace("IMAGE", &image)).await;
    let running = bed.pod_running("waits").await;
    assert_eq!(running["spec"]["nodeName"], "node-a");
    assert_eq!(bed.pod_logs("waits").await.trim(), bed.control.address().to_string());
    let events = bed.events_of("waits").await;
    assert!(events.iter().any(|event| event.starts_with("Pulled: Successfully pulled")), "{events:?}");
    assert!(events.iter().all(|event| !event.starts_with("Failed")), "{events:?}");
    assert_eq!(bed.node_labels("node-a").await["kubernetes.io/hostname"], "node-a");

    let node = bed.node("node-a");
    let dirs = [bed.control.directory(), bed.registry.directory(), node.directory()];
    hold_when_told(&dirs).await;
    assert!(node.images().await.contains(&image));
    assert!(node.host_path("/var/log/pods").read_dir().expect("a directory").next().is_some());
    assert!(node.ctr(&["task", "ls"]).await.status.success());
    bed.control.kubectl_ok(&["delete", "pod", "waits", "--wait"]).await;
    node.remove_image(&image).await;
    assert!(!node.images().await.contains(&image));

    let dirs = dirs.map(Path::to_owned);
    let address = bed.control.address();
    assert!(dirs.iter().all(|dir| left_of(dir).len() > 1));
    drop(bed);
    for dir in &dirs {
        assert_eq!(left_of(dir), Vec::<String>::new());
    }
    TcpListener::bind(address).expect("the API server's port is free again");
    assert_eq!(usual_places(), places);
    assert_eq!(kernel_settings(), settings);
}

#[tokio::test]
async fn a_killed_run_with_a_bed_and_a_running_pod_leaves_nothing() {
    let (settings, places) = (kernel_settings(), usual_places());
    leaves_nothing_when_killed("bed::a_bed_runs_a_pod_from_its_registry_and_leaves_nothing").await;
    assert_eq!(usual_places(), places);
    assert_eq!(kernel_settings(), settings);
}

const DAEMON: &str = "
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: daemon, namespace: default}
spec:
  selector: {matchLabels: {app: daemon}}
  template:
    metadata: {labels: {app: daemon}}
    spec:
      hostNetwork: true
      terminationGracePeriodSeconds: 1
      tolerations: [{operator: Exists}]
      priorityClassName: system-node-critical
      containers:
      - name: it
        image: IMAGE
        env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
        securityContext:
          readOnlyRootFilesystem: true
          allowPrivilegeEscalation: false
          capabilities: {drop: [ALL]}
          seccompProfile: {type: RuntimeDefault}
        volumeMounts:
        - {name: cache, mountPath: /cache}
        - {name: run, mountPath: /run/containerd, mountPropagation: HostToContainer}
        - {name: given, mountPath: /given, readOnly: true}
      volumes:
      - {name: cache, hostPath: {path: /var/cache/stoker, type: Directory}}
      - {name: run, hostPath: {path: /run/containerd, type: Directory}}
      - {name: given, hostPath: {path: /opt/given, type: Directory}}
";

#[tokio::test]
async fn two_nodes_have_directories_of_their_own_and_their_pods_outlive_kubelet() {
    let given = Scratch::new("given");
    given.file("word", "hello\n");
    let options = BedOptions {
        kubelet: json!({"registerWithTaints": [{"key": "stoker.dev/not-ready", "effect": "NoSchedule"}]}),
        binds: vec![
            (given.path().to_owned(), "/opt/given".to_owned()),
            (part("kubernetes-1.36.3", "kubectl"), "/opt/given/kubectl".to_owned()),
        ],
    };
    let mut bed = Bed::start_with(&["node-a", "node-b"], &options).await;
    // With the pod's own token, at the address and with the certificate that any pod finds.
    let script = r#"if [ -n "$NODE" ] && [ -S /run/containerd/containerd.sock ] && read word < /given/word; then
            path='{.status.userInfo.extra.authentication\.kubernetes\.io/node-name[0]}'
            echo "$word $NODE $(/given/kubectl auth whoami -o jsonpath="$path" 2>&1)" >> /cache/who
        fi
        exec sleep 1000"#;
    let image = push_shell(&bed, script).await;
    bed.control.apply(&DAEMON.replace("IMAGE", &image)).await;
    let who = |bed: &Bed, node| std::fs::read_to_string(bed.node(node).host_path("/var/cache/stoker/who"));
    for node in ["node-a", "node-b"] {
        let said = async || who(&bed, node).ok().filter(|said| said.ends_with('\n'));
        let said = bed.wait("a word of the pod", START, said).await;
        assert_eq!(said, format!("hello {node} {node}\n"));
    }

    // This one isn't on the host's network.
    let waits = POD.replace("IMAGE", &image).replace("hostNetwork: true", "hostNetwork: false");
    bed.control.apply(&waits).await;
    let refused = async || {
        let pod = bed.control.call("GET", "/api/v1/namespaces/default/pods/waits", None).await;
        let conditions = pod["status"]["conditions"].to_string();
        conditions.contains("untolerated taint").then_some(())
    };
    bed.wait("the scheduler's refusal", START, refused).await;

    let before = bed.node("node-a").processes();
    assert!(before.iter().any(|(_, line)| line == "sleep 1000"), "{before:?}");
    let node = bed.node_mut("node-a");
    node.kill_kubelet();
    node.kill_containerd();
    node.start_containerd().await;
    node.start_kubelet();
    let untaint = json!({"spec": {"taints": null}});
    bed.control.call("PATCH", "/api/v1/nodes/node-a", Some(&untaint)).await;
    let waits = bed.pod_running("waits").await;
    assert_eq!(waits["spec"]["nodeName"], "node-a");
    assert!(waits["status"]["podIP"].as_str().is_some_and(|ip| ip.starts_with("10.88.")), "{waits}");
    let after = bed.node("node-a").processes();
    assert!(before.iter().all(|process| after.contains(process)), "{before:?} went on: {after:?}");
    assert_eq!(
        who(&bed, "node-a").expect("a file"),
        "hello node-a node-a\n",
        "no container was started again"
    );

    // kubelet starts again what is killed.
    bed.control.kubectl_ok(&["delete", "pod", "waits", "--wait"]).await;
    bed.node("node-a").kill9("sleep 1000");
    let twice =
        async || who(&bed, "node-a").ok().filter(|said| said.lines().count() == 2 && said.ends_with('\n'));
    bed.wait("a container in place of the killed one", START, twice).await;
}
