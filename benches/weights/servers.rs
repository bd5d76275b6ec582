//! The servers of the race, all of the same files: versitygw, nginx, and a fake Hugging Face Hub.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::json;

use crate::made::{BUCKET, Made, Set};
use crate::measure::paced_server::{Pace, PacedServer, Served};
use crate::measure::usage;
use crate::parts::{Nginx, S3};

/// Who serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Server {
    /// versitygw over the directory.
    S3,
    /// nginx over the same directory.
    Nginx,
    /// A fake Hub over the same files, in this process.
    Hub,
}

impl Server {
    /// All.
    pub(crate) const ALL: [Self; 3] = [Self::S3, Self::Nginx, Self::Hub];

    /// How the table names it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::S3 => "versitygw 1.8 (s3://)",
            Self::Nginx => "nginx (http://, one process)",
            Self::Hub => "a fake Hub (hf://, in this process)",
        }
    }

    /// Whether all it does is one core's.
    pub(crate) fn is_one_thread(self) -> bool {
        self == Self::Nginx
    }
}

/// All of them. They stop when this is dropped.
pub(crate) struct Servers {
    pub(crate) s3: S3,
    pub(crate) nginx: Nginx,
    hub: PacedServer,
}

impl Servers {
    /// Starts them.
    pub(crate) async fn start(made: &Made) -> Self {
        let s3 = S3::start_over(&made.buckets).await;
        let nginx = Nginx::start_listing(&made.buckets.join(BUCKET)).await;
        let at_once = Pace { round_trip: Duration::ZERO, rate: None };
        let mut served = HashMap::new();
        for set in [&made.model, &made.small] {
            hub(made, set, &mut served);
        }
        Self { s3, nginx, hub: PacedServer::start(served, at_once) }
    }

    /// Where one is: `127.0.0.1:PORT`.
    pub(crate) fn host(&self, server: Server) -> String {
        match server {
            Server::S3 => self.s3.endpoint().trim_start_matches("http://").to_owned(),
            Server::Nginx => self.nginx.host(),
            Server::Hub => self.hub.host(),
        }
    }

    /// The processor time that one has used. The fake Hub's is this process's.
    pub(crate) fn cpu(&self, server: Server) -> Duration {
        match server {
            Server::Hub => usage::cpu_of_this(),
            other => usage::cpu(self.pid(other)),
        }
    }

    /// The bytes that one has sent, and a few lines of its log.
    pub(crate) fn sent(&self, server: Server) -> u64 {
        match server {
            // This process writes more than that.
            Server::Hub => self.hub.told().bytes,
            other => usage::written(self.pid(other)),
        }
    }

    /// Its process.
    pub(crate) fn pid(&self, server: Server) -> u32 {
        match server {
            Server::S3 => self.s3.pid(),
            Server::Nginx => self.nginx.pid(),
            Server::Hub => std::process::id(),
        }
    }
}

/// The commit that the fake Hub has everything at.
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the Hub answers for one repository, `bench/SET`: its revision, its tree, its files (huggingface_hub,
/// `hf_api.py` and `file_download.py`).
fn hub(made: &Made, set: &Set, served: &mut HashMap<String, Served>) {
    let repository = format!("bench/{}", set.name);
    let siblings: Vec<_> = set.files.iter().map(|file| json!({"rfilename": file.path})).collect();
    let info = json!({"id": repository, "modelId": repository, "sha": COMMIT, "private": false, "gated": false,
        "tags": [], "siblings": siblings});
    let of_file = |file: &crate::made::Item| {
        let hex = file.sha256.hex();
        json!({"type": "file", "path": file.path, "size": file.size, "oid": &hex[..40],
            "lfs": {"oid": hex, "size": file.size, "pointerSize": 134}})
    };
    let tree = json!(set.files.iter().map(of_file).collect::<Vec<_>>());
    let document = |value: &serde_json::Value| {
        Served::bytes(value.to_string()).header("Content-Type", "application/json")
    };
    served.insert(format!("/api/models/{repository}"), document(&info));
    for revision in ["main", COMMIT] {
        served.insert(format!("/api/models/{repository}/revision/{revision}"), document(&info));
        served.insert(format!("/api/models/{repository}/tree/{revision}"), document(&tree));
        for file in &set.files {
            let etag = format!("\"{}\"", file.sha256.hex());
            let one = Served::file(made.path(set, file))
                .header("Content-Type", "application/octet-stream")
                .header("X-Repo-Commit", COMMIT)
                .header("ETag", &etag)
                .header("X-Linked-Etag", &etag)
                .header("X-Linked-Size", file.size);
            served.insert(format!("/{repository}/resolve/{revision}/{}", file.path), one);
        }
    }
}
