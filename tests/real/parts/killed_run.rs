//! A test run that is killed, to see that its parts leave nothing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::leftovers::left_of;
use super::process::Process;
use super::scratch::{Scratch, sweep_now};
use super::wait::until;

const HOLD: &str = "STOKER_TEST_HOLDS_PARTS";

/// In a run that [`leaves_nothing_when_killed`] has started: tells the directories of its parts, and holds them
/// until it is killed. In any other it does nothing.
pub(crate) async fn hold_when_told(dirs: &[&Path]) {
    let Some(file) = std::env::var_os(HOLD) else { return };
    let lines: Vec<&str> = dirs.iter().map(|dir| dir.to_str().expect("text")).collect();
    let new = Path::new(&file).with_extension("new");
    std::fs::write(&new, lines.join("\n")).expect("it can be written");
    std::fs::rename(new, file).expect("a rename within one directory");
    std::future::pending::<()>().await;
}

/// Runs the test called `test` of this same program until it holds its parts, and kills the run with SIGKILL.
///
/// # Panics
/// When a process of its parts goes on, or when the next sweep leaves something of them.
pub(crate) async fn leaves_nothing_when_killed(test: &str) {
    let scratch = Scratch::new("killed");
    let told = scratch.join("dirs");
    let mut run = Command::new(std::env::current_exe().expect("this test's program"));
    run.args(["--exact", test]).env(HOLD, &told);
    let run = Process::start("a test run", &run, &scratch.join("log"));
    let dirs = async || std::fs::read_to_string(&told).ok();
    let dirs = run.wait_ready("its parts", Duration::from_secs(120), dirs).await;
    let dirs: Vec<PathBuf> = dirs.lines().map(PathBuf::from).collect();
    assert!(dirs.len() > 2 && dirs.iter().all(|dir| dir.is_dir()), "{dirs:?}");
    run.kill9();
    // Directories and cgroups stay until the sweep; nothing else does.
    let stays = |line: &String| line.starts_with("/sys/fs/cgroup/") || dirs.contains(&PathBuf::from(line));
    let ended = async || dirs.iter().all(|dir| left_of(dir).iter().all(stays)).then_some(());
    until("the end of its processes", Duration::from_secs(20), ended).await;
    sweep_now();
    for dir in &dirs {
        assert_eq!(left_of(dir), Vec::<String>::new());
    }
}
