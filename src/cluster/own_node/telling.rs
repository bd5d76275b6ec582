use std::collections::{BTreeMap, VecDeque};
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
use super::backoff::Backoff;
use super::watching::Sight;
use crate::node::{EventBook, NodeEvent, OnNode, Report};
use crate::types::Digest;

/// Events about what has no namespace are kept here.
const NAMESPACE: &str = "default";

/// The longest name of whoever reports, and more than enough of a node's name in an event's.
const LONGEST_NAME: usize = 128;

/// Counts of events that were told; with more than these, the counting begins anew.
const MAX_COUNTED: usize = 256;

/// Events that could not be told yet. Of more than these the oldest are only in the status.
const MAX_UNTOLD: usize = 8;

/// Tells people on the Node what they should know. What can't be told while the API server is away is told once it's back;
/// what it refuses is only in the status.
pub(super) struct Teller {
    cluster: Cluster,
    settings: NodeSettings,
    book: EventBook,
    /// How often each event was told in this run, by its name.
    told: BTreeMap<String, u32>,
    untold: VecDeque<NodeEvent>,
    /// What is untold waits until then: a whole fleet sees the same bad list at once.
    hold_until: Option<Instant>,
    again: Backoff,
    failing: bool,
}

impl Teller {
    pub(super) fn new(cluster: Cluster, settings: NodeSettings) -> Self {
        let book = EventBook::new(settings.gate_warn_after);
        let (told, untold, again) = (BTreeMap::new(), VecDeque::new(), Backoff::default());
        Self { cluster, settings, book, told, untold, hold_until: None, again, failing: false }
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
                let due = self.book.due(&report, on, &self.settings.taints, Instant::now());
                self.hold(&due, fastrand::f64());
                self.untold.extend(due);
                self.untold.drain(..self.untold.len().saturating_sub(MAX_UNTOLD));
                self.tell(on, &report.boot_id).await;
            } else {
                self.untold.clear();
            }
            let again = self.again.until().filter(|_| !self.untold.is_empty());
            let held = self.hold_until.filter(|_| !self.untold.is_empty());
            let wake_at = self.book.wake_at().into_iter().chain(again).chain(held).min();
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

    /// What many nodes have to say at the same moment is spread.
    fn hold(&mut self, due: &[NodeEvent], chance: f64) {
        let now = Instant::now();
        self.hold_until = self.hold_until.filter(|until| *until > now);
        if self.hold_until.is_none() && due.iter().any(NodeEvent::is_of_the_list) {
            self.hold_until = Some(now + self.settings.spread.mul_f64(chance));
        }
    }

    async fn tell(&mut self, on: &OnNode, boot_id: &str) {
        while self.again.has_passed(Instant::now())
            && self.hold_until.is_none_or(|until| until <= Instant::now())
            && let Some(event) = self.untold.pop_front()
        {
            match self.post(&event, on, boot_id).await {
                Ok(()) => {
                    self.failing = false;
                    self.again.succeeded();
                }
                Err(error) => self.failed(event, &error),
            }
        }
    }

    fn failed(&mut self, event: NodeEvent, error: &ClusterError) {
        if self.failing {
            tracing::debug!("{error}");
        } else {
            tracing::warn!(reason = event.reason, "{error}; going on without events");
            self.failing = true;
        }
        let fault = error.fault();
        if matches!(fault, Fault::Transient | Fault::Throttled { .. } | Fault::Unauthorized) {
            self.untold.push_front(event);
            self.again.failed(fault, Instant::now(), fastrand::f64());
        }
    }

    /// What is told again in the same boot has the same name: an agent that was restarted finds that it was told, and
    /// what comes back is counted on the event that is there.
    async fn post(&mut self, event: &NodeEvent, on: &OnNode, boot_id: &str) -> Result<(), ClusterError> {
        let name = name(&self.settings.name, event, on, boot_id);
        if self.told.len() >= MAX_COUNTED {
            self.told.clear();
        }
        let count = self.told.get(&name).copied().unwrap_or_default() + 1;
        let what = format!("write the event {} of the Node {}", event.reason, self.settings.name);
        let events: Api<Event> = Api::namespaced(self.cluster.client().clone(), NAMESPACE);
        if count > 1 {
            let series = Patch::Merge(json!({"series": {"count": count, "lastObservedTime": now()}}));
            let params = PatchParams::default();
            match self.cluster.ask(&what, events.patch(&name, &params, &series)).await {
                // It's no longer kept.
                Err(error) if error.fault() == Fault::NotFound => {}
                Err(error) => return Err(error),
                Ok(_) => {
                    self.told.insert(name, count);
                    return Ok(());
                }
            }
        }
        let object = self.object(name.clone(), event, on);
        match self.cluster.ask(&what, events.create(&PostParams::default(), &object)).await {
            Err(error) if error.fault() != Fault::Conflict => return Err(error),
            _ => {}
        }
        self.told.insert(name, count);
        Ok(())
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
    use std::time::Duration;

    use http::{Request, Response};
    use kube::client::Body;
    use tokio::sync::mpsc;
    use tower::BoxError;

    use super::super::object::{ObjectVersion, on_node};
    use super::*;
    use crate::node::ListReport;
    use crate::types::GpuState;

    /// The API server: one that is away answers with a 503. Each request's method is told.
    async fn serve(
        request: Request<Body>,
        away: bool,
        asked: mpsc::UnboundedSender<String>,
    ) -> Result<Response<reqwest::Body>, BoxError> {
        let method = request.method().to_string();
        let body = request.into_body().collect_bytes().await?;
        asked.send(method)?;
        let status = if away { 503 } else { 200 };
        let refusal = json!({"code": 503, "message": "starting", "status": "Failure"}).to_string();
        let body = if away { reqwest::Body::from(refusal) } else { reqwest::Body::from(body) };
        Ok(Response::builder().status(status).body(body)?)
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_told_while_the_api_server_is_away_is_told_once_it_is_back() {
        let (asked, mut requests) = mpsc::unbounded_channel();
        let left = Arc::new(std::sync::atomic::AtomicU32::new(3));
        let service = tower::service_fn(move |request: Request<Body>| {
            use std::sync::atomic::Ordering::Relaxed;
            let away = left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
            serve(request, away, asked.clone())
        });
        let cluster = Cluster::of(kube::Client::new(service, "default"));
        let node = serde_json::from_value(json!({"metadata": {"name": "n", "uid": "u"}})).unwrap();
        let (on, version) = (Arc::new(on_node(&node)), ObjectVersion::of(&node));
        let (_sights, sights) = watch::channel(Sight::There { on, version, listed: true });
        let report = Report {
            gpu: GpuState { open: true, ..GpuState::unknown() },
            list: ListReport { errors: vec!["line 3: no".to_owned()], ..ListReport::default() },
            entries: Vec::new(),
            gate_passed: true,
            ready: false,
            ready_by: None,
            settled: false,
            left_alone: BTreeMap::new(),
            labels_version: 1,
            done: false,
            boot_id: "boot".to_owned(),
        };
        let (_reports, reports) = watch::channel(Arc::new(report));
        let settings = NodeSettings { spread: Duration::ZERO, ..NodeSettings::new("n") };
        let teller = Teller::new(cluster, settings);
        let task = tokio::spawn(teller.run(reports, sights));
        let began = Instant::now();
        for _ in 0..4 {
            let next = tokio::time::timeout(Duration::from_secs(60), requests.recv()).await;
            let method = next.expect("another try").unwrap();
            assert_eq!(method, "POST", "nothing counts as told before it is");
        }
        assert!(began.elapsed() <= Duration::from_secs(7), "{:?}", began.elapsed());
        let more = tokio::time::timeout(Duration::from_secs(3600), requests.recv()).await;
        assert!(more.is_err(), "told once: {more:?}");
        task.abort();
    }

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
