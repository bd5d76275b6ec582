//! Stops in the middle of a download: asked for, and not.

use std::time::Duration;

use stoker::types::Digest;

use crate::node::{SOON, agent, assert_current, bytes, leftovers, list};
use crate::parts::{Agent, Fault, FaultProxy, Gpus, Nginx, Process, Rule, Status, until};

const MIB: usize = 1 << 20;

/// nginx with one file of weights, a proxy in front of it, and an agent whose list names it.
struct Bed {
    weights: Vec<u8>,
    proxy: FaultProxy,
    agent: Agent,
    nginx: Nginx,
    _gpus: Gpus,
}

impl Bed {
    async fn new(size: usize) -> Self {
        let gpus = Gpus::healthy(1);
        let nginx = Nginx::start().await;
        let weights = bytes(7, size);
        nginx.put("m.bin", &weights);
        let proxy = FaultProxy::start(&nginx.host());
        let agent = agent(&gpus);
        let digest = Digest::of(&weights).hex();
        agent.write_list(&list(&[&format!(
            "id: m, weights: \"{}/m.bin\", sha256: {{m.bin: \"{digest}\"}}",
            proxy.url()
        )]));
        Self { weights, proxy, agent, nginx, _gpus: gpus }
    }

    fn nothing_is_visible(&self) {
        let entry = self.agent.cache().join("weights/m");
        let names: Vec<_> =
            std::fs::read_dir(&entry).into_iter().flatten().flatten().map(|name| name.path()).collect();
        assert!(names.is_empty(), "half-done work is visible: {names:?}");
    }

    /// A tree may be there already, but nothing says that it's warm.
    fn nothing_is_named(&self) {
        let current = self.agent.cache().join("weights/m/current");
        assert!(!current.is_symlink(), "{} points at nothing", current.display());
    }

    fn all_is_as_before(&self) {
        assert_current(&self.agent, "m", &[("m.bin", &self.weights)]);
    }

    fn all_is_right(&self) {
        assert_current(&self.agent, "m", &[("m.bin", &self.weights)]);
        assert_eq!(leftovers(&self.agent), Vec::<String>::new());
    }
}

#[tokio::test]
async fn asked_to_stop_in_mid_download_it_does_so_promptly_and_shows_nothing() {
    let mut bed = Bed::new(8 * MIB).await;
    bed.proxy.add(Rule::get("m.bin", Fault::Stall(MIB as u64)).always());
    bed.agent.start().await;
    let begun = |status: &Status| {
        status.entry("m").is_some_and(|entry| entry.state == "Fetching" && entry.bytes_done > 0)
    };
    bed.agent.wait_for("bytes", SOON, begun).await;
    let status = bed.agent.stop(Duration::from_secs(5)).await;
    assert_eq!(status.code(), Some(0), "{}", bed.agent.log());
    bed.nothing_is_visible();

    bed.proxy.clear();
    bed.agent.start().await;
    bed.agent.wait_entry("m", "Warm", SOON).await;
    bed.all_is_right();
}

#[tokio::test]
async fn once_is_interrupted_by_a_signal_and_says_so_by_its_exit_code() {
    let bed = Bed::new(8 * MIB).await;
    bed.proxy.add(Rule::get("m.bin", Fault::Stall(MIB as u64)).always());
    let log = bed.agent.scratch().join("once.log");
    let run = Process::start("stoker agent --once", &bed.agent.once_command(), &log);
    run.wait_ready("a download", SOON, async || (bed.proxy.body_bytes() > 0).then_some(())).await;
    run.terminate();
    let status = run.wait(Duration::from_secs(5)).await;
    assert_eq!(status.code(), Some(130), "{}", run.log());
    bed.nothing_is_visible();
    bed.proxy.clear();
    let again = bed.agent.once(SOON).await;
    assert_eq!(again.status.code(), Some(0), "{}", crate::node::said(&again));
    bed.all_is_right();
}

#[tokio::test]
async fn killed_at_any_moment_it_ends_warm_after_a_new_start() {
    let mut bed = Bed::new(24 * MIB).await;
    let size = bed.weights.len() as u64;
    bed.proxy.throttle(Some(48 << 20));
    // From the first bytes to the very last: the fsyncs and renames after it.
    for eighth in 1..=8 {
        let sent = bed.proxy.body_bytes();
        bed.agent.spawn();
        let current = bed.agent.cache().join("weights/m/current");
        // What an earlier one has marked isn't sent again.
        let far = async || {
            (bed.proxy.body_bytes() - sent >= size * eighth / 8 || current.is_symlink()).then_some(())
        };
        bed.agent.running().wait_ready("its bytes", SOON, far).await;
        bed.agent.kill9();
        if bed.agent.cache().join("weights/m/current").exists() {
            assert_current(&bed.agent, "m", &[("m.bin", &bed.weights)]);
            break;
        }
        bed.nothing_is_named();
    }
    bed.proxy.throttle(None);
    bed.agent.start().await;
    bed.agent.wait_entry("m", "Warm", SOON).await;
    bed.all_is_right();
}

#[tokio::test]
async fn killed_after_its_last_byte_it_is_warm_or_becomes_so() {
    for delay in [0, 20, 60, 120] {
        let mut bed = Bed::new(2 * MIB).await;
        bed.agent.spawn();
        let all = async || (bed.proxy.body_bytes() >= bed.weights.len() as u64).then_some(());
        bed.agent.running().wait_ready("its bytes", SOON, all).await;
        // Not a wait for anything: another moment to be killed at.
        tokio::time::sleep(Duration::from_millis(delay)).await;
        bed.agent.kill9();
        bed.agent.start().await;
        bed.agent.wait_entry("m", "Warm", SOON).await;
        bed.all_is_right();
    }
}

#[tokio::test]
async fn the_old_revision_stays_until_the_new_one_is_whole() {
    let mut bed = Bed::new(MIB).await;
    bed.agent.start().await;
    let old = bed.agent.wait_entry("m", "Warm", SOON).await.revision;
    let new = bytes(8, 4 * MIB);
    bed.nginx.put("m2.bin", &new);
    bed.proxy.add(Rule::get("m2.bin", Fault::Stall(1000)).always());
    bed.agent.write_list(&list(&[&format!("id: m, weights: \"{}/m2.bin\"", bed.proxy.url())]));
    until("a download", SOON, async || (bed.proxy.stalled() > 0).then_some(())).await;
    let status = bed
        .agent
        .wait_for("a fetch", SOON, |status| status.entry("m").is_some_and(|entry| entry.state == "Fetching"))
        .await;
    assert_eq!(status.entry("m").unwrap().revision, old);
    assert_eq!(status.labels["weights.stoker.dev/m"], old.as_deref().unwrap()[..12]);
    bed.all_is_as_before();
    bed.agent.kill9();
    bed.agent.spawn();
    let status = bed
        .agent
        .wait_for("the old label", SOON, |status| status.labels.contains_key("weights.stoker.dev/m"))
        .await;
    assert_eq!(status.entry("m").unwrap().revision, old);
    bed.all_is_as_before();
    bed.proxy.clear();
    bed.agent
        .wait_for("the new one", SOON, |status| status.all_warm() && status.entries[0].revision != old)
        .await;
    assert_current(&bed.agent, "m", &[("m2.bin", &new)]);
}

#[tokio::test]
async fn a_signal_is_never_mistaken_for_a_fault() {
    let gpus = Gpus::without_driver(1);
    let agent = agent(&gpus);
    agent.write_list(&list(&["id: m, weights: \"https://127.0.0.1:1/m.bin\""]));
    // Which of its tasks ends first is chance, so once is not enough.
    for run in 0..10 {
        let log = agent.scratch().join(format!("once-{run}.log"));
        let run = Process::start("stoker agent --once", &agent.once_command(), &log);
        run.wait_ready("a hold", SOON, async || run.log().contains("GateClosed").then_some(())).await;
        run.terminate();
        assert_eq!(run.wait(Duration::from_secs(5)).await.code(), Some(130), "{}", run.log());
    }
}
