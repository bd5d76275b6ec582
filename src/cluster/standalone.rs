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

use super::last_good;
use crate::list::{AllowList, List, MAX_BYTES, merge, without_document};

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
        let looked = tokio::task::spawn_blocking(move || {
            file.look(SystemTime::now());
            file
        });
        file = match looked.await {
            Ok(file) => file,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime is shutting down.
            Err(_) => return,
        };
        sender.send_if_modified(|published| {
            let changed = *published != file.list;
            if changed {
                published.clone_from(&file.list);
            }
            changed
        });
    }
}

/// The file, and what was made of it so far.
#[derive(Debug)]
struct FileList {
    path: PathBuf,
    state_dir: PathBuf,
    allow: AllowList,
    list: Option<Arc<List>>,
    /// What is in the state directory.
    stored: Option<Arc<List>>,
    loaded: bool,
    /// What the last look saw.
    seen: Option<Sight>,
    /// What `list` was made of, if it had been left alone long enough then.
    taken: Option<Sight>,
    /// Why it couldn't be stored, as it was last warned about.
    unstored: Option<String>,
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
        Self {
            path,
            state_dir,
            allow,
            list: None,
            stored: None,
            loaded: false,
            seen: None,
            taken: None,
            unstored: None,
        }
    }

    /// Looks at the file and takes it over if it has changed and has settled. A file that is just being written may be
    /// a valid list with entries missing, so it isn't believed before it was left alone for an interval, unless there
    /// is nothing to lose yet.
    fn look(&mut self, now: SystemTime) {
        if !self.loaded {
            self.loaded = true;
            self.stored = last_good::load(&self.state_dir, &self.allow).map(Arc::new);
        }
        let sight = Sight::of(&self.path);
        let settled = self.seen.as_ref() == Some(&sight) || sight.is_old(now);
        let unchanged = self.taken.as_ref() == Some(&sight);
        self.seen = Some(sight.clone());
        let nothing_to_lose = self.before().is_none_or(|list| list.entries.is_empty());
        if !unchanged && (settled || nothing_to_lose) {
            self.take(sight, settled);
        }
        self.store();
    }

    fn before(&self) -> Option<&List> {
        self.list.as_deref().or(self.stored.as_deref())
    }

    fn take(&mut self, sight: Sight, settled: bool) {
        let list = match &sight {
            Sight::Nothing(reason) => self.without_document(reason),
            Sight::File(identity) => match read(&self.path, *identity) {
                Ok(Some(text)) => merge(self.before(), &text, &self.allow),
                // It changed meanwhile: the next look tells.
                Ok(None) => return,
                Err(error) => self.without_document(&error.to_string()),
            },
        };
        // What was read too early is read once more.
        self.taken = settled.then_some(sight);
        if self.list.as_deref() != Some(&list) {
            report(&self.path, &list);
            self.list = Some(Arc::new(list));
        }
    }

    fn without_document(&self, reason: &str) -> List {
        let error = format!(
            "the list can't be read from {}: {reason}; the last good list is kept until there is one",
            self.path.display()
        );
        without_document(self.before(), error, &self.allow)
    }

    /// Stores the list if that isn't done yet. A state directory that can't be written costs only what a restart would
    /// need, so the list is used all the same.
    fn store(&mut self) {
        let Some(list) = self.list.as_ref().filter(|list| self.stored.as_ref() != Some(*list)) else {
            return;
        };
        match last_good::store(&self.state_dir, list) {
            Ok(()) => {
                self.stored = Some(Arc::clone(list));
                self.unstored = None;
            }
            Err(error) => {
                let error = error.to_string();
                if self.unstored.as_ref() != Some(&error) {
                    let state_dir = self.state_dir.display();
                    tracing::warn!(%state_dir, error, "the list can't be stored; a restart may not find it");
                    self.unstored = Some(error);
                }
            }
        }
    }
}

fn report(path: &Path, list: &List) {
    let path = path.display();
    tracing::info!(%path, entries = list.entries.len(), paused = list.paused, "the list has changed");
    for error in &list.errors {
        tracing::error!(%path, "{error}");
    }
    for listed in &list.entries {
        for error in listed.errors() {
            tracing::error!(%path, entry = %listed.id(), "{error}");
        }
    }
    for warning in &list.warnings {
        tracing::warn!(%path, "{warning}");
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
