//! One object, read and then watched by its name: the only kind of read that this room makes while the agent runs.
//!
//! It's read at the most recent version, never from whatever an API server happens to have cached, and watched from
//! that version on: so an older object can't come back after a newer one, without comparing versions (which would
//! refuse a cluster restored from a backup for good). What to do about a failure, and when to ask again, is the
//! caller's.

use std::fmt::Debug;
use std::pin::Pin;
use std::time::Duration;

use futures::stream::{Stream, StreamExt as _};
use kube::Api;
use kube::api::{ListParams, WatchEvent, WatchParams};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::client::DEADLINE;
use super::{Cluster, ClusterError};

/// How long a watch lasts at most, in seconds, of which each picks its own: a fleet started together doesn't come back
/// together.
const WATCH_SECONDS: std::ops::Range<u32> = 300..600;

/// Such an object.
pub(super) struct OneObject<K> {
    cluster: Cluster,
    api: Api<K>,
    /// What it is, for errors: "the Node a".
    what: String,
    /// RBAC can allow one object by name only for requests that name it so.
    only: String,
}

/// What a watch tells.
pub(super) enum Seen<K> {
    There(K),
    Gone,
    /// Nothing but a later version.
    Version,
    /// It lasted as long as it was asked to.
    Ended,
    /// It ended before that: the server stops, or something between closed the connection.
    Cut,
    Failed(ClusterError),
}

/// A watch that the API server has answered.
pub(super) struct Watching<K> {
    cluster: Cluster,
    what: String,
    events: Pin<Box<dyn Stream<Item = kube::Result<WatchEvent<K>>> + Send>>,
    began: Instant,
    lasts: Duration,
    /// The version that was reached: to go on from.
    pub(super) version: String,
}

impl<K: Clone + Debug + DeserializeOwned + kube::Resource + Send + 'static> OneObject<K> {
    /// The object `name` of `api`; `what` is what errors call it.
    pub(super) fn new(cluster: Cluster, api: Api<K>, what: String, name: &str) -> Self {
        Self { cluster, api, what, only: format!("metadata.name={name}") }
    }

    /// The object, if it's there, and the version it was read at. A list of at most one: it has a version also when the
    /// object isn't there; without a version of its own it asks for the most recent one.
    pub(super) async fn read(&self) -> Result<(Option<K>, String), ClusterError> {
        let params = ListParams::default().fields(&self.only);
        let found = self.cluster.ask(&format!("read {}", self.what), self.api.list(&params)).await?;
        Ok((found.items.into_iter().next(), found.metadata.resource_version.unwrap_or_default()))
    }

    /// Watches it from `version` on.
    pub(super) async fn watch(&self, version: &str) -> Result<Watching<K>, ClusterError> {
        let what = format!("watch {}", self.what);
        let seconds = fastrand::u32(WATCH_SECONDS);
        let params = WatchParams::default().fields(&self.only).timeout(seconds);
        let events = self.cluster.ask(&what, self.api.watch(&params, version)).await?;
        let lasts = Duration::from_secs(seconds.into());
        // The server ends it; should it have vanished behind something that keeps the connection open, we do.
        let events = Box::pin(events.take_until(tokio::time::sleep(lasts + DEADLINE)));
        let (cluster, version) = (self.cluster.clone(), version.to_owned());
        Ok(Watching { cluster, what, events, began: Instant::now(), lasts, version })
    }
}

impl<K: Clone + kube::Resource> Watching<K> {
    /// When the API server answered.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// The next thing it tells; after `Ended`, `Cut` or `Failed` there is nothing more.
    pub(super) async fn next(&mut self) -> Seen<K> {
        let Some(event) = self.events.next().await else {
            let lasted = self.began.elapsed() + Duration::from_secs(1) >= self.lasts;
            return if lasted { Seen::Ended } else { Seen::Cut };
        };
        let (seen, reached) = match event {
            Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                let reached = object.meta().resource_version.clone();
                (Seen::There(object), reached)
            }
            Ok(WatchEvent::Deleted(object)) => (Seen::Gone, object.meta().resource_version.clone()),
            Ok(WatchEvent::Bookmark(bookmark)) => (Seen::Version, Some(bookmark.metadata.resource_version)),
            Ok(WatchEvent::Error(status)) => (self.failed(&kube::Error::Api(status)), None),
            Err(error) => (self.failed(&error), None),
        };
        if let Some(reached) = reached {
            self.version = reached;
        }
        seen
    }

    fn failed(&self, error: &kube::Error) -> Seen<K> {
        Seen::Failed(self.cluster.error(&self.what, error))
    }
}
