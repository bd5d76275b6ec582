use std::future::poll_fn;
use std::path::Path;
use std::pin::pin;
use std::task::Poll;

use tokio_util::sync::CancellationToken;

use super::super::{Cache, CacheError, RootFsPolicy};
use super::bed::{Bed, file, goods, id, large, served};
use crate::types::{Digest, Progress};

#[test]
fn only_one_agent_at_a_time_may_have_a_cache() {
    let bed = Bed::new();
    let error = Cache::open(&bed.home, &RootFsPolicy::Allow).unwrap_err();
    let pid = std::process::id();
    assert!(matches!(error, CacheError::Locked { holder: Some(holder), .. } if holder == pid), "{error}");
    assert!(error.to_string().contains(&format!("(pid {pid})")), "{error}");
}

#[tokio::test]
async fn what_a_killed_run_left_is_swept_and_nothing_of_it_is_believed() {
    let mut bed = Bed::new();
    let warm = bed.ensure("kept", &[file("a", "x")]).await.unwrap();
    let model = served(large(1));
    let digest = Digest::of(&large(1));
    // A partial of full length, half a tree, and a tree that was never switched to.
    let partial = bed.path(&format!("v1/partial/{}", digest.hex()));
    std::fs::create_dir(&partial).unwrap();
    std::fs::write(partial.join("data"), vec![0; large(1).len()]).unwrap();
    std::fs::create_dir_all(bed.path("v1/staging/7/deep")).unwrap();
    std::fs::write(bed.path("v1/staging/7/deep/a"), "x").unwrap();
    std::fs::create_dir_all(bed.path("weights/llama/0123456789ab/deep")).unwrap();
    std::fs::write(bed.path("weights/llama/0123456789ab/deep/a"), "x").unwrap();
    bed.reopen();
    bed.assert_tidy();
    assert!(!bed.path("weights/llama").exists());
    assert_eq!(bed.current("kept").unwrap().revision, warm.revision);

    bed.ensure("llama", &[model.listed("model")]).await.unwrap();
    assert!(bed.read("weights/llama/current/model") == large(1));
    assert_eq!(model.gets(), 1);
}

#[tokio::test]
async fn a_full_length_partial_met_in_mid_run_is_not_believed() {
    let bed = Bed::new();
    let model = served(large(1));
    let digest = Digest::of(&large(1));
    let partial = bed.path(&format!("v1/partial/{}", digest.hex()));
    std::fs::create_dir(&partial).unwrap();
    std::fs::write(partial.join("data"), vec![0; large(1).len()]).unwrap();
    bed.ensure("llama", &[model.listed("model")]).await.unwrap();
    assert!(bed.read("weights/llama/current/model") == large(1));
    bed.assert_tidy();
}

#[tokio::test]
async fn names_without_a_manifest_are_not_warm_until_mended() {
    let bed = Bed::new();
    let model = served(large(1));
    let warm = bed.ensure("llama", &[model.listed("model")]).await.unwrap();
    std::fs::remove_file(bed.path(&format!("v1/revisions/{}.json", warm.revision.hex()))).unwrap();
    let named = bed.named("llama").unwrap();
    assert_eq!(named.current, None);
    assert!(named.problem.unwrap().contains("no manifest"));
    let again = bed.ensure("llama", &[model.listed("model")]).await.unwrap();
    assert_eq!((again.revision, again.fetched_bytes), (warm.revision, 0));
    assert!(bed.current("llama").is_some());
}

/// Drops the work after each number of steps: whatever is visible then is whole, and the next start ends warm.
#[tokio::test]
async fn at_every_step_an_end_leaves_the_old_or_the_new() {
    let mut steps = 0;
    loop {
        let mut bed = Bed::new();
        let old = bed.ensure("llama", &[file("a", "old")]).await.unwrap().revision;
        let files = vec![served(large(1)).listed("a"), file("deep/b", "new")];
        let (progress, stop) = (Progress::default(), CancellationToken::new());
        let ended = {
            let warmer = bed.warmer();
            let (id, goods) = (id("llama"), goods("llama"));
            let mut job = pin!(warmer.ensure_files(&id, &goods, files.clone(), &progress, &stop));
            let mut left = steps;
            poll_fn(|cx| match job.as_mut().poll(cx) {
                Poll::Ready(done) => Poll::Ready(Some(done)),
                Poll::Pending if left == 0 => Poll::Ready(None),
                Poll::Pending => {
                    left -= 1;
                    Poll::Pending
                }
            })
            .await
        };
        let now = bed.current("llama").expect("what was warm stays warm").revision;
        assert!(now == old || ended.is_some() || bed.read("weights/llama/current/deep/b") == b"new");
        // Work that had begun on blocking threads ends by itself.
        while std::sync::Arc::strong_count(bed.cache()) > 1 {
            tokio::task::yield_now().await;
        }
        bed.reopen();
        bed.assert_tidy();
        let new = bed.ensure("llama", &files).await.unwrap().revision;
        assert!(new != old && bed.read("weights/llama/current/a") == large(1));
        if let Some(done) = ended {
            assert_eq!(done.unwrap().revision, new);
            break;
        }
        steps += 1;
    }
    assert!(steps > 1, "{steps}");
}

const CHILD: &str = "STOKER_TEST_CACHE";

/// Switches an entry between two revisions whose second file says which it is, as often as it's told to.
async fn switch_to_and_fro(bed: &Bed, seed: u8, times: usize) {
    for n in 0..times {
        let text = format!("{seed} {}", n % 2);
        let mut bytes = large(seed)[..300_000].to_vec();
        bytes.extend_from_slice(text.as_bytes());
        let files = [served(bytes).listed("deep/model"), file("which", &text)];
        bed.ensure("llama", &files).await.unwrap();
    }
}

/// The other half of the test below, in a process of its own; by itself it's a short run of the same.
#[tokio::test]
async fn child_that_switches_until_it_is_killed() {
    match std::env::var_os(CHILD) {
        None => {
            let bed = Bed::new();
            switch_to_and_fro(&bed, 1, 2).await;
            assert_eq!(bed.read("weights/llama/current/which"), b"1 1");
        }
        Some(home) => {
            switch_to_and_fro(&Bed::at(home.into()), std::process::id() as u8, 20_000).await;
        }
    }
}

/// Ends with the test, however the test ends.
pub(super) struct Child(std::process::Child);

impl Child {
    /// Runs `test` alone, in a process of its own that finds `home` in the variable `name`.
    pub(super) fn start(test: &str, name: &str, home: &Path) -> Self {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test])
            .env(name, home)
            .stdout(std::process::Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    pub(super) fn kill(&mut self) -> std::process::ExitStatus {
        self.0.kill().unwrap();
        self.0.wait().unwrap()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// On a tmpfs, where nothing waits for a disk: what a killed process leaves is what it had asked for, on any file
/// system. What a power cut leaves is another matter.
#[tokio::test]
async fn kill_minus_nine_leaves_one_revision_or_the_other() {
    let mut bed = Bed::under(Path::new("/dev/shm"));
    switch_to_and_fro(&bed, 0, 1).await;
    for round in 0..8 {
        bed.close();
        let test = "weights::tests::crash::child_that_switches_until_it_is_killed";
        let mut child = Child::start(test, CHILD, &bed.home);
        see_changes(&bed.path("v1"), 1 + round);
        assert_eq!(child.kill().code(), None, "it ended by itself");
        bed.reopen();
        bed.assert_tidy();
        let current = bed.named("llama").unwrap();
        let revision = current.current.unwrap_or_else(|| panic!("{:?}", current.problem)).revision;
        let which = bed.read("weights/llama/current/which");
        assert!(bed.read("weights/llama/current/deep/model").ends_with(&which), "{revision}");
    }
    switch_to_and_fro(&bed, 0, 2).await;
}

/// Looks at the directories where things come and go until they have changed so many times.
pub(super) fn see_changes(v1: &Path, changes: usize) {
    let look = || -> Vec<_> {
        ["partial", "staging", "revisions"]
            .iter()
            .flat_map(|dir| std::fs::read_dir(v1.join(dir)).unwrap())
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect()
    };
    let mut last = look();
    let mut seen = 0;
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    while seen < changes {
        assert!(tokio::time::Instant::now() < deadline, "nothing changes any more");
        let now = look();
        seen += usize::from(now != last);
        last = now;
    }
}
