//! The list from a ConfigMap: one object, read by name and then watched, so that a change is here at once and a fleet
//! at rest asks for nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Cluster;
use super::config_map::{ConfigMapRef, Sight};
use super::error::{ClusterError, Fault};
use super::kept::{KeptList, apart};
use super::one_object::{OneObject, Seen};
use super::patience::Patience;
use crate::list::{AllowList, List};

/// A watch that held this long has worked, whatever ended it.
const WORKED: Duration = Duration::from_secs(10);

/// A refusal that lasts this long is believed. An API server that has just started refuses what is allowed, for as long
/// as it hasn't read its roles.
const BELIEVED: Duration = Duration::from_secs(15);

/// After so many watches in a row that couldn't be resumed, the object is read again: the version to go on from may be
/// one that this cluster, restored from a backup, will not reach for long.
const RESUMES: u32 = 3;

/// Follows the list in the ConfigMap `source` until `stop`. The receiver holds the last good list in `state_dir` as
/// soon as it's read; without one, `None` until the API server has answered. From then on there is always a list, if
/// only one that says what is wrong, and each new one is stored in `state_dir` before it is published.
pub fn spawn_config_map_list(
    cluster: Cluster,
    source: ConfigMapRef,
    state_dir: PathBuf,
    allow: AllowList,
    stop: CancellationToken,
) -> (watch::Receiver<Option<Arc<List>>>, JoinHandle<()>) {
    let (sender, receiver) = watch::channel(None);
    let kept = KeptList::new(format!("the ConfigMap {source}"), state_dir, allow);
    let maps = Api::namespaced(cluster.client().clone(), source.namespace());
    let task = tokio::spawn(async move {
        let object = OneObject::new(cluster, maps, format!("the ConfigMap {source}"), source.name());
        let follower = Follower {
            object,
            source,
            sender,
            kept: Some(kept),
            told: None,
            watch_began: None,
            read_refused: None,
            watch_refused: None,
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = follower.follow() => {}
        }
    });
    (receiver, task)
}

struct Follower {
    object: OneObject<ConfigMap>,
    source: ConfigMapRef,
    sender: watch::Sender<Option<Arc<List>>>,
    /// Away only while files are read or written.
    kept: Option<KeptList>,
    /// The problem that the log was told about last.
    told: Option<Fault>,
    /// When the newest watch was answered.
    watch_began: Option<Instant>,
    /// Since when each is refused.
    read_refused: Option<Instant>,
    watch_refused: Option<Instant>,
}

/// How a watch ended.
enum End {
    /// After the time that it was asked to last.
    Regular,
    /// Before that: the server stops, or a connection was lost.
    Early,
    Failed(ClusterError),
}

impl Follower {
    async fn follow(mut self) {
        self.keep(|kept| {
            kept.load();
            kept.go_on_with_stored();
        })
        .await;
        let mut patience = Patience::default();
        // The version to watch from; none: read first.
        let mut version = None;
        loop {
            let since = match version.take() {
                Some(since) => since,
                None => match self.read().await {
                    Ok(since) => since,
                    Err(fault) => {
                        tokio::time::sleep(patience.after(fault, fastrand::f64())).await;
                        continue;
                    }
                },
            };
            self.watch_began = None;
            let (reached, end) = self.watch(since).await;
            if self.watch_began.is_some_and(|began| began.elapsed() >= WORKED) {
                patience.worked();
            }
            let fault = match end {
                End::Regular => {
                    version = Some(reached);
                    continue;
                }
                End::Early => Fault::Transient,
                End::Failed(error) => {
                    let fault = error.fault();
                    if is_unanswered(fault) || (fault != Fault::Expired && lasts(&mut self.watch_refused)) {
                        self.tell(&error);
                    }
                    fault
                }
            };
            // After an answer (a version that isn't kept, missing rights, a token that has expired) it's read again.
            if is_unanswered(fault) && patience.unanswered() < RESUMES {
                version = Some(reached);
            }
            tokio::time::sleep(patience.after(fault, fastrand::f64())).await;
        }
    }

    /// Reads the object and takes over what is in it. Gives the version it was read at.
    async fn read(&mut self) -> Result<String, Fault> {
        match self.object.read().await {
            Ok((map, version)) => {
                self.read_refused = None;
                self.take(map).await;
                Ok(version)
            }
            Err(error) => {
                // No answer says nothing about the list; a refusal is one that people must see.
                if is_unanswered(error.fault()) {
                    self.tell(&error);
                } else if lasts(&mut self.read_refused) {
                    let reason = error.cause().to_owned();
                    self.keep(move |kept| kept.take_nothing(&reason)).await;
                }
                Err(error.fault())
            }
        }
    }

    /// Takes over each change after `version`. Gives the version that was reached.
    async fn watch(&mut self, version: String) -> (String, End) {
        let mut watching = match self.object.watch(&version).await {
            Ok(watching) => watching,
            Err(error) => return (version, End::Failed(error)),
        };
        self.watch_began = Some(watching.began());
        self.watch_refused = None;
        self.told_no_more();
        let end = loop {
            match watching.next().await {
                Seen::There(map) => self.take(Some(map)).await,
                Seen::Gone => self.take(None).await,
                // A state directory that couldn't be written may be by now.
                Seen::Version if self.kept.as_ref().is_some_and(KeptList::is_unstored) => {
                    self.keep(|_| {}).await;
                }
                Seen::Version => {}
                Seen::Ended => break End::Regular,
                Seen::Cut => break End::Early,
                Seen::Failed(error) => break End::Failed(error),
            }
        };
        (watching.version, end)
    }

    async fn take(&mut self, map: Option<ConfigMap>) {
        let sight = Sight::of(map, &self.source);
        self.keep(move |kept| match sight {
            Sight::Document(text) => kept.take_document(text.as_bytes()),
            Sight::Nothing(reason) => kept.take_nothing(&reason),
        })
        .await;
    }

    /// Changes the list, stores and publishes it.
    async fn keep(&mut self, change: impl FnOnce(&mut KeptList) + Send + 'static) {
        let Some(kept) = self.kept.take() else { return };
        let kept = apart(kept, |kept| {
            change(kept);
            kept.store();
        });
        self.kept = kept.await;
        if let Some(kept) = &self.kept {
            kept.publish(&self.sender);
        }
    }

    /// Logs a problem once, not at each try.
    fn tell(&mut self, error: &ClusterError) {
        let fault = error.fault();
        if self.told.is_some_and(|told| is_same(told, fault)) {
            return;
        }
        self.told = Some(fault);
        tracing::warn!("{error}; the list stays as it is, and this is tried again");
    }

    fn told_no_more(&mut self) {
        if self.told.take().is_some() {
            tracing::info!(source = %self.source, "the ConfigMap is watched again");
        }
    }
}

/// Whether a refusal that began at `since`, or begins now, has lasted long enough to be believed.
fn lasts(since: &mut Option<Instant>) -> bool {
    since.get_or_insert_with(Instant::now).elapsed() >= BELIEVED
}

/// How long the server asks to wait makes no other problem.
fn is_same(a: Fault, b: Fault) -> bool {
    std::mem::discriminant(&a) == std::mem::discriminant(&b)
}

/// Whether nothing was heard of the object, or of what we may do.
fn is_unanswered(fault: Fault) -> bool {
    matches!(fault, Fault::Transient | Fault::Throttled { .. })
}

#[cfg(test)]
#[path = "tests/config_map_list.rs"]
mod tests;
