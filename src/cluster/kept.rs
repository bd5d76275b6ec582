//! The list as it goes on from document to document, wherever these come from: merged with the last good one, stored
//! before it's published, and never let go because there is no document.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use super::last_good;
use crate::list::{AllowList, List, merge, without_document};

/// The list, and what of it is in the state directory.
#[derive(Debug)]
pub(super) struct KeptList {
    /// Where the documents come from, as errors and log lines name it: a path, a ConfigMap.
    origin: String,
    state_dir: PathBuf,
    allow: AllowList,
    list: Option<Arc<List>>,
    /// What is in the state directory.
    stored: Option<Arc<List>>,
    loaded: bool,
    /// Why it couldn't be stored, as it was last warned about.
    unstored: Option<String>,
}

impl KeptList {
    pub(super) fn new(origin: String, state_dir: PathBuf, allow: AllowList) -> Self {
        Self { origin, state_dir, allow, list: None, stored: None, loaded: false, unstored: None }
    }

    /// Reads what is in the state directory, once.
    pub(super) fn load(&mut self) {
        if !self.loaded {
            self.loaded = true;
            self.stored = last_good::load(&self.state_dir, &self.allow).map(Arc::new);
        }
    }

    /// Makes the stored list the list while there is no other; until the document was looked for it isn't current.
    pub(super) fn go_on_with_stored(&mut self) {
        if self.list.is_none() {
            let stored = self.stored.as_deref().cloned();
            self.list = stored.map(|stored| Arc::new(List { current: false, ..stored }));
        }
    }

    /// The list so far, of this run or of one before.
    pub(super) fn before(&self) -> Option<&List> {
        self.list.as_deref().or(self.stored.as_deref())
    }

    pub(super) fn take_document(&mut self, text: &[u8]) {
        let list = merge(self.before(), text, &self.allow);
        self.take(list);
    }

    /// There is no document, for this reason.
    pub(super) fn take_nothing(&mut self, reason: &str) {
        let error = format!(
            "the list can't be read from {}: {reason}; the last good list is kept until there is one",
            self.origin
        );
        let list = without_document(self.before(), error, &self.allow);
        self.take(list);
    }

    fn take(&mut self, list: List) {
        if self.list.as_deref() == Some(&list) {
            return;
        }
        if self.stored.as_deref() != Some(&list) {
            self.report(&list);
        }
        self.list = Some(Arc::new(list));
    }

    /// Stores the list if that isn't done yet. A state directory that can't be written costs only what a restart would
    /// need, so the list is used all the same.
    pub(super) fn store(&mut self) {
        let Some(list) = self.list.as_ref().filter(|_| self.is_unstored()) else { return };
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

    /// Whether the list as it is isn't stored yet.
    pub(super) fn is_unstored(&self) -> bool {
        self.list.as_ref().is_some_and(|list| list.current && self.stored.as_ref() != Some(list))
    }

    /// Publishes the list, if it's another than the last one.
    pub(super) fn publish(&self, sender: &watch::Sender<Option<Arc<List>>>) {
        sender.send_if_modified(|published| {
            let changed = *published != self.list;
            if changed {
                published.clone_from(&self.list);
            }
            changed
        });
    }

    fn report(&self, list: &List) {
        let from = self.origin.as_str();
        tracing::info!(from, entries = list.entries.len(), paused = list.paused, "the list has changed");
        for error in &list.errors {
            tracing::error!(from, "{error}");
        }
        for listed in &list.entries {
            for error in listed.errors() {
                tracing::error!(from, entry = %listed.id(), "{error}");
            }
        }
        for warning in &list.warnings {
            tracing::warn!(from, "{warning}");
        }
    }
}

/// Does `work`, which reads or writes files, on a thread where waiting for the disk holds nobody up, and gives back
/// what it worked on. `None` when the runtime is shutting down.
pub(super) async fn apart<T: Send + 'static>(
    mut thing: T,
    work: impl FnOnce(&mut T) + Send + 'static,
) -> Option<T> {
    let done = tokio::task::spawn_blocking(move || {
        work(&mut thing);
        thing
    });
    match done.await {
        Ok(thing) => Some(thing),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => None,
    }
}
