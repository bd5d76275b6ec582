//! The registry client against small servers on loopback that answer as they are told.

mod auth;
mod blobs;
mod mirrors;
mod resolving;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;

use super::{HostTls, Registries, RegistryHost, Repository};
use crate::source::tests::server::{Answer, Request, Server};
use crate::source::{RangeSource, SourceConfig, SourceError};
use crate::types::{Descriptor, Digest, RegistryAuth, Secret};

const BLOB: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
const NAME: &str = "registry.example/team/app";

fn config() -> SourceConfig {
    let patience = Duration::from_millis(500);
    SourceConfig { first_byte: patience, stall: patience, ..SourceConfig::default() }
}

fn host(server: &Server) -> RegistryHost {
    RegistryHost {
        base: server.url("/v2").parse().unwrap(),
        namespace: None,
        can_pull: true,
        can_resolve: true,
        tls: HostTls::default(),
        headers: HeaderMap::new(),
        dial_timeout: None,
    }
}

fn at(hosts: Vec<RegistryHost>, auths: Vec<RegistryAuth>) -> Repository {
    let image = format!("{NAME}:v1").parse().unwrap();
    Registries::new(config()).unwrap().repository(&image, hosts, auths)
}

fn user(name: &str) -> RegistryAuth {
    RegistryAuth::Basic { username: name.to_owned(), password: Secret::new("hunter2".to_owned()) }
}

fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor { media_type: OCI.to_owned(), digest: Digest::of(bytes), size: bytes.len() as u64 }
}

fn blob(repository: &Repository) -> Arc<dyn RangeSource> {
    repository.blob(&descriptor(BLOB))
}

async fn read(source: &dyn RangeSource, start: u64, end: u64) -> Result<Vec<u8>, SourceError> {
    crate::source::tests::http::read(source, start, end).await
}

/// What a registry without a password answers about one manifest and [`BLOB`].
fn served(request: &Request) -> Answer {
    let manifest = br#"{"schemaVersion":2}"#;
    if request.target.contains("/manifests/") {
        let answer = Answer::new(200).header("Content-Type", OCI).body(manifest);
        return answer.header("Docker-Content-Digest", Digest::of(manifest).to_string());
    }
    Answer::of(request, BLOB, "e")
}

fn authorizations(server: &Server) -> Vec<Option<String>> {
    server.seen().iter().map(|request| request.header("authorization").map(str::to_owned)).collect()
}

fn targets(server: &Server) -> Vec<String> {
    server.seen().into_iter().map(|request| format!("{} {}", request.method, request.target)).collect()
}
