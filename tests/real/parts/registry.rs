//! The distribution project's registry.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::free_port::FreePort;
use super::http;
use super::process::Process;
use super::programs::part;
use super::scratch::Scratch;
use super::wait::START;

// The registry takes bcrypt only, which few tools can make: the hash of PASSWORD, made once.
const USER: &str = "stoker";
const PASSWORD: &str = "furnace";
const HTPASSWD: &str = "stoker:$2a$05$wqOuBYGsNEUwhbNoTcQ3E.FQGqjHjXZ9D4WowC77b0oviZWQw3i0a\n";

/// A registry on loopback, over plain HTTP, with its blobs in a directory.
#[derive(Debug)]
pub(crate) struct Registry {
    process: Option<Process>,
    port: FreePort,
    scratch: Scratch,
    password: bool,
}

impl Registry {
    /// Starts one that anybody may read and write.
    pub(crate) async fn start() -> Self {
        Self::launch(false, None).await
    }

    /// The same over a storage directory that exists, and stays.
    pub(crate) async fn start_over(storage: &Path) -> Self {
        Self::launch(false, Some(storage)).await
    }

    /// Starts one that asks for [`Self::credentials`].
    pub(crate) async fn start_with_password() -> Self {
        Self::launch(true, None).await
    }

    async fn launch(password: bool, storage: Option<&Path>) -> Self {
        let scratch = Scratch::new("registry");
        let port = FreePort::find();
        let dir = scratch.path().display();
        let storage = storage.map_or_else(|| scratch.join("blobs"), Path::to_owned);
        let storage = storage.display();
        let mut config = format!(
            "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: false}}}}\n\
             storage: {{filesystem: {{rootdirectory: {storage}}}, delete: {{enabled: true}}}}\n\
             http: {{addr: \"{}\", secret: furnace}}\n",
            port.address()
        );
        if password {
            scratch.file("htpasswd", HTPASSWD);
            config.push_str(&format!("auth: {{htpasswd: {{realm: stoker, path: {dir}/htpasswd}}}}\n"));
        }
        scratch.file("config.yml", config);
        let mut registry = Self { process: None, port, scratch, password };
        registry.serve().await;
        registry
    }

    async fn serve(&mut self) {
        let mut command = Command::new(part("registry-3.1.2", "registry"));
        // Else it sends traces to a collector that isn't there.
        command.arg("serve").arg(self.scratch.join("config.yml")).env("OTEL_TRACES_EXPORTER", "none");
        let process = Process::start("the registry", &command, &self.log());
        let url = format!("{}/v2/", self.url());
        process.wait_ready("an answer", START, async || http::answers(&url).await.then_some(())).await;
        self.process = Some(process);
    }

    /// `127.0.0.1:PORT`: how image references name it.
    pub(crate) fn host(&self) -> String {
        self.port.address()
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.port.address())
    }

    /// The user and the password that it asks for, if it does.
    pub(crate) fn credentials(&self) -> Option<(&'static str, &'static str)> {
        self.password.then_some((USER, PASSWORD))
    }

    /// A `.dockerconfigjson` with the credentials for `host`.
    pub(crate) fn docker_config(host: &str) -> String {
        use base64::Engine as _;
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
        format!(r#"{{"auths":{{"{host}":{{"auth":"{auth}"}}}}}}"#)
    }

    /// Its own directory.
    pub(crate) fn directory(&self) -> &Path {
        self.scratch.path()
    }

    /// `METHOD PATH` of each request since the start, in order; the one that asks whether it is up included.
    pub(crate) fn requests(&self) -> Vec<String> {
        if self.process.is_none() {
            return http::requests(&std::fs::read_to_string(self.log()).unwrap_or_default());
        }
        http::requests(&http::settled_log(&self.host(), "/v2/", &self.log()))
    }

    /// The requests for manifests and blobs: what a pull makes, and nothing else does.
    pub(crate) fn pulls(&self) -> Vec<String> {
        let all = self.requests().into_iter();
        all.filter(|request| request.contains("/manifests/") || request.contains("/blobs/sha256:")).collect()
    }

    /// Its process.
    ///
    /// # Panics
    /// When it is stopped.
    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().expect("the registry runs").pid()
    }

    /// Stops it; its port stays its own.
    pub(crate) fn stop(&mut self) {
        self.process = None;
    }

    /// Starts it again after [`Self::stop`], on the same port with the same blobs.
    pub(crate) async fn start_again(&mut self) {
        self.stop();
        self.serve().await;
    }

    fn log(&self) -> PathBuf {
        self.scratch.join("registry.log")
    }
}
