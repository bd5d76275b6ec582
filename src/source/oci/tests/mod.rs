//! Artifacts: what documents mean, and a small registry on loopback that answers as it's told.

mod documents;
mod files;
mod secrets;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::source::tests::http::{config, goods, read};
use crate::source::tests::server::{Answer, Request, Server};
use crate::source::{RemoteFile, SourceConfig, SourceError, Sources};
use crate::types::Digest;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MODEL: &str = "application/vnd.cncf.model.manifest.v1+json";
const RAW: &str = "application/vnd.cncf.model.weight.v1.raw";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// What ORAS calls a file of which nobody says what it is.
const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
const PATH: &str = "org.cncf.model.filepath";
const TITLE: &str = "org.opencontainers.image.title";
const UNPACK: &str = "io.deis.oras.content.unpack";

/// A descriptor of `bytes`.
fn of(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len()})
}

/// The same with annotations.
fn noted<const N: usize>(media_type: &str, bytes: &[u8], notes: [(&str, &str); N]) -> Value {
    let mut layer = of(media_type, bytes);
    layer["annotations"] = notes.into_iter().collect::<Value>();
    layer
}

/// A manifest of these layers, as ModelPack has it.
fn model(layers: &[Value]) -> Value {
    json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": MODEL, "layers": layers,
        "config": of("application/vnd.cncf.model.config.v1+json", b"{\"config\":1}"),
    })
}

/// A registry with one repository, `team/model`; documents and blobs can be changed while it serves.
struct Registry {
    server: Server,
    has: Arc<Mutex<Has>>,
}

#[derive(Default)]
struct Has {
    tags: BTreeMap<String, Digest>,
    documents: BTreeMap<String, (String, Vec<u8>)>,
    blobs: BTreeMap<String, Vec<u8>>,
}

impl Registry {
    async fn start() -> Self {
        Self::start_with(|_| None).await
    }

    /// What `first` answers goes before what the registry has.
    async fn start_with(first: impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static) -> Self {
        let has: Arc<Mutex<Has>> = Arc::default();
        let served = Arc::clone(&has);
        let server = Server::start(move |request| {
            first(request).unwrap_or_else(|| served.lock().unwrap().answer(request))
        })
        .await;
        Self { server, has }
    }

    fn put(&self, bytes: &[u8]) {
        self.has.lock().unwrap().blobs.insert(Digest::of(bytes).to_string(), bytes.to_vec());
    }

    /// A document by its digest.
    fn document(&self, media_type: &str, document: &Value) -> Value {
        let bytes = document.to_string().into_bytes();
        let descriptor = of(media_type, &bytes);
        let digest = Digest::of(&bytes).to_string();
        self.has.lock().unwrap().documents.insert(digest, (media_type.to_owned(), bytes));
        descriptor
    }

    fn tag(&self, tag: &str, media_type: &str, document: &Value) {
        self.document(media_type, document);
        let digest = Digest::of(document.to_string().as_bytes());
        self.has.lock().unwrap().tags.insert(tag.to_owned(), digest);
    }

    /// `127.0.0.1:PORT`.
    fn host(&self) -> String {
        self.server.url("").trim_start_matches("http://").to_owned()
    }

    fn uri(&self, version: &str) -> String {
        format!("oci://{}/team/model{version}", self.host())
    }

    async fn files(&self, version: &str) -> Result<Vec<RemoteFile>, SourceError> {
        let sources = Sources::new(config()).unwrap();
        Ok(sources.resolve(&goods(&self.uri(version), false), None).await?.files)
    }

    fn targets(&self) -> Vec<String> {
        let seen = self.server.seen().into_iter();
        seen.map(|request| format!("{} {}", request.method, request.target)).collect()
    }
}

impl Has {
    fn answer(&self, request: &Request) -> Answer {
        let reference = request.target.rsplit('/').next().unwrap_or_default();
        if request.target.starts_with("/v2/team/model/blobs/") {
            return match self.blobs.get(reference) {
                Some(blob) => Answer::of(request, blob, "e"),
                None => Answer::new(404),
            };
        }
        let by_tag = self.tags.get(reference).map(Digest::to_string);
        let digest = by_tag.unwrap_or_else(|| reference.to_owned());
        match self.documents.get(&digest) {
            Some((media_type, bytes)) => Answer::new(200)
                .header("Content-Type", media_type.clone())
                .header("Docker-Content-Digest", digest)
                .body(bytes.clone()),
            None => Answer::new(404).body(r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#),
        }
    }
}

/// A directory for credentials, with this Secret called `registry`.
fn secret(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("registry")).unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join("registry").join(name), text).unwrap();
    }
    dir
}

fn sources(credentials_dir: &Path, registry_hosts: Vec<PathBuf>) -> Sources {
    let credentials_dir = Some(credentials_dir.to_owned());
    Sources::new(SourceConfig { credentials_dir, registry_hosts, ..config() }).unwrap()
}
