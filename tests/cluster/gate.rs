//! The gate: nothing is pulled before the driver answers, and what the driver opened closes without it.

use serde::Deserialize;
use serde_json::Value;

use crate::parts::{Bed, Gpus, Installed, Nginx, NodeHistory, START, list_of, push_app};
use crate::workload::bytes;

const ALL: [&str; 4] =
    ["image.stoker.dev/app", "stoker.dev/gpu", "stoker.dev/ready", "weights.stoker.dev/model"];
const GOODS: [&str; 2] = [ALL[0], ALL[3]];

/// The probe container's newest answer.
#[derive(Debug, Deserialize)]
struct Notice {
    sequence: u64,
    said: Value,
}

impl Notice {
    fn newest(installed: &Installed) -> Option<Self> {
        let processes = installed.bed.node("node-a").processes();
        let (pid, _) = processes.iter().find(|(_, line)| line.contains("stoker gpu --watch"))?;
        let text = std::fs::read(format!("/proc/{pid}/root/run/stoker-probe/gpu.json")).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Waits for the answer that comes `count` after the newest one, and has `each` see all on the way.
    async fn after(installed: &Installed, count: u64, each: impl Fn(&Self)) {
        let first = Self::newest(installed).expect("the probe container answers").sequence;
        let reached = async || {
            let newest = Self::newest(installed)?;
            each(&newest);
            (newest.sequence >= first + count).then_some(())
        };
        installed.wait("node-a", &format!("{count} more answers of the probe"), START, reached).await;
    }
}

/// What was asked of the registry and the store for the goods.
fn asked(installed: &Installed, nginx: &Nginx) -> Vec<String> {
    let app = |request: &String| request.contains("/team/app/") && !request.starts_with("PUT ");
    installed.bed.registry.pulls().into_iter().filter(app).chain(nginx.requests()).collect()
}

/// Waits until the Node's condition of the GPUs has this reason, and the status that goes with it.
async fn gpu_condition(installed: &Installed, reason: &str) {
    let status = if reason == "DriverReady" { "True" } else { "False" };
    let is = |one: &Value| {
        one["type"] == "stoker.dev/GPUReady" && one["reason"] == reason && one["status"] == status
    };
    let condition = async || {
        let node = installed.node("node-a").await;
        node["status"]["conditions"].as_array()?.iter().any(is).then_some(())
    };
    installed.wait("node-a", &format!("the condition {status} for {reason}"), START, condition).await;
}

/// Has the driver fail so, and waits until that has closed the gate: by three probes, and no fewer.
async fn three_failures_close(installed: &Installed, script: &str, reason: &str) {
    let before = Notice::newest(installed).expect("the probe container answers").sequence;
    installed.gpus.answer(script);
    installed.wait_labels("node-a", &GOODS).await;
    let after = Notice::newest(installed).expect("the probe container answers").sequence;
    assert!(after >= before + 3, "closed by {} probes that said {script}", after - before);
    gpu_condition(installed, reason).await;
}

async fn the_driver_opens(installed: &Installed) {
    installed.gpus.load_driver();
    installed.wait_labels("node-a", &ALL).await;
    gpu_condition(installed, "DriverReady").await;
}

async fn upgrade_state(installed: &Installed, state: &str) {
    let label = format!("nvidia.com/gpu-driver-upgrade-state={state}");
    installed.bed.control.kubectl_ok(&["label", "--overwrite", "node", "node-a", &label]).await;
}

/// The GPU operator replaces the driver: its label closes the gate, though the driver answers still, and nobody asks
/// the driver for as long as the label says so.
async fn an_upgrade_closes_and_nobody_probes(installed: &Installed) {
    upgrade_state(installed, "drain-required").await;
    installed.wait_labels("node-a", &GOODS).await;
    gpu_condition(installed, "DriverUpgrade").await;
    let held = async || Notice::newest(installed)?.said.get("held").map(drop);
    installed.wait("node-a", "the probe to be held", START, held).await;
    // A probe that was started now would stay to be seen.
    installed.gpus.answer(r#"{"hang": true}"#);
    Notice::after(installed, 6, |notice| {
        assert_eq!(notice.said["held"], "DriverUpgrade", "{notice:?}");
        let processes = installed.bed.node("node-a").processes();
        let probes: Vec<_> = processes.iter().filter(|(_, line)| line.contains("--child")).collect();
        assert!(probes.is_empty(), "{probes:?}");
    })
    .await;
    assert!(installed.labels("node-a").await.keys().eq(GOODS));

    installed.gpus.load_driver();
    upgrade_state(installed, "upgrade-done").await;
    installed.wait_labels("node-a", &ALL).await;
}

#[tokio::test]
async fn b_nothing_is_pulled_before_the_driver_answers_and_its_labels_go_when_it_fails() {
    let nginx = Nginx::start().await;
    nginx.put("model.bin", bytes(1, 2 << 20));
    let bed = Bed::start(&["node-a"]).await;
    let app = push_app(&bed.registry, "team/app", "app").await;
    let image = format!("id: app, image: \"{}\", required: true", app.by_tag());
    let model = format!("id: model, weights: \"{}\", required: true", nginx.url("model.bin"));
    let installed =
        Installed::on_with(bed, Gpus::without_driver(2), &list_of(&[&image, &model]), |overlay| {
            // A probe that hangs is given up after a second.
            let args = ["gpu", "--watch", "--out=/run/stoker-probe/gpu.json", "--deadline=1"];
            overlay.patch_pod(&serde_json::json!({"containers": [{"name": "gpu-probe", "args": args}]}))
        })
        .await;
    let history = NodeHistory::follow(&installed.bed.control, "node-a").await;

    let held = |code: &str| code == "GateClosed";
    let status = installed.wait_status("node-a", "the gate to hold both", |status| {
        let codes = status.entries.iter().filter_map(|entry| entry.reason.as_ref());
        codes.filter(|reason| held(&reason.code)).count() == 2
    });
    let status = status.await;
    assert!(!status.ready && status.labels.is_empty(), "{status:?}");
    assert_eq!(status.gpu["reason"], "DriverNotLoaded");
    gpu_condition(&installed, "DriverNotLoaded").await;
    Notice::after(&installed, 6, |_| ()).await;
    assert_eq!(asked(&installed, &nginx), [""; 0], "nobody was asked for anything");
    assert!(!installed.bed.node("node-a").images().await.contains(&app.by_tag()));
    for version in history.until_now(&installed.bed.control).await {
        assert!(!version.labels().keys().any(|key| key.contains("stoker.dev/")), "{:?}", version.labels());
    }

    the_driver_opens(&installed).await;
    installed.wait_status("node-a", "nothing left to do", |status| status.done && status.all_warm()).await;
    let (fetched, warm) = (asked(&installed, &nginx), history.so_far().len());
    assert!(fetched.len() > 4, "{fetched:?}");

    // NVML_ERROR_UNKNOWN, with the module there.
    three_failures_close(&installed, r#"{"init": 999}"#, "DriverError").await;
    the_driver_opens(&installed).await;
    three_failures_close(&installed, r#"{"hang": true}"#, "ProbeTimedOut").await;
    the_driver_opens(&installed).await;
    an_upgrade_closes_and_nobody_probes(&installed).await;

    for version in &history.until_now(&installed.bed.control).await[warm..] {
        let labels = version.labels();
        assert!(GOODS.iter().all(|key| labels.contains_key(*key)), "at {}: {labels:?}", version.version);
    }
    assert_eq!(asked(&installed, &nginx), fetched, "nothing was fetched again");
}
