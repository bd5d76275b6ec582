//! The registry over TLS, with certificates of its own, for clients that have one too.

use std::path::PathBuf;
use std::process::Command;

use crate::parts::{FreePort, Process, START, Scratch, part, system};

pub(crate) struct TlsRegistry {
    _process: Process,
    port: FreePort,
    scratch: Scratch,
}

impl TlsRegistry {
    pub(crate) async fn start() -> Self {
        let scratch = Scratch::new("tls-registry");
        let port = FreePort::find();
        for (name, usage) in
            [("ca", None), ("other", None), ("server", Some("serverAuth")), ("client", Some("clientAuth"))]
        {
            certificate(&scratch, name, usage);
        }
        let dir = scratch.path().display();
        let config = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {dir}/blobs}}}}\n\
             http:\n  addr: \"{}\"\n  secret: furnace\n  tls:\n    certificate: {dir}/server.crt\n    \
             key: {dir}/server.key\n    clientcas: [{dir}/ca.crt]\n",
            port.address()
        );
        let config = scratch.file("config.yml", config);
        let mut command = Command::new(part("registry-3.1.2", "registry"));
        command.arg("serve").arg(config).env("OTEL_TRACES_EXPORTER", "none");
        let process = Process::start("the registry over TLS", &command, &scratch.join("registry.log"));
        let address = port.address();
        let answers = async || tokio::net::TcpStream::connect(&address).await.ok().map(drop);
        process.wait_ready("a connection", START, answers).await;
        Self { _process: process, port, scratch }
    }

    pub(crate) fn host(&self) -> String {
        self.port.address()
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.port.address())
    }

    pub(crate) fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    /// The client's certificate and its key.
    pub(crate) fn client(&self) -> (PathBuf, Option<PathBuf>) {
        (self.file("client.crt"), Some(self.file("client.key")))
    }
}

/// Makes `name.crt` and `name.key`: an authority, or a certificate of `ca` for this use.
fn certificate(scratch: &Scratch, name: &str, usage: Option<&str>) {
    let mut words = format!(
        "req -x509 -config openssl.cnf -days 2 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc \
         -keyout {name}.key -out {name}.crt -subj /CN={name}"
    );
    words += &match usage {
        None => " -addext basicConstraints=critical,CA:TRUE".to_owned(),
        Some(usage) => format!(
            " -CA ca.crt -CAkey ca.key -addext basicConstraints=critical,CA:FALSE \
             -addext extendedKeyUsage={usage} -addext subjectAltName=IP:127.0.0.1"
        ),
    };
    scratch.file("openssl.cnf", "[req]\ndistinguished_name = name\nprompt = no\n[name]\n");
    let mut command = Command::new(system("openssl"));
    let output = command.args(words.split_whitespace()).current_dir(scratch.path()).output();
    let output = output.expect("openssl can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
