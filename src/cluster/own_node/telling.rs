use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::super::{Cluster, ClusterError, Fault};
use super::NodeSettings;
use super::watching::Sight;
use crate::node::{EventBook, NodeEvent, OnNode, Report};
use crate::types::Digest;

/// Events about what has no namespace are kept here.
const NAMESPACE: &str = "default";

/// The longest name of whoever reports, and more than enough of a node's name in an event's.
const LONGEST_NAME: usize = 128;

/// Counts of events that were told; with more than these, the counting begins anew.
const MAX_COUNTED: usize = 256;

/// Tells people on the Node what they should know. Best effort: what can't be told now is in the status.
pub(super) struct Teller {
    cluster: Cluster,
    settings: NodeSettings,
    book: EventBook,
    /// How often each event was told in this run, by its name.
    told: BTreeMap<String, u32>,
    failing: bool,
}

impl Teller {
    pub(super) fn new(cluster: Cluster, settings: NodeSettings) -> Self {
        let book = EventBook::new(settings.gate_warn_after);
        Self { cluster, settings, book, told: BTreeMap::new(), failing: false }
    }

    /// Runs until nobody makes reports any more.
    pub(super) async fn run(
        mut self,
        mut reports: watch::Receiver<Arc<Report>>,
        mut sights: watch::Receiver<Sight>,
    ) {
        loop {
            let sight = sights.borrow_and_update().clone();
            let report = Arc::clone(&reports.borrow_and_update());
            if let Sight::There { on, .. } = &sight {
                for event in self.book.due(&report, on, &self.settings.taints, Instant::now()) {
                    self.tell(&event, on, &report.boot_id).await;
                }
            }
            let wake_at = self.book.wake_at();
            let wake = async {
                match wake_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = wake => {}
                changed = reports.changed() => if changed.is_err() { return },
                changed = sights.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn tell(&mut self, event: &NodeEvent, on: &OnNode, boot_id: &str) {
        match self.post(event, on, boot_id).await {
            Ok(()) => self.failing = false,
            Err(error) if self.failing => tracing::debug!("{error}"),
            Err(error) => {
                tracing::warn!(reason = event.reason, "{error}; going on without events");
                self.failing = true;
            }
        }
    }

    /// What is told again in the same boot has the same name: an agent that was restarted finds that it was told, and
    /// what comes back is counted on the event that is there.
    async fn post(&mut self, event: &NodeEvent, on: &OnNode, boot_id: &str) -> Result<(), ClusterError> {
        let name = name(&self.settings.name, event, on, boot_id);
        if self.told.len() >= MAX_COUNTED {
            self.told.clear();
        }
        let count = self.told.entry(name.clone()).or_default();
        *count += 1;
        let count = *count;
        let what = format!("write the event {} of the Node {}", event.reason, self.settings.name);
        let events: Api<Event> = Api::namespaced(self.cluster.client().clone(), NAMESPACE);
        if count > 1 {
            let series = Patch::Merge(json!({"series": {"count": count, "lastObservedTime": now()}}));
            let params = PatchParams::default();
            match self.cluster.ask(&what, events.patch(&name, &params, &series)).await {
                // It's no longer kept.
                Err(error) if error.fault() == Fault::NotFound => {}
                done => return done.map(drop),
            }
        }
        let object = self.object(name, event, on);
        match self.cluster.ask(&what, events.create(&PostParams::default(), &object)).await {
            Err(error) if error.fault() == Fault::Conflict => Ok(()),
            done => done.map(drop),
        }
    }

    fn object(&self, name: String, event: &NodeEvent, on: &OnNode) -> Event {
        Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(NAMESPACE.to_owned()),
                ..ObjectMeta::default()
            },
            regarding: Some(ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Node".to_owned()),
                name: Some(self.settings.name.clone()),
                uid: Some(on.uid.clone()),
                ..ObjectReference::default()
            }),
            type_: Some(if event.warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(event.reason.to_owned()),
            note: Some(event.message.clone()),
            action: Some("Prefetch".to_owned()),
            event_time: Some(now()),
            reporting_controller: Some("stoker.dev/agent".to_owned()),
            reporting_instance: Some(shortened(&self.settings.name)),
            ..Event::default()
        }
    }
}

fn now() -> MicroTime {
    MicroTime(jiff::Timestamp::now())
}

fn name(node: &str, event: &NodeEvent, on: &OnNode, boot_id: &str) -> String {
    let said = [on.uid.as_str(), boot_id, event.reason, &event.message].join("\n");
    format!("{}.{}", shortened(node), &Digest::of(said.as_bytes()).hex()[..16])
}

/// A node's name, cut so that it can stand in another one.
fn shortened(name: &str) -> String {
    let cut: String = name.chars().take(LONGEST_NAME).collect();
    cut.trim_end_matches(['.', '-']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_same_has_the_same_name_on_the_same_node_in_the_same_boot() {
        let event = NodeEvent { warning: true, reason: "ListInvalid", message: "m".to_owned() };
        let on = OnNode { uid: "u".to_owned(), ..OnNode::default() };
        let first = name("node-a", &event, &on, "boot");
        assert!(first.starts_with("node-a.") && first.len() == 23, "{first}");
        assert_eq!(first, name("node-a", &event, &on, "boot"));
        assert_ne!(first, name("node-a", &event, &on, "another"));
        assert_ne!(first, name("node-a", &event, &OnNode::default(), "boot"));
        let long = shortened(&format!("{}.{}", "n".repeat(127), "x"));
        assert_eq!(long, "n".repeat(127));
    }
}
