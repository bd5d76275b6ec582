//! fake-gcs-server: Google Cloud Storage's API over memory. It asks nobody who they are.

use std::process::Command;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::free_port::FreePort;
use super::http;
use super::process::Process;
use super::programs::part;
use super::scratch::Scratch;
use super::wait::START;

/// A server of Google Cloud Storage's JSON API on loopback, over plain HTTP.
#[derive(Debug)]
pub(crate) struct Gcs {
    _process: Process,
    port: FreePort,
    scratch: Scratch,
}

impl Gcs {
    /// Starts one without a bucket.
    pub(crate) async fn start() -> Self {
        let scratch = Scratch::new("gcs");
        let port = FreePort::find();
        let mut command = Command::new(part("fake-gcs-server-1.56.1", "fake-gcs-server"));
        command
            .args(["-scheme", "http", "-host", "127.0.0.1", "-backend", "memory"])
            .args(["-port", &port.number().to_string(), "-public-host", &port.address()])
            .current_dir(scratch.path());
        let process = Process::start("fake-gcs-server", &command, &scratch.join("gcs.log"));
        let up = format!("http://{}/_internal/healthcheck", port.address());
        process.wait_ready("an answer", START, async || http::answers(&up).await.then_some(())).await;
        Self { _process: process, port, scratch }
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn host(&self) -> String {
        self.port.address()
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.port.address())
    }

    /// Its own directory.
    pub(crate) fn directory(&self) -> &std::path::Path {
        self.scratch.path()
    }

    /// Makes a bucket.
    pub(crate) async fn make_bucket(&self, bucket: &str) {
        let url = format!("{}/storage/v1/b", self.url());
        let document = serde_json::json!({"name": bucket}).to_string();
        let made =
            http::client().post(url).header("Content-Type", "application/json").body(document).send().await;
        assert!(made.as_ref().is_ok_and(|made| made.status().is_success()), "bucket {bucket}: {made:?}");
    }

    /// Puts an object, in place of an older one.
    pub(crate) async fn put(&self, bucket: &str, key: &str, bytes: impl Into<Vec<u8>>) {
        let name = utf8_percent_encode(key, NON_ALPHANUMERIC);
        let url = format!("{}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}", self.url());
        let put = http::client().post(url);
        let put = put.header("Content-Type", "application/octet-stream").body(bytes.into()).send().await;
        assert!(put.as_ref().is_ok_and(|put| put.status().is_success()), "gs://{bucket}/{key}: {put:?}");
    }

    /// Gives an object custom metadata. It's the same generation afterwards.
    pub(crate) async fn describe(&self, bucket: &str, key: &str, name: &str, value: &str) {
        let key = utf8_percent_encode(key, NON_ALPHANUMERIC);
        let url = format!("{}/storage/v1/b/{bucket}/o/{key}", self.url());
        let metadata = serde_json::json!({"metadata": {name: value}}).to_string();
        let put = http::client().patch(url).header("Content-Type", "application/json").body(metadata);
        let put = put.send().await;
        assert!(put.as_ref().is_ok_and(|put| put.status().is_success()), "gs://{bucket}/{key}: {put:?}");
    }
}
