//! The doors, opened from outside: what the agent's socket serves is what `stoker status` reads there, and what
//! `stoker wait` asks for there is what reaches the agent.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use hyper_util::rt::TokioIo;
use stoker::api::{Labels, ServeError, bind, grpc};
use stoker::cli::wait::{WaitArgs, wait};
use stoker::cli::{Client, ClientError, Exit, Look, SocketFlags, StatusArgs, StatusError, status};
use stoker::node::{Applied, EntryReport, EntryState, GoodsKind, ListReport, Reason, Report};
use stoker::types::{Digest, EntryId, GpuPhase, GpuReason, GpuState, Progress, Revision};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// The client's half of the protocol, as somebody else would generate it.
#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub)]
mod proto {
    tonic::include_proto!("client/stoker.v1");
}

const DEADLINE: Duration = Duration::from_secs(20);

fn report() -> Report {
    let entry = |id: &str, kind, state| EntryReport {
        id: id.parse().unwrap(),
        kind,
        required: false,
        state,
        reason: None,
        revision: None,
        source: format!("s3://bucket/{id}/"),
        verified: false,
        requested: false,
        progress: None,
    };
    Report {
        gpu: GpuState {
            phase: GpuPhase::Degraded,
            reason: GpuReason::GpuCountMismatch,
            message: "7 of 8 GPUs answer".to_owned(),
            devices: 7,
            expected: 8,
            driver_version: Some("570.86.15".to_owned()),
            open: false,
        },
        list: ListReport {
            known: true,
            content: Some(Digest::of(b"list")),
            stale: true,
            ..ListReport::default()
        },
        entries: vec![
            EntryReport {
                required: true,
                revision: Some(Revision::of_image(Digest::of(b"image"))),
                verified: true,
                ..entry("vllm", Some(GoodsKind::Image), EntryState::Warm)
            },
            EntryReport {
                reason: Some(Reason::new("GateClosed", "the gate is closed; see the GPUs")),
                ..entry("llama", Some(GoodsKind::Weights), EntryState::Pending)
            },
        ],
        gate_passed: true,
        ready: false,
        settled: true,
        ready_by: None,
        left_alone: BTreeMap::new(),
        labels_version: 1,
        done: false,
        boot_id: "7c9e6679-7425-40de-944b-e07fc1f90ae7".to_owned(),
    }
}

fn fetching(progress: &Arc<Progress>) -> Report {
    let mut report = report();
    report.entries[1].state = EntryState::Fetching;
    report.entries[1].reason = None;
    report.entries[1].progress = Some(progress.clone());
    report
}

/// An agent's socket without an agent.
struct Served {
    socket: PathBuf,
    reports: watch::Sender<Arc<Report>>,
    confirmed: watch::Sender<Option<Applied>>,
    requested: watch::Receiver<BTreeSet<EntryId>>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Served {
    async fn start(socket: &Path, report: Report) -> Self {
        let listener = bind(socket).await.unwrap();
        let (reports, receiver) = watch::channel(Arc::new(report));
        let labels: Labels = Arc::new(|report: &Report| {
            let gpu = format!("{:?}", report.gpu.phase);
            BTreeMap::from([("stoker.dev/gpu".to_owned(), gpu)])
        });
        let (asked, requested) = watch::channel(BTreeSet::new());
        let stop = CancellationToken::new();
        let standing = BTreeMap::from([("stoker.dev/gpu".to_owned(), "Degraded".to_owned())]);
        let (confirmed, applied) = watch::channel(Some(Applied { labels: standing, ..Applied::default() }));
        let door = grpc::Door { reports: receiver, labels, applied, requested: asked };
        let task = tokio::spawn(grpc::serve(listener, door, stop.clone()));
        Self { socket: socket.to_owned(), reports, confirmed, requested, stop, task }
    }

    fn args(&self, json: bool, watch: bool) -> StatusArgs {
        StatusArgs { socket: self.socket.clone(), json, watch }
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, self.task).await.unwrap().unwrap().unwrap();
    }
}

/// Standard output of a command that runs, until its reader closes it.
#[derive(Clone, Default)]
struct Out(Arc<Mutex<(Vec<u8>, bool)>>);

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut out = self.0.lock().unwrap();
        if out.1 { Err(io::ErrorKind::BrokenPipe.into()) } else { out.0.write(bytes) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Out {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().0.clone()).unwrap()
    }

    fn close(&self) {
        self.0.lock().unwrap().1 = true;
    }

    async fn shows(&self, part: &str) {
        let shown = async {
            while !self.text().contains(part) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(DEADLINE, shown).await;
        assert!(waited.is_ok(), "{part:?} never came, but\n{}", self.text());
    }
}

#[tokio::test]
async fn json_is_the_report_as_it_was_served() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(&dir.path().join("stoker.sock"), report()).await;
    let mut out = Vec::new();
    status::print(&served.args(true, false), Look::default, &mut out).await.unwrap();
    let version = format!("\"version\": \"{}\"", env!("CARGO_PKG_VERSION"));
    let text = String::from_utf8(out).unwrap().replace(&version, "\"version\": \"VERSION\"");
    assert!(text.ends_with("}\n"));
    insta::assert_snapshot!(text, @r#"
    {
      "version": "VERSION",
      "boot_id": "7c9e6679-7425-40de-944b-e07fc1f90ae7",
      "ready": false,
      "settled": true,
      "done": false,
      "gpu": {
        "phase": "Degraded",
        "reason": "GpuCountMismatch",
        "message": "7 of 8 GPUs answer",
        "devices": 7,
        "expected": 8,
        "driver_version": "570.86.15",
        "open": false
      },
      "list": {
        "content": "a330395cc0a53ad1207736546afff4735940937564bbf75ce1edad40780d9139",
        "errors": [],
        "warnings": [],
        "paused": false,
        "stale": true,
        "removals_held": false
      },
      "ready_by": null,
      "labels": {
        "stoker.dev/gpu": "Degraded"
      },
      "unconfirmed_labels": [],
      "entries": [
        {
          "id": "vllm",
          "kind": "image",
          "required": true,
          "state": "Warm",
          "reason": null,
          "bytes_done": 0,
          "bytes_total": 0,
          "revision": "6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d",
          "source": "s3://bucket/vllm/",
          "verified": true,
          "requested": false
        },
        {
          "id": "llama",
          "kind": "weights",
          "required": false,
          "state": "Pending",
          "reason": {
            "code": "GateClosed",
            "message": "the gate is closed; see the GPUs"
          },
          "bytes_done": 0,
          "bytes_total": 0,
          "revision": null,
          "source": "s3://bucket/llama/",
          "verified": false,
          "requested": false
        }
      ]
    }
    "#);
    served.stop().await;
}

#[tokio::test]
async fn the_table_names_what_is_not_warm_and_why() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(&dir.path().join("stoker.sock"), report()).await;
    let mut out = Vec::new();
    status::print(&served.args(false, false), Look::default, &mut out).await.unwrap();
    let text = String::from_utf8(out).unwrap();
    for part in [
        "Degraded (GpuCountMismatch), gate closed, 7 of 8 devices, driver 570.86.15",
        "past its validUntil",
        "stoker.dev/gpu=Degraded",
        "GateClosed: the gate is closed; see the GPUs",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    let stale = BTreeMap::from([("image.stoker.dev/old".to_owned(), "0123".to_owned())]);
    served.confirmed.send(Some(Applied { labels: stale, ..Applied::default() })).unwrap();
    let mut out = Vec::new();
    status::print(&served.args(false, false), Look::default, &mut out).await.unwrap();
    let text = String::from_utf8(out).unwrap();
    for part in ["stoker.dev/gpu=Degraded (the API server has not", "image.stoker.dev/old is to go"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    served.stop().await;
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(&dir.path().join("stoker.sock"), report()).await;
    let mut out = Out::default();
    out.close();
    for watch in [false, true] {
        let args = served.args(false, watch);
        let printed = status::print(&args, Look::default, &mut out);
        tokio::time::timeout(DEADLINE, printed).await.unwrap().unwrap();
    }
    served.stop().await;
}

#[tokio::test]
async fn no_agent_is_told_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let args = StatusArgs { socket: dir.path().join("stoker.sock"), json: false, watch: true };
    let error = status::print(&args, Look::default, &mut Vec::new()).await.unwrap_err();
    assert!(matches!(error, StatusError::Agent(ClientError::Unreachable { .. })), "{error}");
}

#[tokio::test]
async fn a_watch_tells_changes_and_bytes_and_ends_with_the_agent() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(&dir.path().join("stoker.sock"), report()).await;
    let mut client = Client::connect(&served.socket).await.unwrap();
    let mut states = client.watch().await.unwrap();
    let mut next = async || tokio::time::timeout(DEADLINE, states.next()).await.unwrap();
    assert_eq!(next().await.unwrap().unwrap().entries[1].state, Some(EntryState::Pending));

    let progress = Arc::new(Progress::default());
    progress.set_total(100);
    served.reports.send(Arc::new(fetching(&progress))).unwrap();
    assert_eq!(next().await.unwrap().unwrap().entries[1].state, Some(EntryState::Fetching));
    // No change of the report, only of the bytes.
    progress.add(42);
    assert_eq!(next().await.unwrap().unwrap().entries[1].bytes_done, 42);

    served.stop().await;
    while let Some(state) = next().await {
        state.unwrap();
    }
}

#[tokio::test]
async fn a_piped_watch_outlives_the_agents_restart() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("stoker.sock");
    let served = Served::start(&socket, report()).await;
    let (args, mut out) = (served.args(false, true), Out::default());
    let shown = out.clone();
    let watching =
        tokio::spawn(async move { status::print(&args, Look::default, &mut out).await.map(|()| out) });
    shown.shows("llama: Pending (GateClosed): the gate is closed; see the GPUs\n").await;
    served.stop().await;

    let mut warm = report();
    warm.entries[1].state = EntryState::Warm;
    warm.entries[1].revision = Some(Revision::of_image(Digest::of(b"weights")));
    let served = Served::start(&socket, warm).await;
    shown.shows("llama: Warm, revision ").await;

    shown.close();
    served.reports.send(Arc::new(report())).unwrap();
    tokio::time::timeout(DEADLINE, watching).await.unwrap().unwrap().unwrap();
    served.stop().await;
}

async fn channel(socket: &Path) -> tonic::transport::Channel {
    let stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    let mut once = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: http::Uri| {
        std::future::ready(once.take().ok_or(io::ErrorKind::NotConnected).map_err(io::Error::from))
    });
    let endpoint = tonic::transport::Endpoint::from_static("http://stoker.invalid");
    endpoint.connect_with_connector(connector).await.unwrap()
}

#[tokio::test]
async fn health_is_serving_once_settled() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("stoker.sock");
    let served = Served::start(&socket, Report { settled: false, ..report() }).await;
    let mut health = HealthClient::new(channel(&socket).await);
    for service in ["", "stoker.v1.Stoker"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = health.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::NotServing, "{service:?}");
    }
    let request = HealthCheckRequest { service: "stoker.v1.Stoker".to_owned() };
    let mut statuses = health.watch(request).await.unwrap().into_inner();
    assert_eq!(statuses.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    served.reports.send(Arc::new(report())).unwrap();
    assert_eq!(statuses.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    // The stop ends this watch too.
    served.stop().await;
}

/// A client that asks for a stream and never reads it.
#[tokio::test]
async fn a_client_that_does_not_read_delays_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(&dir.path().join("stoker.sock"), report()).await;
    let mut lazy = Client::connect(&served.socket).await.unwrap();
    let unread = lazy.watch().await.unwrap();
    let mut long = report();
    long.entries[1].reason = Some(Reason::new("Long", "x".repeat(1 << 18)));
    for turn in 0..200 {
        long.done = turn % 2 == 0;
        served.reports.send(Arc::new(long.clone())).unwrap();
        tokio::task::yield_now().await;
    }
    let mut other = Client::connect(&served.socket).await.unwrap();
    assert!(!tokio::time::timeout(DEADLINE, other.status()).await.unwrap().unwrap().done);
    served.stop().await;
    drop(unread);
}

fn wait_args(served: &Served, ids: &[&str], fetch: bool) -> WaitArgs {
    WaitArgs {
        ids: ids.iter().map(|id| id.parse().unwrap()).collect(),
        fetch,
        timeout: None,
        agent_timeout: DEADLINE,
        socket: SocketFlags { socket: served.socket.clone() },
    }
}

/// `stoker wait` under way, and its standard error.
fn waiting(args: WaitArgs) -> (Out, JoinHandle<Exit>) {
    let (out, mut written) = (Out::default(), Out::default());
    written.0 = Arc::clone(&out.0);
    (out, tokio::spawn(async move { wait(&args, &mut written).await }))
}

async fn ended(waiting: JoinHandle<Exit>) -> Exit {
    tokio::time::timeout(DEADLINE, waiting).await.unwrap().unwrap()
}

/// The report with llama in this state.
fn llama(state: EntryState, code: Option<&str>) -> Report {
    let mut report = report();
    report.entries[1].state = state;
    report.entries[1].reason = code.map(|code| Reason::new(code, "because"));
    report.entries[1].revision =
        (state == EntryState::Warm).then(|| Revision::of_image(Digest::of(b"weights")));
    report
}

#[tokio::test]
async fn a_wait_outlives_a_failure_and_the_agents_restart() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("stoker.sock");
    let served = Served::start(&socket, report()).await;
    let (out, waiting) = waiting(wait_args(&served, &["vllm", "llama"], false));
    out.shows("llama: Pending (GateClosed)").await;
    served.reports.send(Arc::new(llama(EntryState::Failed, Some("Unreachable")))).unwrap();
    out.shows("llama: Failed (Unreachable): because").await;
    served.stop().await;
    out.shows("waiting for it to come back").await;

    // It has only just started: nothing is ruled out.
    let starting = Report { settled: false, entries: Vec::new(), ..report() };
    let served = Served::start(&socket, starting).await;
    out.shows("llama: Starting").await;
    assert!(!waiting.is_finished());
    served.reports.send(Arc::new(llama(EntryState::Warm, None))).unwrap();
    assert_eq!(ended(waiting).await, Exit::Done);
    assert!(out.text().contains("llama: Warm, revision"), "{}", out.text());
    served.stop().await;
}

#[tokio::test]
async fn what_is_not_for_this_node_ends_the_wait_or_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let left_out = llama(EntryState::Skipped, Some(Reason::NOT_FOR_THIS_NODE));
    let mut served = Served::start(&dir.path().join("stoker.sock"), left_out).await;
    let (out, refused) = waiting(wait_args(&served, &["llama"], false));
    assert_eq!(ended(refused).await, Exit::No);
    assert!(out.text().contains("--fetch"), "{}", out.text());
    let (out, unlisted) = waiting(wait_args(&served, &["vllm", "unlisted"], true));
    assert_eq!(ended(unlisted).await, Exit::No);
    assert!(out.text().contains("unlisted is not in this node's list"), "{}", out.text());
    assert!(served.requested.borrow().is_empty(), "nobody has asked for what can be had");

    let (_out, fetching) = waiting(wait_args(&served, &["llama"], true));
    let asked = served.requested.wait_for(|requested| !requested.is_empty());
    let asked = tokio::time::timeout(DEADLINE, asked).await.unwrap().unwrap().clone();
    assert_eq!(asked.iter().map(EntryId::as_str).collect::<Vec<_>>(), ["llama"]);
    served.reports.send(Arc::new(llama(EntryState::Warm, None))).unwrap();
    assert_eq!(ended(fetching).await, Exit::Done);
    served.stop().await;
}

#[tokio::test]
async fn the_end_of_the_time_names_what_is_cold() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(&dir.path().join("stoker.sock"), report()).await;
    let timeout = Some(Duration::from_millis(300));
    let (out, late) = waiting(WaitArgs { timeout, ..wait_args(&served, &["vllm", "llama"], false) });
    assert_eq!(ended(late).await, Exit::TimedOut);
    assert!(out.text().ends_with("stoker: not warm after 0 s: llama\n"), "{}", out.text());
    served.stop().await;
}

/// The words by which the door tells the planner's skipped entries apart are the planner's.
#[tokio::test]
async fn the_planners_own_reasons_are_understood() {
    use stoker::agent::{Now, Settings, World, plan};
    let text = "{apiVersion: stoker.dev/v1, kind: PrefetchList, entries: [\
        {id: old, image: a, expiresAt: 2020-01-01T00:00:00Z}, {id: other, image: b, nodes: {matchLabels: {a: b}}}]}";
    let list = stoker::list::merge(None, text.as_bytes(), &stoker::list::AllowList::default());
    let facts = stoker::list::NodeFacts { name: "node".to_owned(), labels: BTreeMap::new() };
    let mut world = World::new(Settings::new("node"));
    (world.list, world.facts) = (Some(Arc::new(list)), Some(Arc::new(facts)));
    let report = Report { settled: true, ..plan(&world, "boot", Now::read()).report };

    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(&dir.path().join("stoker.sock"), report).await;
    for (id, line) in [("old", "old is past its expiresAt"), ("other", "other is not for this node")] {
        let (out, refused) = waiting(wait_args(&served, &[id], false));
        assert_eq!(ended(refused).await, Exit::No);
        assert!(out.text().contains(line), "{}", out.text());
    }
    served.stop().await;
}

#[tokio::test]
async fn fetch_answers_for_each_id_and_asks_for_nothing_else() {
    use proto::FetchAnswer::{Accepted, Applies, NotListed};
    let dir = tempfile::tempdir().unwrap();
    let starting = Report { settled: false, entries: Vec::new(), ..report() };
    let served = Served::start(&dir.path().join("stoker.sock"), starting).await;
    let client = proto::stoker_client::StokerClient::new(channel(&served.socket).await);
    let fetch = |ids: &[&str]| {
        let ids = ids.iter().map(|id| (*id).to_owned()).collect();
        let mut client = client.clone();
        async move { client.fetch(proto::FetchRequest { ids }).await }
    };
    let answers = tokio::spawn(fetch(&["vllm", "llama", "unlisted", "llama"]));
    served.reports.send(Arc::new(llama(EntryState::Skipped, Some(Reason::NOT_FOR_THIS_NODE)))).unwrap();
    let answers = tokio::time::timeout(DEADLINE, answers).await.unwrap().unwrap().unwrap().into_inner();
    let answers: Vec<_> = answers.results.iter().map(|result| (&*result.id, result.answer())).collect();
    assert_eq!(answers, [("vllm", Applies), ("llama", Accepted), ("unlisted", NotListed)]);
    let asked: Vec<String> = served.requested.borrow().iter().map(EntryId::to_string).collect();
    assert_eq!(asked, ["llama"]);

    let many: Vec<String> = (0..65).map(|number| format!("{number:0>63}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for ids in [&[][..], &["not an id"], &many] {
        assert_eq!(fetch(ids).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    }
    // The entry leaves the list, and the request with it.
    let mut gone = report();
    gone.entries.truncate(1);
    served.reports.send(Arc::new(gone)).unwrap();
    let mut requested = served.requested.clone();
    tokio::time::timeout(DEADLINE, requested.wait_for(BTreeSet::is_empty)).await.unwrap().unwrap();
    served.stop().await;
}

#[tokio::test]
async fn a_wait_ends_with_its_deadline_and_with_its_client() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(&dir.path().join("stoker.sock"), report()).await;
    let mut client = proto::stoker_client::StokerClient::new(channel(&served.socket).await);
    client.status(proto::StatusRequest {}).await.unwrap();
    let listening = || served.reports.receiver_count();
    let before = listening();
    let forgotten = async || {
        while listening() != before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let request = || proto::WaitRequest { ids: vec!["llama".to_owned()], fetch: false };
    let mut late = tonic::Request::new(request());
    late.set_timeout(Duration::from_millis(300));
    let mut answers = client.wait(late).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap().unwrap().verdict(), proto::Verdict::Unspecified);
    let error = tokio::time::timeout(DEADLINE, answers.message()).await.unwrap().unwrap_err();
    assert_eq!(error.code(), tonic::Code::DeadlineExceeded, "{error}");
    tokio::time::timeout(DEADLINE, forgotten()).await.unwrap();

    let mut answers = client.wait(request()).await.unwrap().into_inner();
    answers.message().await.unwrap().unwrap();
    assert_eq!(listening(), before + 1);
    drop((answers, client));
    tokio::time::timeout(DEADLINE, forgotten()).await.unwrap();
    served.stop().await;
}
