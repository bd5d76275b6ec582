//! nginx over a directory.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::free_port::FreePort;
use super::http;
use super::process::Process;
use super::programs::system;
use super::scratch::Scratch;
use super::wait::START;

/// nginx, one process, which serves a directory of its own with ranges and ETags.
#[derive(Debug)]
pub(crate) struct Nginx {
    process: Process,
    port: FreePort,
    scratch: Scratch,
}

impl Nginx {
    /// Starts one over an empty directory; [`Self::put`] fills it.
    pub(crate) async fn start() -> Self {
        let scratch = Scratch::new("nginx");
        let root = scratch.dir("root");
        Self::serve(scratch, &root, "").await
    }

    /// Starts one over a directory that exists.
    pub(crate) async fn start_over(root: &Path) -> Self {
        Self::serve(Scratch::new("nginx"), root, "").await
    }

    /// The same, and it lists directories.
    pub(crate) async fn start_listing(root: &Path) -> Self {
        Self::serve(Scratch::new("nginx"), root, "autoindex on;").await
    }

    async fn serve(scratch: Scratch, root: &Path, more: &str) -> Self {
        let port = FreePort::find();
        scratch.dir("tmp");
        scratch.file("nginx.conf", config(scratch.path(), root, &port.address(), more));
        let mut command = Command::new(system("nginx"));
        command.arg("-p").arg(scratch.path()).arg("-c").arg(scratch.join("nginx.conf"));
        let process = Process::start("nginx", &command, &scratch.join("nginx.log"));
        let url = format!("http://{}/.up", port.address());
        process.wait_ready("an answer", START, async || http::answers(&url).await.then_some(())).await;
        Self { process, port, scratch }
    }

    /// Its process, the only one.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// `http://127.0.0.1:PORT/PATH`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.port.address())
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn host(&self) -> String {
        self.port.address()
    }

    /// Puts a file into its own directory, by a rename: no reader sees half of it.
    pub(crate) fn put(&self, path: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let new = self.scratch.file("tmp/put", bytes);
        let path = self.scratch.join("root").join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).unwrap_or_else(|error| panic!("{}: {error}", parent.display()));
        }
        std::fs::rename(&new, &path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// Its own directory.
    pub(crate) fn directory(&self) -> &Path {
        self.scratch.path()
    }

    /// `METHOD PATH` of each request since the start, in order; the one that asks whether it is up left out.
    pub(crate) fn requests(&self) -> Vec<String> {
        http::requests(&http::settled_log(&self.host(), "/", &self.scratch.join("access.log")))
    }
}

fn config(dir: &Path, root: &Path, address: &str, more: &str) -> String {
    let (dir, root) = (dir.display(), root.display());
    // One process: a worker of its own would outlive a master that is killed. It stays root, because root's own
    // files may be unreadable to another user.
    format!(
        r#"daemon off;
user root;
master_process off;
pid {dir}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 512; }}
http {{
  access_log {dir}/access.log;
  client_body_temp_path {dir}/tmp/body;
  proxy_temp_path {dir}/tmp/proxy;
  fastcgi_temp_path {dir}/tmp/fastcgi;
  uwsgi_temp_path {dir}/tmp/uwsgi;
  scgi_temp_path {dir}/tmp/scgi;
  default_type application/octet-stream;
  sendfile on;
  keepalive_requests 100000;
  server {{
    listen {address};
    root {root};
    {more}
    location = /.up {{ access_log off; return 204; }}
  }}
}}
"#
    )
}
