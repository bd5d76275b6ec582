//! nginx with TLS in front of a server that has none, with a certificate that only a private authority vouches for.

use std::path::PathBuf;
use std::process::Command;

use super::free_port::FreePort;
use super::pki::{Pki, Usage};
use super::process::Process;
use super::programs::system;
use super::scratch::Scratch;
use super::wait::START;

/// One nginx process.
#[derive(Debug)]
pub(crate) struct TlsFront {
    _process: Process,
    port: FreePort,
    pki: Pki,
    _scratch: Scratch,
}

impl TlsFront {
    /// Starts one in front of `upstream` (`127.0.0.1:PORT`), with a certificate for `name`.
    pub(crate) async fn start(name: &str, upstream: &str) -> Self {
        let scratch = Scratch::new("tls-front");
        let pki = Pki::make(scratch.dir("pki"));
        pki.issue("server", &format!("/CN={name}"), Usage::Server, &[&format!("DNS:{name}")]);
        let port = FreePort::find();
        let dir = scratch.path().display();
        let (certificate, key) = (pki.certificate("server"), pki.key("server"));
        let config = format!(
            r#"daemon off;
user root;
master_process off;
pid {dir}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {dir}/body;
  proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi;
  scgi_temp_path {dir}/scgi;
  client_max_body_size 0;
  server {{
    listen {address} ssl;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    location / {{
      proxy_pass http://{upstream};
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-Proto https;
      proxy_buffering off;
    }}
  }}
}}
"#,
            address = port.address(),
            certificate = certificate.display(),
            key = key.display(),
        );
        scratch.file("nginx.conf", config);
        let mut command = Command::new(system("nginx"));
        command.arg("-p").arg(scratch.path()).arg("-c").arg(scratch.join("nginx.conf"));
        let process = Process::start("nginx with TLS", &command, &scratch.join("nginx.log"));
        let address = port.address();
        let answers = async || tokio::net::TcpStream::connect(&address).await.ok().map(drop);
        process.wait_ready("a connection", START, answers).await;
        Self { _process: process, port, pki, _scratch: scratch }
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn host(&self) -> String {
        self.port.address()
    }

    /// The authority's certificate.
    pub(crate) fn authority(&self) -> PathBuf {
        self.pki.certificate("ca")
    }
}
