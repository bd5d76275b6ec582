//! A driver that doesn't tolerate the startup taint and an agent that waits for the driver: people are told.

use serde_json::{Value, json};

use crate::parts::{
    Bed, BedOptions, Gpus, ImageBuilder, Installed, Layer, NodeHistory, START, list_of, push_app,
};

const TAINT: &str = "stoker.dev/not-ready";
const DRIVER: &str = "/apis/apps/v1/namespaces/kube-system/daemonsets/nvidia-driver";
const EVENTS: &str = "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name=node-a";

/// What installs a driver: a DaemonSet whose pod loads the stand-in's, and stays.
fn driver(image: &str, gpus: &Gpus) -> Value {
    let dir = gpus.directory();
    let script = format!("{}exec sleep 1000", gpus.loading_script());
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "nvidia-driver", "namespace": "kube-system"},
        "spec": {
            "selector": {"matchLabels": {"app": "nvidia-driver"}},
            "template": {
                "metadata": {"labels": {"app": "nvidia-driver"}},
                "spec": {
                    "hostNetwork": true,
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "driver",
                        "image": image,
                        "args": [script],
                        "securityContext": {"privileged": true},
                        "volumeMounts": [{"name": "host", "mountPath": dir}],
                    }],
                    "volumes": [{"name": "host", "hostPath": {"path": dir, "type": "Directory"}}],
                },
            },
        },
    })
}

async fn driver_pods(installed: &Installed) -> Vec<Value> {
    let path = "/api/v1/namespaces/kube-system/pods?labelSelector=app=nvidia-driver";
    let pods = installed.bed.control.call("GET", path, None).await;
    pods["items"].as_array().cloned().unwrap_or_default()
}

fn is_tainted(node: &Value) -> bool {
    node["spec"]["taints"].as_array().into_iter().flatten().any(|taint| taint["key"] == TAINT)
}

#[tokio::test]
async fn j_a_driver_that_does_not_tolerate_the_taint_never_starts_and_an_event_says_so() {
    let options = BedOptions {
        kubelet: json!({"registerWithTaints": [{"key": TAINT, "effect": "NoSchedule"}]}),
        ..BedOptions::default()
    };
    let bed = Bed::start_with(&["node-a"], &options).await;
    let app = push_app(&bed.registry, "team/app", "app").await;
    let loader = ["/bin/sh", "/bin/mkdir", "/bin/mv", "/bin/sleep"];
    let loader =
        loader.into_iter().fold(ImageBuilder::new(), |image, path| image.layer(Layer::new().program(path)));
    let loader = bed.registry.push(&loader.entrypoint(&["/bin/sh", "-c"]).build(), "driver", "v1").await;
    let list = list_of(&[&format!("id: app, image: \"{}\", required: true", app.by_tag())]);
    let installed = Installed::on_with(bed, Gpus::without_driver(2), &list, |overlay| {
        overlay.env("agent", "STOKER_GATE_WARN_AFTER", "3")
    })
    .await;
    let control = &installed.bed.control;
    let history = NodeHistory::follow(control, "node-a").await;
    control.apply(&driver(&loader.by_tag(), &installed.gpus).to_string()).await;

    // The controller of DaemonSets doesn't even make the pod.
    let refused = async || {
        let driver = control.call("GET", DRIVER, None).await;
        (driver["status"]["observedGeneration"] == 1).then_some(driver)
    };
    let refused = installed.wait("node-a", "the controller's verdict", START, refused).await;
    assert_eq!(refused["status"]["desiredNumberScheduled"], 0, "{refused}");

    let warned = async || {
        let events = control.call("GET", EVENTS, None).await;
        events["items"]
            .as_array()?
            .iter()
            .find(|event| event["reason"] == "DriverMayNotTolerateTaint")
            .cloned()
    };
    let warning = installed.wait("node-a", "the warning", START, warned).await;
    assert_eq!((&warning["type"], &warning["involvedObject"]["kind"]), (&"Warning".into(), &"Node".into()));
    let message = warning["message"].as_str().expect("a message");
    assert!(message.starts_with("no usable GPU for more than 3 seconds: "), "{message}");
    assert!(message.contains("has a GPU and the taint stoker.dev/not-ready"), "{message}");
    assert!(message.contains("toleration for stoker.dev/not-ready"), "{message}");
    assert!(is_tainted(&installed.node("node-a").await) && driver_pods(&installed).await.is_empty());
    assert!(installed.labels("node-a").await.is_empty());

    // What the event advises.
    let toleration = json!([{"key": TAINT, "operator": "Exists"}]);
    let patch = json!({"spec": {"template": {"spec": {"tolerations": toleration}}}});
    control.call("PATCH", DRIVER, Some(&patch)).await;
    installed.wait_labels("node-a", &["image.stoker.dev/app", "stoker.dev/gpu", "stoker.dev/ready"]).await;
    let open = async || (!is_tainted(&installed.node("node-a").await)).then_some(());
    installed.wait("node-a", "the taint to go", START, open).await;
    let pods = driver_pods(&installed).await;
    assert_eq!(pods.len(), 1, "the driver was installed by its pod");
    assert_eq!(pods[0]["status"]["phase"], "Running", "{}", pods[0]["status"]);

    // The taint stood until all was said that it stands for.
    for version in history.until_now(control).await {
        let ready = version.labels().contains_key("stoker.dev/ready");
        assert!(is_tainted(&version.node) || ready, "at {}", version.version);
    }
    let events = installed.events("node-a").await;
    let warnings = events.iter().filter(|event| event.starts_with("DriverMayNotTolerateTaint"));
    assert_eq!(warnings.count(), 1, "told once: {events:?}");
}
