//! The list from a file: a node without a cluster, or a ConfigMap that is mounted into the pod.
//!
//! The file is looked at once a second. That notices an edit, a file put in its place and the swapped `..data` link of
//! a mounted ConfigMap alike, on every file system; inotify does none of these reliably.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::kept::{KeptList, apart};
use crate::list::{AllowList, List, MAX_BYTES};

/// How often the file is looked at, and how long it must have been left alone before it's believed.
const INTERVAL: Duration = Duration::from_secs(1);

/// Reads the list at `path` now and whenever it changes, until `stop`. The receiver holds `None` until the file was
/// looked at once; from then on there is always a list, if only one that says what is wrong. It begins with the last
/// good one in `state_dir`, where each new one is stored before it is published.
pub fn spawn_file_list(
    path: PathBuf,
    state_dir: PathBuf,
    allow: AllowList,
    stop: CancellationToken,
) -> (watch::Receiver<Option<Arc<List>>>, JoinHandle<()>) {
    let (sender, receiver) = watch::channel(None);
    let task = tokio::spawn(async move {
        // Waits for the disk on another thread; a file system that hangs must not keep the agent from stopping.
        tokio::select! {
            () = stop.cancelled() => {}
            () = follow(FileList::new(path, state_dir, allow), sender) => {}
        }
    });
    (receiver, task)
}

async fn follow(mut file: FileList, sender: watch::Sender<Option<Arc<List>>>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(looked) = apart(file, |file| file.look(SystemTime::now())).await else { return };
        file = looked;
        file.kept.publish(&sender);
    }
}

/// The file, and what was made of it so far.
#[derive(Debug)]
struct FileList {
    path: PathBuf,
    kept: KeptList,
    /// What the last look saw.
    seen: Option<Sight>,
    /// What the list was made of, if it had been left alone long enough then.
    taken: Option<Sight>,
}

/// What is at the path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sight {
    File(Identity),
    /// No file, for this reason.
    Nothing(String),
}

/// Tells one content of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// Changes with every write, even one that puts the old time of modification back.
    changed: (i64, i64),
}

impl FileList {
    fn new(path: PathBuf, state_dir: PathBuf, allow: AllowList) -> Self {
        let kept = KeptList::new(path.display().to_string(), state_dir, allow);
        Self { path, kept, seen: None, taken: None }
    }

    /// Looks at the file and takes it over if it has changed and has settled. A file that is just being written may be
    /// a valid list with entries missing, so it isn't believed before it was left alone for an interval, unless there
    /// is nothing to lose yet.
    fn look(&mut self, now: SystemTime) {
        self.kept.load();
        let sight = Sight::of(&self.path);
        let settled = self.seen.as_ref() == Some(&sight) || sight.is_old(now);
        let unchanged = self.taken.as_ref() == Some(&sight);
        self.seen = Some(sight.clone());
        let nothing_to_lose = self.kept.before().is_none_or(|list| list.entries.is_empty());
        if !unchanged && (settled || nothing_to_lose) {
            self.take(sight, settled);
        }
        self.kept.store();
    }

    fn take(&mut self, sight: Sight, settled: bool) {
        match &sight {
            Sight::Nothing(reason) => self.kept.take_nothing(reason),
            Sight::File(identity) => match read(&self.path, *identity) {
                Ok(Some(text)) => self.kept.take_document(&text),
                // It changed meanwhile: the next look tells.
                Ok(None) => return,
                Err(error) => self.kept.take_nothing(&error.to_string()),
            },
        }
        // What was read too early is read once more.
        self.taken = settled.then_some(sight);
    }
}

impl Sight {
    fn of(path: &Path) -> Self {
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => Self::File(Identity::of(&metadata)),
            Ok(_) => Self::Nothing("it is not a regular file".to_owned()),
            Err(error) => Self::Nothing(error.to_string()),
        }
    }

    /// Whether the file was last changed an interval ago or earlier. A time in the future tells nothing.
    fn is_old(&self, now: SystemTime) -> bool {
        let Self::File(identity) = self else { return false };
        let (seconds, nanoseconds) = identity.changed;
        let (Ok(seconds), Ok(nanoseconds)) = (u64::try_from(seconds), u32::try_from(nanoseconds)) else {
            return false;
        };
        let changed = SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds));
        changed.and_then(|changed| now.duration_since(changed).ok()).is_some_and(|age| age >= INTERVAL)
    }
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// The file's bytes, one more than a list may have at most; `None` when it isn't, or didn't stay, the file that was
/// seen.
fn read(path: &Path, seen: Identity) -> io::Result<Option<Vec<u8>>> {
    // Should a pipe have taken the file's place, opening it must not wait for its writer.
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let is_seen = |file: &File| file.metadata().map(|now| now.is_file() && Identity::of(&now) == seen);
    if !is_seen(&file)? {
        return Ok(None);
    }
    let mut text = Vec::new();
    (&file).take(MAX_BYTES as u64 + 1).read_to_end(&mut text)?;
    Ok(is_seen(&file)?.then_some(text))
}

#[cfg(test)]
#[path = "standalone_tests.rs"]
mod tests;
