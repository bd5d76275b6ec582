//! The gate from outside: the real program, the real child process, and a stand-in for NVIDIA's library.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test's way to fail")]

mod standin;
#[path = "gate/watched.rs"]
mod watched;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use standin::Standin;
use stoker::gpu::{GpuConfig, Hold, spawn};
use stoker::types::{GpuPhase, GpuReason, GpuState};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Long enough for a slow machine; what is waited for comes much sooner.
const PATIENCE: Duration = Duration::from_secs(60);

/// A host with a driver to play.
struct Host {
    dir: TempDir,
    nvml: Standin,
}

impl Host {
    fn with_gpus(gpus: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        standin::sysfs(&dir.path().join("sys"), gpus);
        let nvml = Standin::new(dir.path().join("driver"));
        nvml.answer(&format!(r#"{{"devices":{gpus}}}"#));
        Self { dir, nvml }
    }

    fn sysfs(&self) -> PathBuf {
        self.dir.path().join("sys")
    }

    fn stoker(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stoker"));
        command.arg("gpu").arg("--sysfs-root").arg(self.sysfs());
        command.arg("--host-root").arg(self.dir.path()).args(arguments);
        command
    }

    /// Runs `stoker gpu --json` with the stand-in: its exit code and its answer.
    fn probe(&self, arguments: &[&str]) -> (i32, Value) {
        let library = self.nvml.library();
        let output = self.stoker(&["--json", "--nvml-path"]).arg(library).args(arguments).output().unwrap();
        answer(&output)
    }

    /// What a probe says when the stand-in plays this.
    fn says(&self, script: &str) -> (i32, String, String, String) {
        self.nvml.answer(script);
        let (code, answer) = self.probe(&[]);
        let word = |field: &str| answer[field].as_str().unwrap().to_owned();
        (code, word("phase"), word("reason"), word("message"))
    }

    fn config(&self) -> GpuConfig {
        GpuConfig {
            nvml_path: Some(self.nvml.library()),
            host_root: self.dir.path().to_owned(),
            sysfs_root: self.sysfs(),
            interval: Duration::from_millis(100),
            waiting_interval: Duration::from_millis(50),
            deadline: PATIENCE,
            ..GpuConfig::new(env!("CARGO_BIN_EXE_stoker"))
        }
    }
}

fn answer(output: &Output) -> (i32, Value) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let answer = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert_eq!(stderr, "", "nothing else is printed");
    (output.status.code().unwrap(), answer)
}

fn said(code: i32, phase: &str, reason: &str) -> (i32, String, String) {
    (code, phase.to_owned(), reason.to_owned())
}

#[test]
fn healthy() {
    let host = Host::with_gpus(8);
    let (code, answer) = host.probe(&[]);
    assert_eq!(code, 0);
    let library = host.nvml.library();
    let expected = serde_json::json!({
        "version": 1, "phase": "Ready", "reason": "DriverReady", "message": "driver 550.54.15, 8 GPUs",
        "devices": 8, "expected": 8, "driver_version": "550.54.15", "library": library, "module_loaded": true,
    });
    assert_eq!(answer, expected);
}

#[test]
fn every_code_of_init_has_its_reason() {
    let host = Host::with_gpus(1);
    for (init, phase, reason) in [
        (4, "Failed", "NoPermission"),
        (9, "Waiting", "DriverNotLoaded"),
        (12, "Waiting", "LibraryLoadError"),
        (18, "Failed", "VersionMismatch"),
        (27, "Waiting", "DriverBusy"),
        (28, "Degraded", "GpuCountMismatch"),
        (999, "Waiting", "DriverError"),
    ] {
        let (code, was_phase, was_reason, message) = host.says(&format!(r#"{{"init":{init}}}"#));
        assert_eq!((code, was_phase, was_reason), said(1, phase, reason), "{init}");
        assert!(message.starts_with(&format!("NVML {init} (")), "{message}");
    }
}

#[test]
fn states_of_the_devices() {
    let host = Host::with_gpus(2);
    for (script, code, phase, reason, message) in [
        (r#""device_error":{"index":1,"code":15}"#, 1, "Failed", "GpuLost", "GPU 1: NVML 15 (GPU is lost)"),
        (r#""device_error":{"index":0,"code":16}"#, 1, "Failed", "ResetRequired", "GPU 0: NVML 16"),
        (r#""device_error":{"index":0,"code":14}"#, 1, "Failed", "GpuFault", "GPU 0: NVML 14"),
        (r#""mig_pending":true"#, 1, "Waiting", "MigPending", "GPU 0: a change of its MIG mode"),
        (r#""remap_failure":true"#, 1, "Failed", "RowRemapFailed", "GPU 0: no spare row"),
        (
            r#""remap_pending":true"#,
            0,
            "Ready",
            "DriverReady",
            "driver 550.54.15, 2 GPUs; GPU 0: a row remapping",
        ),
        (r#""pages_pending":true"#, 0, "Ready", "DriverReady", "driver 550.54.15, 2 GPUs; GPU 0: a page"),
        (r#""persistence":false"#, 0, "Ready", "DriverReady", "driver 550.54.15, 2 GPUs; GPU 0: persistence"),
        (r#""driver_version":"535.1""#, 1, "Failed", "VersionMismatch", "the driver says 535.1"),
    ] {
        let (was_code, was_phase, was_reason, was_message) =
            host.says(&format!(r#"{{"devices":2,{script}}}"#));
        assert_eq!((was_code, was_phase, was_reason), said(code, phase, reason), "{script}");
        assert!(was_message.starts_with(message), "{script}: {was_message}");
    }
}

/// Each state through each version of the call that drivers have had.
#[test]
fn states_of_the_fabric() {
    let host = Host::with_gpus(1);
    for api in 1..=3 {
        for (fabric, code, phase, reason) in [
            (r#""state":0"#, 0, "Ready", "DriverReady"),
            (r#""state":1"#, 1, "Waiting", "FabricInProgress"),
            (r#""state":2"#, 1, "Waiting", "FabricInProgress"),
            (r#""state":3"#, 0, "Ready", "DriverReady"),
            (r#""state":3,"status":999"#, 1, "Failed", "FabricFailed"),
        ] {
            let (was_code, was_phase, was_reason, _) =
                host.says(&format!(r#"{{"fabric":{{"api":{api},{fabric}}}}}"#));
            assert_eq!(
                (was_code, was_phase, was_reason),
                said(code, phase, reason),
                "version {api}: {fabric}"
            );
        }
    }
    // Health came with v2 as a mask, with v3 as a summary.
    let (_, _, reason, _) = host.says(r#"{"fabric":{"api":3,"summary":2}}"#);
    assert_eq!(reason, "FabricFailed");
    let (_, _, reason, _) = host.says(r#"{"fabric":{"api":2,"mask":16}}"#);
    assert_eq!(reason, "FabricFailed");
    let (_, _, reason, message) = host.says(r#"{"fabric":{"api":3,"summary":3}}"#);
    assert_eq!(reason, "DriverReady");
    assert!(message.contains("limited capacity"), "{message}");
}

#[test]
fn fewer_gpus_than_the_bus_shows_or_than_expected() {
    let host = Host::with_gpus(8);
    host.nvml.answer(r#"{"devices":7}"#);
    let (code, answer) = host.probe(&[]);
    assert_eq!((code, &answer["reason"]), (1, &"GpuCountMismatch".into()));
    assert_eq!((&answer["devices"], &answer["expected"]), (&7.into(), &8.into()));
    assert_eq!(host.probe(&["--expected", "7"]).0, 0);
    host.nvml.answer(r#"{"devices":8}"#);
    assert_eq!(host.probe(&["--expected", "9"]).1["message"], "8 of 9 GPUs answer");
}

#[test]
fn no_nvidia_device_loads_nothing() {
    let host = Host::with_gpus(0);
    host.nvml.answer(r#"{"abort":true}"#);
    let (code, answer) = host.probe(&[]);
    assert_eq!(
        (code, &answer["phase"], &answer["reason"]),
        (0, &"NotApplicable".into(), &"NoNvidiaDevice".into())
    );
    let (code, answer) = host.probe(&["--expected", "8"]);
    assert_eq!((code, &answer["reason"]), (1, &"GpuCountMismatch".into()), "all eight fell off the bus");
}

#[test]
fn no_module_loads_nothing() {
    let host = Host::with_gpus(1);
    host.nvml.answer(r#"{"abort":true}"#);
    standin::unload_module(&host.sysfs());
    let (code, answer) = host.probe(&[]);
    assert_eq!((code, &answer["reason"]), (1, &"DriverNotLoaded".into()));
    assert_eq!(answer["module_loaded"], false);
}

#[test]
fn a_library_that_is_missing_or_garbage_or_found() {
    let host = Host::with_gpus(1);
    let search = || answer(&host.stoker(&["--json"]).output().unwrap());
    let (code, missing) = search();
    assert_eq!((code, &missing["reason"]), (1, &"LibraryNotFound".into()));

    let nowhere = host.dir.path().join("nowhere.so");
    let (_, named) = answer(&host.stoker(&["--json", "--nvml-path"]).arg(&nowhere).output().unwrap());
    assert_eq!(named["message"], format!("{} is not there", nowhere.display()));

    let found = host.dir.path().join("run/nvidia/driver/usr/lib64");
    let driver = Standin::new(&found);
    let (code, ready) = search();
    assert_eq!((code, &ready["reason"]), (0, &"DriverReady".into()));
    assert!(ready["library"].as_str().unwrap().ends_with("run/nvidia/driver/usr/lib64/libnvidia-ml.so.1"));

    let half = std::fs::read(driver.library()).unwrap();
    std::fs::remove_file(driver.library()).unwrap();
    for bytes in [&b"#!/bin/sh\n"[..], &half[..40], &[]] {
        std::fs::write(driver.library(), bytes).unwrap();
        let (code, garbage) = search();
        assert_eq!((code, &garbage["reason"]), (1, &"LibraryLoadError".into()), "{garbage}");
    }
}

#[test]
fn a_crash_and_a_hang_are_told_from_outside() {
    let host = Host::with_gpus(1);
    let (code, phase, reason, message) = host.says(r#"{"abort":true}"#);
    assert_eq!((code, phase, reason), said(1, "Waiting", "ProbeCrashed"));
    assert_eq!(message, "signal 6");
    host.nvml.answer(r#"{"hang":true}"#);
    let (code, answer) = host.probe(&["--deadline", "1"]);
    assert_eq!((code, &answer["reason"]), (1, &"ProbeTimedOut".into()));
}

#[test]
fn people_get_a_sentence_with_the_next_step() {
    let host = Host::with_gpus(1);
    host.nvml.answer(r#"{"init":18}"#);
    let output = host.stoker(&["--nvml-path"]).arg(host.nvml.library()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("Failed (VersionMismatch): "), "{text}");
    assert!(text.contains("restart the driver pod or reboot the node"), "{text}");
    assert!(text.contains("kernel module 550.54.15"), "{text}");
}

/// An agent that is killed leaves no probe behind, however hung.
#[test]
fn a_child_does_not_outlive_its_parent() {
    let host = Host::with_gpus(1);
    host.nvml.answer(r#"{"hang":true}"#);
    let mut child = host.stoker(&["--json", "--child", "--nvml-path"]);
    let mut child =
        child.arg(host.nvml.library()).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    drop(child.stdin.take());
    let status = child.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
}

/// A gpu task over a host, stopped when dropped.
struct Task {
    state: watch::Receiver<GpuState>,
    handle: JoinHandle<()>,
    hold: watch::Sender<Hold>,
    stop: CancellationToken,
}

impl Task {
    fn over(config: GpuConfig) -> Self {
        Self::held(config, Hold::No)
    }

    fn held(config: GpuConfig, hold: Hold) -> Self {
        let stop = CancellationToken::new();
        let (hold, holds) = watch::channel(hold);
        let (state, handle) = spawn(config, holds, stop.clone());
        Self { state, handle, hold, stop }
    }

    async fn until(&mut self, what: &str, is: impl FnMut(&GpuState) -> bool) -> GpuState {
        if let Ok(state) = timeout(PATIENCE, self.state.wait_for(is)).await {
            return state.unwrap().clone();
        }
        panic!("not {what}: {:?}", self.state.borrow());
    }

    async fn stop(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.handle).await.expect("the task ends on stop").unwrap();
    }
}

/// A task that has just begun waits for the driver, opens, and bears with a first failure.
async fn opens_and_is_doubted(host: &Host, task: &mut Task) {
    assert_eq!(*task.state.borrow(), GpuState::unknown(), "nothing is said before the first probe");
    let waiting = task.until("waiting", |state| state.reason == GpuReason::DriverNotLoaded).await;
    assert!(!waiting.open);

    host.nvml.answer(r#"{"devices":2}"#);
    let open = task.until("open", |state| state.open).await;
    assert_eq!((open.phase, open.devices, open.expected), (GpuPhase::Ready, 2, 2));
    assert_eq!(open.driver_version.as_deref(), Some(standin::VERSION));

    host.nvml.answer(r#"{"devices":2,"device_error":{"index":0,"code":15}}"#);
    let doubted = task.until("in doubt", |state| state.reason == GpuReason::GpuLost).await;
    assert!(doubted.open, "one failed probe doesn't close it");
}

#[tokio::test]
async fn waits_opens_and_survives_all_but_the_third_failure() {
    let host = Host::with_gpus(2);
    host.nvml.answer(r#"{"init":9}"#);
    let mut task = Task::over(host.config());
    opens_and_is_doubted(&host, &mut task).await;
    let closed = task.until("closed", |state| !state.open).await;
    assert_eq!((closed.phase, closed.devices), (GpuPhase::Failed, 1));
    task.stop().await;
}

#[tokio::test]
async fn an_unloaded_module_closes_at_once() {
    let host = Host::with_gpus(1);
    let mut task = Task::over(host.config());
    task.until("open", |state| state.open).await;
    standin::unload_module(&host.sysfs());
    let next = task.until("told", |state| state.reason != GpuReason::DriverReady).await;
    assert_eq!((next.reason, next.open), (GpuReason::DriverNotLoaded, false));
    standin::load_module(&host.sysfs(), standin::VERSION);
    task.until("open again", |state| state.open).await;
    task.stop().await;
}

#[tokio::test]
async fn a_hung_probe_is_killed_and_the_next_one_recovers() {
    let host = Host::with_gpus(1);
    host.nvml.answer(r#"{"hang":true}"#);
    let mut task = Task::over(GpuConfig { deadline: Duration::from_secs(1), ..host.config() });
    task.until("timed out", |state| state.reason == GpuReason::ProbeTimedOut).await;
    host.nvml.answer("{}");
    task.until("open", |state| state.open).await;
    task.stop().await;
}

#[tokio::test]
async fn stop_kills_the_child_that_hangs() {
    let host = Host::with_gpus(1);
    host.nvml.answer(r#"{"hang":true}"#);
    let library = host.nvml.library();
    let task = Task::over(host.config());
    until("a child that has loaded the library", || is_mapped(&library)).await;
    task.stop().await;
    until("no process with the library", || !is_mapped(&library)).await;
}

/// The driver would answer, but somebody is replacing it.
#[tokio::test]
async fn an_upgrade_closes_the_gate_and_only_a_probe_after_it_opens_it() {
    let host = Host::with_gpus(1);
    let labels =
        [("nvidia.com/gpu-driver-upgrade-state".to_owned(), "pod-restart-required".to_owned())].into();
    let mut task = Task::held(host.config(), Hold::from_labels(&labels));
    let held = task.until("held from the start", |state| state.phase == GpuPhase::Waiting).await;
    assert_eq!((held.reason, held.open), (GpuReason::DriverUpgrade, false));
    task.hold.send(Hold::No).unwrap();
    task.until("open", |state| state.open).await;

    host.nvml.answer(r#"{"hang":true}"#);
    let library = host.nvml.library();
    until("a child under way", || is_mapped(&library)).await;
    task.hold.send(Hold::MigReconfiguration).unwrap();
    let closed = task.until("closed", |state| !state.open).await;
    assert_eq!(closed.reason, GpuReason::MigReconfiguration);
    until("no handle of ours in the way", || !is_mapped(&library)).await;
    host.nvml.answer("{}");
    task.hold.send(Hold::No).unwrap();
    task.until("open again", |state| state.open).await;
    task.stop().await;
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let comes = async {
        while !is() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, comes).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Whether any process has this file mapped.
fn is_mapped(file: &Path) -> bool {
    !mappers(file).is_empty()
}

/// The processes that have this file mapped.
fn mappers(file: &Path) -> Vec<u32> {
    let file = file.to_str().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    let maps = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    pids.filter(|pid| maps(pid).contains(file)).collect()
}
