use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::BoxError;

use super::*;

/// What the API server does with the next request; with none left, it can't be reached.
enum Answer {
    Objects(u32, Vec<Value>),
    /// Events, then the end: at once, or when the watch was to end.
    Events(Vec<Value>, bool),
    Refused(u16),
    Unreachable,
    /// Neither, for ever.
    Silent,
}

#[derive(Clone, Default)]
struct Server {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    asked: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Server {
    fn will(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self { answers: Arc::new(Mutex::new(answers.into_iter().collect())), ..Self::default() }
    }

    fn client(&self) -> kube::Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let answer = server.answer(&request);
            async move {
                match answer {
                    Some(answer) => answer,
                    None => std::future::pending().await,
                }
            }
        });
        kube::Client::new(service, "default")
    }

    fn answer(&self, request: &Request<Body>) -> Option<Result<Response<reqwest::Body>, BoxError>> {
        let query = request.uri().query().unwrap_or_default().to_owned();
        self.asked.lock().unwrap().push((Instant::now(), query.clone()));
        let answer = self.answers.lock().unwrap().pop_front().unwrap_or(Answer::Unreachable);
        let (status, body) = match answer {
            Answer::Objects(version, items) => {
                let metadata = json!({"resourceVersion": version.to_string()});
                let list = json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": metadata, "items": items});
                (200, reqwest::Body::from(list.to_string().into_bytes()))
            }
            Answer::Events(events, ends) => {
                let lines: Vec<_> =
                    events.iter().map(|event| Ok::<_, BoxError>(Bytes::from(format!("{event}\n")))).collect();
                let seconds = pair(&query, "timeoutSeconds").parse().unwrap();
                let end = stream::once(async move {
                    if !ends {
                        tokio::time::sleep(Duration::from_secs(seconds)).await;
                    }
                    Ok(Bytes::new())
                });
                (200, reqwest::Body::wrap_stream(stream::iter(lines).chain(end)))
            }
            Answer::Refused(code) => {
                let status = json!({"code": code, "message": "said the server", "status": "Failure"});
                (code, reqwest::Body::from(status.to_string().into_bytes()))
            }
            Answer::Unreachable => return Some(Err("connection refused".into())),
            Answer::Silent => return None,
        };
        Some(Ok(Response::builder().status(status).body(body).unwrap()))
    }

    /// The requests so far: `list`, or the version that was watched from.
    fn asked(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        let short = |(_, query): &(Instant, String)| {
            assert!(query.contains("metadata.name%3Dl"), "{query}");
            if query.contains("watch=true") { pair(query, "resourceVersion") } else { "list".to_owned() }
        };
        asked.iter().map(short).collect()
    }
}

fn pair(query: &str, key: &str) -> String {
    let pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs.into_iter().find(|(name, _)| name == key).map(|(_, value)| value.into_owned()).unwrap_or_default()
}

fn map(version: u32, ids: &[&str]) -> Value {
    let entries: Vec<_> = ids.iter().map(|id| json!({"id": id, "image": "nginx"})).collect();
    let list = json!({"apiVersion": "stoker.dev/v1", "kind": "PrefetchList", "entries": entries});
    let metadata = json!({"name": "l", "namespace": "n", "resourceVersion": version.to_string()});
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"list.yaml": list.to_string()}})
}

fn event(kind: &str, object: Value) -> Value {
    json!({"type": kind, "object": object})
}

struct Running {
    lists: watch::Receiver<Option<Arc<List>>>,
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Running {
    fn start(server: &Server, state: &Path) -> Self {
        let stop = CancellationToken::new();
        let cluster = Cluster::of(server.client());
        let source = "n/l".parse().unwrap();
        let (lists, task) =
            spawn_config_map_list(cluster, source, state.to_owned(), AllowList::default(), stop.clone());
        Self { lists, task, stop }
    }

    async fn lists(&mut self, ids: &[&str], held: bool) -> Arc<List> {
        let wanted = |list: &Option<Arc<List>>| {
            list.as_ref().is_some_and(|list| {
                let listed: Vec<&str> = list.entries.iter().map(|listed| listed.id().as_str()).collect();
                listed == ids && list.removals_held == held
            })
        };
        let list = tokio::time::timeout(Duration::from_secs(3600), self.lists.wait_for(wanted)).await;
        list.unwrap_or_else(|_| panic!("never {ids:?} {held}")).unwrap().clone().unwrap()
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

/// Waits until the server was asked so often.
async fn asked(server: &Server, times: usize) -> Vec<String> {
    let wait = async {
        while server.asked().len() < times {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(7200), wait).await.unwrap();
    server.asked()
}

fn state() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_in_time_goes_on_without_reading_again() {
    let bookmark = event(
        "BOOKMARK",
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"resourceVersion": "9"}}),
    );
    let server = Server::will([
        Answer::Objects(5, vec![map(3, &["a"])]),
        Answer::Events(vec![event("MODIFIED", map(7, &["b"]))], false),
        Answer::Events(vec![bookmark], false),
        Answer::Events(vec![event("DELETED", map(11, &["b"]))], false),
        Answer::Events(vec![event("ADDED", map(13, &["c"]))], false),
    ]);
    let dir = state();
    let mut running = Running::start(&server, dir.path());
    running.lists(&["a"], false).await;
    running.lists(&["b"], false).await;
    let gone = running.lists(&["b"], true).await;
    assert!(gone.errors[0].contains("the ConfigMap n/l: there is no such ConfigMap"), "{:?}", gone.errors);
    running.lists(&["c"], false).await;
    assert_eq!(asked(&server, 6).await[..6], ["list", "5", "7", "9", "11", "13"]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_not_kept_any_more_is_read_again() {
    let gone =
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "reason": "Expired"});
    let server = Server::will([
        Answer::Objects(5, vec![map(3, &["a"])]),
        Answer::Events(vec![event("ERROR", gone)], true),
        Answer::Objects(50, vec![map(40, &["b"])]),
        Answer::Refused(410),
        Answer::Objects(60, vec![map(55, &["c"])]),
        Answer::Events(vec![], false),
    ]);
    let dir = state();
    let mut running = Running::start(&server, dir.path());
    running.lists(&["c"], false).await;
    assert_eq!(asked(&server, 6).await[..6], ["list", "5", "list", "50", "list", "60"]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_broken_watch_is_resumed_and_after_some_tries_the_object_is_read_again() {
    let server = Server::will([
        Answer::Objects(5, vec![map(3, &["a"])]),
        Answer::Events(vec![event("MODIFIED", map(7, &["b"]))], true),
        Answer::Unreachable,
        Answer::Refused(503),
        Answer::Unreachable,
        Answer::Objects(8, vec![map(1, &["c"])]),
        Answer::Events(vec![], false),
    ]);
    let dir = state();
    let mut running = Running::start(&server, dir.path());
    running.lists(&["c"], false).await;
    assert_eq!(asked(&server, 7).await[..7], ["list", "5", "7", "7", "7", "list", "8"]);
    running.stop().await;
}

/// That it took long to say nothing is no sign that it works.
#[tokio::test(start_paused = true)]
async fn a_server_that_accepts_and_never_answers_is_left_alone_ever_longer() {
    let mut answers = vec![Answer::Objects(5, vec![map(3, &["a"])])];
    answers.extend((0..30).map(|_| Answer::Silent));
    let server = Server::will(answers);
    let dir = state();
    let mut running = Running::start(&server, dir.path());
    running.lists(&["a"], false).await;
    let began = Instant::now();
    let asked = asked(&server, 30).await;
    assert_eq!(asked[..6], ["list", "5", "5", "5", "5", "list"]);
    let each = began.elapsed() / 30;
    assert!(
        each > Duration::from_secs(35),
        "{each:?} between two tries, of which 30 s are the wait for an answer"
    );
    assert!(running.lists.borrow().as_ref().unwrap().errors.is_empty());
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_fleet_that_loses_its_api_server_does_not_storm_it() {
    let server = Server::will([Answer::Objects(5, vec![map(3, &["a"])])]);
    let dir = state();
    let mut running = Running::start(&server, dir.path());
    running.lists(&["a"], false).await;
    let began = Instant::now();
    asked(&server, 40).await;
    let each = began.elapsed() / 40;
    assert!(each > Duration::from_secs(5) && each < Duration::from_secs(30), "{each:?} between two tries");
    // All of that is no reason to touch the list.
    assert!(running.lists.borrow().as_ref().unwrap().errors.is_empty());
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn before_the_api_server_has_answered_only_a_stored_list_is_published() {
    let dir = state();
    let server = Server::will([]);
    let running = Running::start(&server, dir.path());
    asked(&server, 5).await;
    assert!(running.lists.borrow().is_none(), "nothing is known");
    running.stop().await;

    let server = Server::will([Answer::Objects(5, vec![map(3, &["a"])])]);
    let mut running = Running::start(&server, dir.path());
    running.lists(&["a"], false).await;
    running.stop().await;
    let server = Server::will([]);
    let mut running = Running::start(&server, dir.path());
    assert!(!running.lists(&["a"], false).await.current, "something else may be listed by now");
    assert!(server.asked().len() <= 1, "the stored list waits for no answer");
    running.stop().await;
    let server = Server::will([Answer::Objects(5, vec![map(3, &["a"])])]);
    let mut running = Running::start(&server, dir.path());
    let current = running.lists.wait_for(|list| list.as_ref().is_some_and(|list| list.current)).await;
    assert_eq!(current.unwrap().as_ref().unwrap().entries.len(), 1);
    running.stop().await;
}

/// So often that it takes long.
fn refused(code: u16) -> impl Iterator<Item = Answer> {
    std::iter::repeat_with(move || Answer::Refused(code)).take(20)
}

#[tokio::test(start_paused = true)]
async fn what_the_api_server_keeps_refusing_is_said_in_the_list() {
    let server = Server::will(
        refused(403)
            .chain([
                Answer::Objects(5, vec![map(3, &["a"])]),
                // The right to watch is missing: the document is read now and then.
                Answer::Refused(403),
                Answer::Objects(6, vec![map(6, &["b"])]),
                Answer::Refused(403),
            ])
            .chain(refused(401))
            .chain([Answer::Objects(6, vec![map(6, &["b"])]), Answer::Events(vec![], false)]),
    );
    let dir = state();
    let mut running = Running::start(&server, dir.path());
    let refused = running.lists(&[], true).await;
    assert!(refused.errors[0].contains("said the server; grant it"), "{:?}", refused.errors);
    running.lists(&["a"], false).await;
    running.lists(&["b"], false).await;
    let refused = running.lists(&["b"], true).await;
    assert!(refused.errors[0].contains("said the server; check the token"), "{:?}", refused.errors);
    running.lists(&["b"], false).await;
    running.stop().await;
}

/// So does one that has just started and hasn't read its roles yet.
#[tokio::test(start_paused = true)]
async fn what_the_api_server_refuses_for_a_moment_is_not_believed() {
    let server = Server::will([
        Answer::Objects(5, vec![map(3, &["a"])]),
        Answer::Events(vec![], true),
        Answer::Refused(403),
        Answer::Refused(403),
        Answer::Refused(401),
        Answer::Objects(6, vec![map(3, &["a"])]),
        Answer::Events(vec![event("MODIFIED", map(7, &["b"]))], false),
    ]);
    let dir = state();
    let mut running = Running::start(&server, dir.path());
    running.lists(&["a"], false).await;
    running.lists.changed().await.unwrap();
    let list = running.lists.borrow_and_update().clone().unwrap();
    assert!(list.errors.is_empty() && list.entries[0].id().as_str() == "b", "{list:?}");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_same_content_is_published_once() {
    let server = Server::will([
        Answer::Objects(5, vec![map(3, &["a"])]),
        Answer::Events(vec![event("MODIFIED", map(6, &["a"])), event("MODIFIED", map(7, &["a"]))], false),
    ]);
    let dir = state();
    let mut running = Running::start(&server, dir.path());
    running.lists(&["a"], false).await;
    running.lists.mark_unchanged();
    asked(&server, 3).await;
    assert!(!running.lists.has_changed().unwrap(), "published again");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_list_is_stored_before_it_is_published_or_as_soon_as_it_can_be() {
    let bookmark = event(
        "BOOKMARK",
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"resourceVersion": "9"}}),
    );
    let server = Server::will([
        Answer::Objects(5, vec![map(3, &["a"])]),
        Answer::Events(vec![], false),
        Answer::Events(vec![bookmark], false),
    ]);
    let dir = state();
    let in_the_way = dir.path().join("state");
    fs::write(&in_the_way, "").unwrap();
    let mut running = Running::start(&server, &in_the_way);
    running.lists(&["a"], false).await;
    fs::remove_file(&in_the_way).unwrap();
    asked(&server, 4).await;
    assert!(in_the_way.join("list.json").exists());
    running.stop().await;
}
