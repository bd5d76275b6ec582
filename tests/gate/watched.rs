//! A probe container and an agent: a real `stoker gpu --watch`, and the gpu task that reads its file.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitStatus};
use std::time::SystemTime;

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::CapabilitySet;

use super::*;

/// A probe container, killed when dropped.
struct Watcher(Child);

impl Watcher {
    fn over(host: &Host) -> Self {
        let mut command = host.stoker(&["--watch", "--interval", "0.2", "--deadline", "1", "--out"]);
        command.arg(file(host)).arg("--nvml-path").arg(host.nvml.library());
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    async fn ended(&mut self) -> ExitStatus {
        let mut ended = None;
        until("the end of the watcher", || {
            ended = self.0.try_wait().unwrap();
            ended.is_some()
        })
        .await;
        ended.unwrap()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn file(host: &Host) -> PathBuf {
    host.dir.path().join("gpu.json")
}

fn hold_file(host: &Host) -> PathBuf {
    host.dir.path().join("gpu.json.hold")
}

/// An agent that reads the file.
fn reading(host: &Host) -> GpuConfig {
    // It must not need the program nor the library.
    let nowhere = host.dir.path().join("nowhere");
    GpuConfig {
        exe: nowhere.clone(),
        nvml_path: Some(nowhere),
        deadline: Duration::from_secs(1),
        probe_file: Some(file(host)),
        ..host.config()
    }
}

/// What the file says now; null when it isn't there.
fn notice(host: &Host) -> Value {
    fs::read(file(host)).map_or(Value::Null, |text| serde_json::from_slice(&text).unwrap())
}

fn network(pid: impl std::fmt::Display) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/net")).unwrap()
}

#[tokio::test]
async fn only_a_child_without_network_loads_the_library() {
    let host = Host::with_gpus(1);
    host.nvml.answer(r#"{"hang":true}"#);
    let library = host.nvml.library();
    let watcher = Watcher::over(&host);
    let own = watcher.0.id();
    let mut child = None;
    until("a child with the library", || {
        child = mappers(&library).first().copied();
        child.is_some_and(|child| child != own && Path::new(&format!("/proc/{child}/ns/net")).exists())
    })
    .await;
    assert_ne!(network(own), network("self"), "the watcher has left the network");
    for thread in fs::read_dir(format!("/proc/{own}/task")).unwrap() {
        let thread = thread.unwrap().path();
        assert_eq!(fs::read_link(thread.join("ns/net")).unwrap(), network(own), "every thread has");
        let maps = fs::read_to_string(thread.join("maps")).unwrap();
        assert!(!maps.contains("libnvidia-ml"), "{maps}");
    }
    // Asked again and again: each lives for a second only.
    until("a child in the watcher's network", || {
        let children = mappers(&library);
        let network_of = |pid: &u32| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        children.iter().any(|child| network_of(child) == Some(network(own)))
    })
    .await;
}

#[tokio::test]
async fn the_agent_judges_as_if_it_had_asked_itself() {
    let host = Host::with_gpus(2);
    host.nvml.answer(r#"{"init":9}"#);
    let _watcher = Watcher::over(&host);
    let mut task = Task::over(reading(&host));
    opens_and_is_doubted(&host, &mut task).await;
    task.until("closed", |state| !state.open).await;

    host.nvml.answer(r#"{"devices":2}"#);
    task.until("open again", |state| state.open).await;
    standin::unload_module(&host.sysfs());
    let next = task.until("told", |state| state.reason != GpuReason::DriverReady).await;
    assert_eq!((next.reason, next.open), (GpuReason::DriverNotLoaded, false), "hard evidence closes at once");
    task.stop().await;
}

#[tokio::test]
async fn a_driver_that_hangs_or_crashes_is_told() {
    let host = Host::with_gpus(1);
    let _watcher = Watcher::over(&host);
    let mut task = Task::over(reading(&host));
    task.until("open", |state| state.open).await;
    host.nvml.answer(r#"{"hang":true}"#);
    let hung = task.until("timed out", |state| state.reason == GpuReason::ProbeTimedOut).await;
    assert!(hung.open, "one probe that hung closes nothing");
    task.until("closed", |state| !state.open).await;
    host.nvml.answer(r#"{"abort":true}"#);
    let crashed = task.until("crashed", |state| state.reason == GpuReason::ProbeCrashed).await;
    assert_eq!(crashed.message, "signal 6");
    host.nvml.answer("{}");
    task.until("open again", |state| state.open).await;
    task.stop().await;
}

#[tokio::test]
async fn a_restart_of_the_probe_container_is_no_failure() {
    let host = Host::with_gpus(1);
    let first = Watcher::over(&host);
    let mut task = Task::over(reading(&host));
    task.until("open", |state| state.open).await;
    until("a few answers", || notice(&host)["sequence"].as_u64() > Some(2)).await;
    let run = notice(&host)["run"].clone();
    drop(first);
    let _second = Watcher::over(&host);
    let again = |notice: Value| notice["run"] != run && notice["sequence"].as_u64() > Some(3);
    until("answers of the next one", || again(notice(&host))).await;
    assert!(!task.state.has_changed().unwrap(), "nothing has changed: {:?}", task.state.borrow());
    task.stop().await;
}

/// Silence is told apart from one late answer by the times that the writer itself gave.
async fn closes_by_silence(host: &Host, task: &mut Task) {
    let doubted = task.until("in doubt", |state| state.reason == GpuReason::ProbeMissing).await;
    assert!(doubted.open, "one missing answer closes nothing");
    let before = notice(host);
    let closed = task.until("closed", |state| !state.open).await;
    assert_eq!((closed.phase, closed.reason), (GpuPhase::Waiting, GpuReason::ProbeMissing));
    assert_eq!(notice(host), before);
}

#[tokio::test]
async fn a_probe_container_that_is_killed_closes_the_gate_until_it_is_back() {
    let host = Host::with_gpus(1);
    let mut watcher = Watcher::over(&host);
    let mut task = Task::over(reading(&host));
    task.until("open", |state| state.open).await;
    watcher.signal(Signal::KILL);
    assert_eq!(watcher.ended().await.signal(), Some(9));
    closes_by_silence(&host, &mut task).await;
    let _next = Watcher::over(&host);
    task.until("open again", |state| state.open).await;
    task.stop().await;
}

#[tokio::test]
async fn a_probe_container_that_stands_still_closes_the_gate_until_it_goes_on() {
    let host = Host::with_gpus(1);
    let watcher = Watcher::over(&host);
    let mut task = Task::over(reading(&host));
    task.until("open", |state| state.open).await;
    watcher.signal(Signal::STOP);
    closes_by_silence(&host, &mut task).await;
    watcher.signal(Signal::CONT);
    task.until("open again", |state| state.open).await;
    task.stop().await;
}

#[tokio::test]
async fn without_a_file_the_agent_waits_and_says_what_for() {
    let host = Host::with_gpus(1);
    let mut task = Task::over(reading(&host));
    let waiting = task.until("waiting", |state| state.reason == GpuReason::ProbeMissing).await;
    assert_eq!((waiting.phase, waiting.open), (GpuPhase::Waiting, false));
    assert!(waiting.message.ends_with("gpu.json is not there"), "{}", waiting.message);
    let _watcher = Watcher::over(&host);
    task.until("open", |state| state.open).await;
    task.stop().await;
}

/// An agent that starts again finds what another boot, a dead writer, or something else has left there.
#[tokio::test]
async fn what_lies_there_from_elsewhere_is_no_answer() {
    let host = Host::with_gpus(1);
    let mut watcher = Watcher::over(&host);
    until("an answer", || notice(&host)["said"]["probed"]["answer"]["phase"] == "Ready").await;
    watcher.signal(Signal::KILL);
    watcher.ended().await;
    let with = |field: &str, value: Value| {
        let mut left = notice(&host);
        left[field] = value;
        left.to_string()
    };
    let whole = notice(&host).to_string();
    for (left, reason, words) in [
        (with("boot_id", "another".into()), GpuReason::ProbeMissing, "before this boot"),
        (with("next_by_ms", 1.into()), GpuReason::ProbeMissing, "out of date"),
        (with("version", 2.into()), GpuReason::ProbeUnreadable, "version 2 of its format"),
        (with("written_ms", u64::MAX.into()), GpuReason::ProbeUnreadable, "in the future"),
        (whole[..whole.len() / 2].to_owned(), GpuReason::ProbeUnreadable, "is not an answer of the probe"),
    ] {
        fs::write(file(&host), &left).unwrap();
        let mut task = Task::over(reading(&host));
        let said = task.until(words, |state| state.phase != GpuPhase::Unknown).await;
        assert_eq!((said.reason, said.open), (reason, false), "{left}");
        assert!(said.message.contains(words), "{}", said.message);
        task.stop().await;
    }
}

#[tokio::test]
async fn during_an_upgrade_the_probe_container_asks_nothing() {
    let host = Host::with_gpus(1);
    let _watcher = Watcher::over(&host);
    let mut task = Task::over(reading(&host));
    task.until("open", |state| state.open).await;

    // Whatever asks the driver now hangs, and can be seen.
    host.nvml.answer(r#"{"hang":true}"#);
    task.hold.send(Hold::DriverUpgrade).unwrap();
    let closed = task.until("closed", |state| !state.open).await;
    assert_eq!(closed.reason, GpuReason::DriverUpgrade);
    until("told to hold", || notice(&host)["said"]["held"] == "DriverUpgrade").await;
    // Said at once, and again when the child that was under way is gone.
    let since = notice(&host)["sequence"].as_u64().unwrap();
    until("said again", || notice(&host)["sequence"].as_u64() > Some(since)).await;
    until("no handle in the way", || !is_mapped(&host.nvml.library())).await;
    until("still there, and still holding", || {
        let now = notice(&host);
        assert_eq!(now["said"]["held"], "DriverUpgrade");
        assert!(!is_mapped(&host.nvml.library()), "it has asked");
        now["sequence"].as_u64() > Some(since + 4)
    })
    .await;
    assert!(hold_file(&host).exists());

    host.nvml.answer("{}");
    task.hold.send(Hold::No).unwrap();
    task.until("open again", |state| state.open).await;
    assert!(!hold_file(&host).exists());
    task.stop().await;
}

#[tokio::test]
async fn what_a_dead_agent_asked_for_does_not_last() {
    let host = Host::with_gpus(1);
    fs::write(hold_file(&host), "DriverUpgrade\n").unwrap();
    let an_hour_ago = SystemTime::now() - Duration::from_secs(3600);
    fs::File::options().append(true).open(hold_file(&host)).unwrap().set_modified(an_hour_ago).unwrap();
    let _watcher = Watcher::over(&host);
    until("an answer", || notice(&host)["said"]["probed"]["answer"]["phase"] == "Ready").await;

    // A fresh one holds, until an agent knows better.
    fs::write(hold_file(&host), "DriverUpgrade\n").unwrap();
    until("held", || notice(&host)["said"]["held"] == "DriverUpgrade").await;
    let mut task = Task::over(reading(&host));
    task.until("held, as the file says", |state| state.reason == GpuReason::DriverUpgrade).await;
    assert!(hold_file(&host).exists(), "nobody has told this agent yet");
    task.hold.send(Hold::No).unwrap();
    task.until("open", |state| state.open).await;
    assert!(!hold_file(&host).exists());
    task.stop().await;
}

#[tokio::test]
async fn a_signal_ends_the_watch_at_once_and_its_hung_child_too() {
    let host = Host::with_gpus(1);
    host.nvml.answer(r#"{"hang":true}"#);
    let library = host.nvml.library();
    let mut command = host.stoker(&["--watch", "--deadline", "3600", "--out"]);
    command.arg(file(&host)).arg("--nvml-path").arg(&library).stderr(Stdio::null());
    let mut watcher = Watcher(command.spawn().unwrap());
    until("a child that hangs", || is_mapped(&library)).await;
    watcher.signal(Signal::TERM);
    assert_eq!(watcher.ended().await.code(), Some(0));
    until("no process with the library", || !is_mapped(&library)).await;
    assert!(!file(&host).exists(), "no probe has ended");
}

#[tokio::test]
async fn what_keeps_it_from_watching_is_told_at_once() {
    let host = Host::with_gpus(1);
    let missing = host.dir.path().join("missing/gpu.json");
    let start = |arguments: &[&str], out: &Path| {
        let log = fs::File::create(host.dir.path().join("log")).unwrap();
        Watcher(host.stoker(arguments).arg(out).stdout(Stdio::null()).stderr(log).spawn().unwrap())
    };
    let words = || fs::read_to_string(host.dir.path().join("log")).unwrap();
    let mut nowhere = start(&["--watch", "--out"], &missing);
    assert_eq!(nowhere.ended().await.code(), Some(4));
    assert!(words().contains("missing/gpu.json; --out must be in a directory"), "{}", words());
    assert_eq!(start(&["--out"], &file(&host)).ended().await.code(), Some(2));
    assert_eq!(start(&["--json", "--watch", "--out"], &file(&host)).ended().await.code(), Some(2));

    // The set is the thread's, and its children's.
    let mut refused = std::thread::scope(|threads| {
        let unprivileged = threads.spawn(|| {
            rustix::thread::remove_capability_from_bounding_set(CapabilitySet::SYS_ADMIN).unwrap();
            start(&["--watch", "--out"], &file(&host))
        });
        unprivileged.join().unwrap()
    });
    assert_eq!(refused.ended().await.code(), Some(4));
    assert!(words().contains("the probe container must be privileged"), "{}", words());
    assert!(!file(&host).exists());
}
