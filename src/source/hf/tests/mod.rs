//! The Hub's client against small servers on loopback that answer as they are told.

mod bytes;
mod listing;

use std::path::Path;

use serde_json::json;

use crate::source::tests::http::{config, goods};
use crate::source::tests::server::{Answer, Request, Server};
use crate::source::{Listing, SourceConfig, SourceError, Sources};
use crate::types::{Digest, GitHasher};

pub(super) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const SMALL: &[u8] = b"{}";
const LARGE: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
const TREE: &str = "/api/models/org/name/tree/";

fn git_oid(bytes: &[u8]) -> String {
    let mut hasher = GitHasher::new(bytes.len() as u64);
    hasher.update(bytes);
    hasher.finish().hex()
}

fn small(path: &str) -> serde_json::Value {
    json!({"type": "file", "path": path, "size": SMALL.len(), "oid": git_oid(SMALL)})
}

fn large(path: &str) -> serde_json::Value {
    let lfs = json!({"oid": Digest::of(LARGE).hex(), "size": LARGE.len(), "pointerSize": 134});
    json!({"type": "file", "path": path, "size": LARGE.len(), "oid": git_oid(b"pointer"), "lfs": lfs})
}

/// What a Hub answers about a repository of two files, whose branch `main` is at [`COMMIT`].
fn served(request: &Request) -> Answer {
    let target = request.target.as_str();
    if target.starts_with("/api/models/org/name/revision/main") {
        return Answer::new(200).body(json!({"sha": COMMIT, "siblings": []}).to_string());
    }
    if target == format!("{TREE}{COMMIT}?recursive=true&expand=false") {
        let onnx = json!({"type": "directory", "path": "onnx", "oid": "x", "size": 0});
        return Answer::new(200).body(json!([small("config.json"), onnx, large("onnx/model")]).to_string());
    }
    if target == format!("/org/name/resolve/{COMMIT}/config.json") {
        return Answer::of(request, SMALL, "small");
    }
    if target == format!("/org/name/resolve/{COMMIT}/onnx/model") {
        return Answer::of(request, LARGE, "large");
    }
    Answer::new(404).header("X-Error-Code", "EntryNotFound")
}

fn sources(server: &Server, credentials_dir: Option<&Path>) -> Sources {
    let credentials_dir = credentials_dir.map(Path::to_owned);
    let hub = Some(server.url("").parse().unwrap());
    Sources::new(SourceConfig { hub, credentials_dir, allow_http: false, ..config() }).unwrap()
}

async fn resolve(server: &Server, uri: &str) -> Result<Listing, SourceError> {
    sources(server, None).resolve(&goods(uri, false), None).await
}

fn targets(server: &Server) -> Vec<String> {
    server.seen().into_iter().map(|request| request.target).collect()
}
