//! A fake of the Hugging Face Hub, which can't run here: its API for a model's revisions, trees and files, and a store
//! on another port with signed URLs, which has the large files. Plain HTTP on loopback. It answers as the Hub does, and
//! wrongly where it's told to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::header::{AUTHORIZATION, CONTENT_RANGE, LINK, LOCATION, RANGE};
use http::{HeaderMap, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::json;
use stoker::types::{Digest, GitHasher};
use tokio::task::JoinSet;

/// Lines on one page of a tree: few, so that every tree has several.
const PAGE: usize = 2;

/// The fake and its store.
pub(crate) struct FakeHub {
    url: String,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

struct Shared {
    store_url: String,
    state: Mutex<Told>,
}

/// What it was told, and what it was asked.
#[derive(Default)]
pub(crate) struct Told {
    branches: BTreeMap<String, String>,
    commits: BTreeMap<String, Vec<HubFile>>,
    /// Who may read; `None`: everybody.
    pub(crate) token: Option<&'static str>,
    /// Whether those who may not are told of conditions.
    pub(crate) gated: bool,
    /// Every page of a tree names the same page as its next.
    pub(crate) pages_in_a_circle: bool,
    /// Each signature is good for one request.
    pub(crate) signatures_expire: bool,
    /// Where the branch `main` moves to as soon as bytes are asked for.
    pub(crate) moves_to: Option<String>,
    signatures: usize,
    used: Vec<usize>,
    /// `METHOD PATH` of each request to the Hub, and to the store.
    pub(crate) asked: Vec<String>,
    pub(crate) store_asked: Vec<String>,
    /// Requests to the store with a token.
    pub(crate) leaks: usize,
}

/// A file of a commit.
#[derive(Clone)]
pub(crate) struct HubFile {
    path: String,
    bytes: Arc<[u8]>,
    /// Whether git has only a pointer to it.
    is_large: bool,
    /// The tree tells the digest of other bytes.
    is_wrong: bool,
}

impl HubFile {
    pub(crate) fn small(path: &str, bytes: impl Into<Arc<[u8]>>) -> Self {
        Self { path: path.to_owned(), bytes: bytes.into(), is_large: false, is_wrong: false }
    }

    pub(crate) fn large(path: &str, bytes: impl Into<Arc<[u8]>>) -> Self {
        Self { is_large: true, ..Self::small(path, bytes) }
    }

    /// The same, with a digest in the tree that its bytes don't have.
    pub(crate) fn wrong(self) -> Self {
        Self { is_wrong: true, ..self }
    }

    fn line(&self) -> serde_json::Value {
        let told: &[u8] = if self.is_wrong { b"other" } else { &self.bytes };
        let (size, path) = (self.bytes.len(), &self.path);
        if !self.is_large {
            return json!({"type": "file", "path": path, "size": size, "oid": git_oid(told)});
        }
        let lfs = json!({"oid": Digest::of(told).hex(), "size": size, "pointerSize": 134});
        json!({"type": "file", "path": path, "size": size, "oid": git_oid(b"pointer"), "lfs": lfs})
    }
}

fn git_oid(bytes: &[u8]) -> String {
    let mut hasher = GitHasher::new(bytes.len() as u64);
    hasher.update(bytes);
    hasher.finish().hex()
}

impl FakeHub {
    /// The one repository.
    pub(crate) const REPO: &str = "org/name";

    pub(crate) async fn start() -> Self {
        let hub = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let store = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let url = |listener: &tokio::net::TcpListener| {
            format!("http://{}", listener.local_addr().expect("a listener has an address"))
        };
        let (hub_url, store_url) = (url(&hub), url(&store));
        let shared = Arc::new(Shared { store_url, state: Mutex::default() });
        let mut serving = JoinSet::new();
        let hub_router = Router::new().fallback(answer_as_hub).with_state(Arc::clone(&shared));
        let store_router = Router::new().fallback(answer_as_store).with_state(Arc::clone(&shared));
        for (listener, router) in [(hub, hub_router), (store, store_router)] {
            serving.spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        }
        Self { url: hub_url, shared, _serving: serving }
    }

    /// What HF_ENDPOINT is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// What it's told and what it saw.
    pub(crate) fn told(&self) -> MutexGuard<'_, Told> {
        self.shared.told()
    }

    /// A new commit of these files, at the head of no branch.
    pub(crate) fn commit(&self, files: &[HubFile]) -> String {
        let mut told = self.told();
        let commit = git_oid(format!("commit {}", told.commits.len()).as_bytes());
        told.commits.insert(commit.clone(), files.to_vec());
        commit
    }

    /// A new commit, at the head of `main`.
    pub(crate) fn push(&self, files: &[HubFile]) -> String {
        let commit = self.commit(files);
        self.told().branches.insert("main".to_owned(), commit.clone());
        commit
    }
}

impl Told {
    /// Puts a commit at the head of a branch.
    pub(crate) fn point(&mut self, branch: &str, commit: &str) {
        self.branches.insert(branch.to_owned(), commit.to_owned());
    }
}

impl Shared {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.state.lock().expect("nobody panics with the lock")
    }
}

fn refused(status: StatusCode, code: &'static str) -> Response {
    (status, [("X-Error-Code", code)]).into_response()
}

async fn answer_as_hub(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let mut told = shared.told();
    told.asked.push(format!("{} {}", request.method(), request.uri()));
    let segments: Vec<String> = request
        .uri()
        .path()
        .split('/')
        .skip(1)
        .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
        .collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let shown = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let may_read = told.token.is_none_or(|token| shown == Some(&*format!("Bearer {token}")));
    match segments[..] {
        _ if !may_read && told.gated && segments[0] == "api" => {}
        _ if !may_read && told.gated && shown.is_some() => {
            return refused(StatusCode::FORBIDDEN, "GatedRepo");
        }
        _ if !may_read && told.gated => return refused(StatusCode::UNAUTHORIZED, "GatedRepo"),
        _ if !may_read => return refused(StatusCode::UNAUTHORIZED, "RepoNotFound"),
        _ => {}
    }
    match segments[..] {
        ["api", "models", "org", "name", "revision", revision] => match told.branches.get(revision) {
            Some(commit) => {
                json!({"id": FakeHub::REPO, "sha": commit, "siblings": []}).to_string().into_response()
            }
            None => refused(StatusCode::NOT_FOUND, "RevisionNotFound"),
        },
        ["api", "models", "org", "name", "tree", commit] => page(&told, commit, &request),
        ["org", "name", "resolve", commit, ..] => {
            let path = segments[4..].join("/");
            let files = told.commits.get(commit).cloned().unwrap_or_default();
            match files.into_iter().find(|file| file.path == path) {
                None => refused(StatusCode::NOT_FOUND, "EntryNotFound"),
                Some(file) if file.is_large => {
                    let signature = told.signatures;
                    told.signatures += 1;
                    let at = format!("{}/{commit}/{path}?X-Signature=hush-{signature}", shared.store_url);
                    (StatusCode::FOUND, [(LOCATION, at)]).into_response()
                }
                Some(file) => {
                    follow_move(&mut told);
                    bytes(&file.bytes, request.headers())
                }
            }
        }
        _ => refused(StatusCode::NOT_FOUND, "RepoNotFound"),
    }
}

/// One page of a commit's tree.
fn page(told: &Told, commit: &str, request: &Request) -> Response {
    let Some(files) = told.commits.get(commit) else {
        return refused(StatusCode::NOT_FOUND, "RevisionNotFound");
    };
    let query = request.uri().query().unwrap_or_default();
    let cursor = query.split('&').find_map(|pair| pair.strip_prefix("cursor=")?.parse::<usize>().ok());
    let from = cursor.unwrap_or(0);
    let lines: Vec<_> = files.iter().skip(from).take(PAGE).map(HubFile::line).collect();
    let next = if told.pages_in_a_circle { PAGE } else { from + PAGE };
    let mut answer = serde_json::Value::from(lines).to_string().into_response();
    if next < files.len() {
        let link = format!("<https://huggingface.example/x?recursive=true&cursor={next}>; rel=\"next\"");
        answer.headers_mut().insert(LINK, link.parse().expect("a header's value"));
    }
    answer
}

fn follow_move(told: &mut Told) {
    if let Some(commit) = told.moves_to.take() {
        told.branches.insert("main".to_owned(), commit);
    }
}

async fn answer_as_store(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let mut told = shared.told();
    told.store_asked.push(format!("{} {}", request.method(), request.uri().path()));
    told.leaks += usize::from(request.headers().contains_key(AUTHORIZATION));
    follow_move(&mut told);
    let query = request.uri().query().unwrap_or_default();
    let signature = query.strip_prefix("X-Signature=hush-").and_then(|number| number.parse::<usize>().ok());
    let Some(signature) = signature.filter(|it| !(told.signatures_expire && told.used.contains(it))) else {
        return StatusCode::FORBIDDEN.into_response();
    };
    told.used.push(signature);
    let (commit, path) = request.uri().path().trim_start_matches('/').split_once('/').unwrap_or_default();
    match told.commits.get(commit).and_then(|files| files.iter().find(|file| file.path == path)) {
        Some(file) => bytes(&file.bytes, request.headers()),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// All of it, or the range that is asked for.
fn bytes(bytes: &[u8], headers: &HeaderMap) -> Response {
    let range =
        headers.get(RANGE).and_then(|range| range.to_str().ok()?.strip_prefix("bytes=")?.split_once('-'));
    let range = range.and_then(|(first, last)| Some((first.parse().ok()?, last.parse::<usize>().ok()?)));
    let Some((first, last)): Option<(usize, usize)> = range else { return bytes.to_vec().into_response() };
    let last = last.min(bytes.len().saturating_sub(1));
    let told = format!("bytes {first}-{last}/{}", bytes.len());
    let part = bytes.get(first..=last).unwrap_or_default().to_vec();
    (StatusCode::PARTIAL_CONTENT, [(CONTENT_RANGE, told)], part).into_response()
}
