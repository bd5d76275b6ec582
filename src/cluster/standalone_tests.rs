use std::fs;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

fn document(ids: &[&str]) -> String {
    let entries: String = ids.iter().map(|id| format!("- {{id: {id}, image: nginx}}\n")).collect();
    let entries = if ids.is_empty() { " []\n".to_owned() } else { format!("\n{entries}") };
    format!("apiVersion: stoker.dev/v1\nkind: PrefetchList\nentries:{entries}")
}

struct Running {
    dir: TempDir,
    lists: watch::Receiver<Option<Arc<List>>>,
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Running {
    fn start(dir: TempDir) -> Self {
        let stop = CancellationToken::new();
        let (lists, task) = spawn_file_list(
            dir.path().join("list.yaml"),
            dir.path().join("state"),
            AllowList::default(),
            stop.clone(),
        );
        Self { dir, lists, task, stop }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("list.yaml")
    }

    /// The next list that lists exactly these, with removals held or not.
    async fn lists(&mut self, ids: &[&str], held: bool) -> Arc<List> {
        let wanted = |list: &Option<Arc<List>>| {
            list.as_ref().is_some_and(|list| {
                let listed: Vec<&str> = list.entries.iter().map(|listed| listed.id().as_str()).collect();
                listed == ids && list.removals_held == held
            })
        };
        let list = tokio::time::timeout(Duration::from_secs(30), self.lists.wait_for(wanted)).await;
        list.unwrap_or_else(|_| panic!("never {ids:?} {held}")).unwrap().clone().unwrap()
    }

    async fn stop(self) -> TempDir {
        self.stop.cancel();
        self.task.await.unwrap();
        self.dir
    }
}

#[tokio::test(start_paused = true)]
async fn an_edit_in_place_and_a_file_put_in_its_place_are_seen() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("list.yaml"), document(&["a"])).unwrap();
    let mut running = Running::start(dir);
    running.lists(&["a"], false).await;
    fs::write(running.path(), document(&["a", "b"])).unwrap();
    running.lists(&["a", "b"], false).await;
    let new = running.dir.path().join("new");
    fs::write(&new, document(&["c"])).unwrap();
    fs::rename(&new, running.path()).unwrap();
    running.lists(&["c"], false).await;
    fs::write(running.path(), document(&[])).unwrap();
    running.lists(&[], false).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_swapped_link_of_a_mounted_config_map_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    for (version, id) in [("..1", "a"), ("..2", "b")] {
        fs::create_dir(dir.path().join(version)).unwrap();
        fs::write(dir.path().join(version).join("list.yaml"), document(&[id])).unwrap();
    }
    symlink("..1", dir.path().join("..data")).unwrap();
    symlink("..data/list.yaml", dir.path().join("list.yaml")).unwrap();
    let mut running = Running::start(dir);
    running.lists(&["a"], false).await;
    symlink("..2", running.dir.path().join("..new")).unwrap();
    fs::rename(running.dir.path().join("..new"), running.dir.path().join("..data")).unwrap();
    running.lists(&["b"], false).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_file_may_come_later_and_go_again() {
    let mut running = Running::start(tempfile::tempdir().unwrap());
    let list = running.lists(&[], true).await;
    assert!(list.errors[0].contains("list.yaml: No such file"), "{:?}", list.errors);
    fs::write(running.path(), document(&["a"])).unwrap();
    running.lists(&["a"], false).await;
    fs::remove_file(running.path()).unwrap();
    let kept = running.lists(&["a"], true).await;
    assert!(kept.entries[0].entry().is_some());
    fs::write(running.path(), document(&["b"])).unwrap();
    running.lists(&["b"], false).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_last_good_list_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("list.yaml");
    fs::write(&path, document(&["a", "b"])).unwrap();
    let mut running = Running::start(dir);
    running.lists(&["a", "b"], false).await;
    let dir = running.stop().await;

    fs::write(&path, "entries: [").unwrap();
    let mut running = Running::start(dir);
    let list = running.lists(&["a", "b"], true).await;
    assert!(list.entries.iter().all(|listed| listed.entry().is_some()));
    let dir = running.stop().await;

    fs::remove_file(&path).unwrap();
    let mut running = Running::start(dir);
    running.lists(&["a", "b"], true).await;
    let dir = running.stop().await;

    // A damaged store is no reason not to start.
    fs::write(dir.path().join("state/list.json"), "{").unwrap();
    fs::write(&path, document(&["c"])).unwrap();
    let mut running = Running::start(dir);
    running.lists(&["c"], false).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_no_file_or_too_large_a_one_is_said_and_holds_nothing_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("list.yaml");
    let pipe = |path: &Path| {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    };
    fs::write(&path, document(&["a"])).unwrap();
    let mut running = Running::start(dir);
    running.lists(&["a"], false).await;
    fs::remove_file(&path).unwrap();
    pipe(&path);
    let list = running.lists(&["a"], true).await;
    assert!(list.errors[0].contains("not a regular file"), "{:?}", list.errors);
    fs::remove_file(&path).unwrap();
    fs::write(&path, document(&["b"])).unwrap();
    running.lists(&["b"], false).await;
    fs::write(&path, document(&["c"]) + &"#".repeat(MAX_BYTES)).unwrap();
    let list = running.lists(&["b"], true).await;
    assert!(list.errors[0].contains("larger than 256 KiB"), "{:?}", list.errors);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_unwritable_state_directory_does_not_stop_the_list() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("state"), "in the way").unwrap();
    fs::write(dir.path().join("list.yaml"), document(&["a"])).unwrap();
    let mut running = Running::start(dir);
    running.lists(&["a"], false).await;
    // It's stored as soon as that can be done.
    fs::remove_file(running.dir.path().join("state")).unwrap();
    let stored = running.dir.path().join("state/list.json");
    let wait = async {
        while !stored.exists() {
            tokio::time::sleep(INTERVAL).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap();
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_published_while_nothing_changes() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("list.yaml"), document(&["a"])).unwrap();
    let mut running = Running::start(dir);
    running.lists(&["a"], false).await;
    running.lists.mark_unchanged();
    // The same content in a new file is no change.
    fs::write(running.path(), document(&["a"])).unwrap();
    let more = tokio::time::timeout(Duration::from_secs(20), running.lists.changed()).await;
    assert!(more.is_err(), "published again");
    running.stop().await;
}

/// A half-written document can be a valid one that lists too little.
#[test]
fn a_file_that_is_being_written_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("list.yaml");
    let mut file = FileList::new(path.clone(), dir.path().join("state"), AllowList::default());
    let ids = |file: &FileList| {
        let list = file.kept.before().unwrap().clone();
        list.entries.iter().map(|listed| listed.id().to_string()).collect::<Vec<_>>()
    };
    // Long before any change of the file: as if each look came right after the write.
    let just_then = SystemTime::UNIX_EPOCH;
    fs::write(&path, document(&["a", "b"])).unwrap();
    file.look(just_then);
    assert_eq!(ids(&file), ["a", "b"], "there was nothing to lose");
    file.look(just_then);

    fs::write(&path, document(&["a"])).unwrap();
    file.look(just_then);
    assert_eq!(ids(&file), ["a", "b"], "it may not be finished");
    fs::write(&path, document(&["a", "b", "c"])).unwrap();
    file.look(just_then);
    assert_eq!(ids(&file), ["a", "b"], "it wasn't");
    file.look(just_then);
    assert_eq!(ids(&file), ["a", "b", "c"]);

    // A file that was left alone for long is believed at once.
    fs::write(&path, document(&["d"])).unwrap();
    file.look(SystemTime::now() + Duration::from_secs(3600));
    assert_eq!(ids(&file), ["d"]);
}

/// What was read while it could still be written to is read again, even if it looks the same.
#[test]
fn a_list_that_was_read_early_is_read_once_more() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("list.yaml");
    fs::write(&path, document(&["a"])).unwrap();
    let mut file = FileList::new(path, dir.path().join("state"), AllowList::default());
    file.look(SystemTime::UNIX_EPOCH);
    assert!(file.kept.before().is_some() && file.taken.is_none());
    file.look(SystemTime::UNIX_EPOCH);
    assert!(file.taken.is_some());
}
