use http::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tower::BoxError;

use super::*;
use crate::cluster::Cluster;
use crate::node::{EntryReport, EntryState, GoodsKind, ListReport};
use crate::types::{Digest, GpuPhase, GpuReason, GpuState, Revision};

const TAINT: &str = "stoker.dev/not-ready";
const IMAGE: &str = "image.stoker.dev/a";

/// A request that waits for its answer.
struct Asked {
    /// Method, path and content type, without what all have in common.
    what: String,
    body: Value,
    answer: oneshot::Sender<Response<reqwest::Body>>,
}

impl Asked {
    fn with(self, status: u16, body: &Value) {
        let body = reqwest::Body::from(body.to_string().into_bytes());
        let _ = self.answer.send(Response::builder().status(status).body(body).unwrap());
    }

    fn refused(self, code: u16) {
        self.with(code, &json!({"code": code, "message": "said the server", "status": "Failure"}));
    }
}

/// A writer, and its API server, which the test plays.
struct Play {
    reports: watch::Sender<Arc<Report>>,
    requests: mpsc::UnboundedReceiver<Asked>,
    node: Value,
    _sights: watch::Sender<Sight>,
    task: JoinHandle<()>,
}

impl Drop for Play {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Play {
    fn start(report: Report) -> Self {
        let node = json!({
            "metadata": {"name": "n", "uid": "u", "resourceVersion": "1", "labels": {}, "annotations": {}},
            "spec": {"taints": [{"key": TAINT, "effect": "NoSchedule"}]},
            "status": {"conditions": []},
        });
        let (asked, requests) = mpsc::unbounded_channel();
        let service = tower::service_fn(move |request: Request<Body>| answer(request, asked.clone()));
        let cluster = Cluster::of(kube::Client::new(service, "default"));
        let known: Node = serde_json::from_value(node.clone()).unwrap();
        let (on, version) = (Arc::new(on_node(&known)), ObjectVersion::of(&known));
        let (sights, sight) = watch::channel(Sight::There { on, version, listed: true });
        let (reports, report) = watch::channel(Arc::new(report));
        let applied = watch::channel(None).0;
        let writer = Writer::new(
            Requests::new(cluster, "n"),
            vec![TAINT.to_owned()],
            Pace::default(),
            applied,
            Arc::default(),
        );
        let task = tokio::spawn(writer.run(report, sight));
        Self { reports, requests, node, _sights: sights, task }
    }

    async fn asked(&mut self) -> Asked {
        self.requests.recv().await.unwrap()
    }

    /// Carries the next request out, if it is this one, and answers with the Node as it is then.
    async fn carries_out(&mut self, what: &str) {
        let asked = self.asked().await;
        assert_eq!(asked.what, what, "{}", asked.body);
        self.carry_out(asked);
    }

    fn carry_out(&mut self, asked: Asked) {
        let (node, body) = (&mut self.node, &asked.body);
        if asked.what.starts_with("PATCH /status") {
            node["status"]["conditions"] = body["status"]["conditions"].clone();
        } else if asked.what == "PATCH apply-patch" {
            node["metadata"]["annotations"] = body["metadata"]["annotations"].clone();
            node["metadata"]["labels"] = body["metadata"].get("labels").cloned().unwrap_or(json!({}));
        } else if asked.what == "PATCH json-patch" {
            node["spec"]["taints"] = json!([]);
        }
        let version: u64 = node["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
        node["metadata"]["resourceVersion"] = json!((version + 1).to_string());
        asked.with(200, &self.node);
    }
}

async fn answer(
    request: Request<Body>,
    asked: mpsc::UnboundedSender<Asked>,
) -> Result<Response<reqwest::Body>, BoxError> {
    let (head, body) = request.into_parts();
    let kind = head.headers.get(http::header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap().to_owned());
    let kind = kind.unwrap_or_default().replace("application/", "").replace("+yaml", "").replace("+json", "");
    let path = head.uri.path().replace("/api/v1/nodes/n", "");
    let words = [head.method.as_str(), &path, &kind];
    let what: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    let bytes = body.collect_bytes().await?;
    let (answer, answered) = oneshot::channel();
    let body = serde_json::from_slice(&bytes).unwrap_or_default();
    asked.send(Asked { what: what.join(" "), body, answer })?;
    Ok(answered.await?)
}

fn report() -> Report {
    let image = EntryReport {
        id: "a".parse().unwrap(),
        kind: Some(GoodsKind::Image),
        required: true,
        state: EntryState::Warm,
        reason: None,
        revision: Some(Revision::of_image(Digest::of(b"a"))),
        source: "docker.io/library/a".to_owned(),
        verified: true,
        requested: false,
        progress: None,
    };
    let gpu = GpuState {
        phase: GpuPhase::Ready,
        reason: GpuReason::DriverReady,
        open: true,
        ..GpuState::unknown()
    };
    Report {
        gpu,
        list: ListReport::default(),
        entries: vec![image],
        gate_passed: true,
        ready: true,
        ready_by: None,
        settled: true,
        left_alone: Default::default(),
        labels_version: 1,
        done: false,
        boot_id: "boot".to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn the_taint_goes_after_the_labels() {
    let mut play = Play::start(report());
    for what in ["PATCH apply-patch", "GET", "PATCH json-patch", "PATCH /status apply-patch"] {
        play.carries_out(what).await;
    }
    assert!(play.node["metadata"]["labels"][IMAGE].is_string());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_no_longer_ready_when_its_labels_are_there_keeps_its_taint() {
    let mut play = Play::start(report());
    let labels = play.asked().await;
    let mut closed = report();
    (closed.gpu.open, closed.gpu.reason, closed.ready) = (false, GpuReason::GpuLost, false);
    closed.labels_version = 2;
    play.reports.send_replace(Arc::new(closed));
    play.carry_out(labels);
    play.carries_out("PATCH apply-patch").await;
    let labels = play.node["metadata"]["labels"].as_object().unwrap();
    assert_eq!(labels.keys().collect::<Vec<_>>(), [IMAGE]);
    play.carries_out("PATCH /status apply-patch").await;
    assert_eq!(play.node["spec"]["taints"][0]["key"], TAINT);
}

#[tokio::test(start_paused = true)]
async fn a_drop_that_was_refused_stays_urgent() {
    let mut play = Play::start(report());
    for what in ["PATCH apply-patch", "GET", "PATCH json-patch", "PATCH /status apply-patch"] {
        play.carries_out(what).await;
    }
    // The burst of routine writes is used up.
    for version in 2..5 {
        let mut other = report();
        (other.boot_id, other.labels_version) = (version.to_string(), version);
        play.reports.send_replace(Arc::new(other));
        play.carries_out("PATCH apply-patch").await;
    }
    let mut dropped = report();
    dropped.entries[0].revision = None;
    dropped.labels_version = 5;
    play.reports.send_replace(Arc::new(dropped));
    play.asked().await.refused(403);
    let refused = Instant::now();
    let again = play.asked().await;
    assert!(again.what == "PATCH apply-patch" && again.body["metadata"]["labels"].get(IMAGE).is_none());
    assert!(refused.elapsed().as_secs() <= 1, "{:?}", refused.elapsed());
}
