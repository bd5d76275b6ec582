//! Which servers are asked for an image, and in which order: what we make of a directory is what a real containerd does
//! with it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use stoker::containerd::Containerd as Client;
use stoker::source::registry::{RegistryHost, registry_hosts};
use stoker::types::ImageRef;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::parts::{Containerd, Version};

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A request for a manifest: where, for what, and its `x-test` header.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    authority: String,
    path: String,
    header: Option<String>,
}

/// Servers that have nothing and write down what they are asked.
struct Servers {
    ports: Vec<u16>,
    asked: Arc<Mutex<Vec<Asked>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Servers {
    async fn start(count: usize) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (mut ports, mut tasks) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            ports.push(listener.local_addr().unwrap().port());
            let asked = Arc::clone(&asked);
            tasks.push(tokio::spawn(async move {
                while let Ok((connection, _)) = listener.accept().await {
                    // A client that goes away early isn't heard.
                    tokio::spawn(answer(connection, Arc::clone(&asked)));
                }
            }));
        }
        Self { ports, asked, tasks }
    }

    /// `text` with `{0}`, `{1}` and so on as the servers' addresses.
    fn fill(&self, text: &str) -> String {
        self.ports.iter().enumerate().fold(text.to_owned(), |text, (number, port)| {
            text.replace(&format!("{{{number}}}"), &format!("127.0.0.1:{port}"))
        })
    }

    fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn answer(connection: TcpStream, asked: Arc<Mutex<Vec<Asked>>>) -> std::io::Result<()> {
    let authority = connection.local_addr()?.to_string();
    let mut connection = BufReader::new(connection);
    // A client that speaks TLS sends no line: this is the first byte of its record.
    if connection.fill_buf().await?.first() == Some(&0x16) {
        return connection.get_mut().write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    }
    let mut first = String::new();
    connection.read_line(&mut first).await?;
    let mut header = None;
    loop {
        let mut line = String::new();
        connection.read_line(&mut line).await?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("x-test") => header = Some(value.to_owned()),
            Some(_) => {}
            None => break,
        }
    }
    let mut words = first.split(' ');
    if let (Some("HEAD"), Some(path)) = (words.next(), words.next())
        && path.contains("/manifests/")
    {
        asked.lock().unwrap().push(Asked { authority, path: path.to_owned(), header });
    }
    let nothing = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    connection.get_mut().write_all(nothing).await
}

/// What a client that goes through `hosts` asks for the manifest of `image`.
fn expected(hosts: &[RegistryHost], image: &ImageRef) -> Vec<Asked> {
    let can = |host: &&RegistryHost| if image.tag().is_some() { host.can_resolve } else { host.can_pull };
    let version = image.tag().map_or_else(|| image.digest().unwrap().to_string(), str::to_owned);
    let asked = |host: &RegistryHost| {
        let base = host.base.path().trim_end_matches('/');
        let namespace = host.namespace.as_ref().map(|ns| format!("?ns={}", ns.replace(':', "%3A")));
        Asked {
            authority: format!(
                "{}:{}",
                host.base.host_str().unwrap(),
                host.base.port_or_known_default().unwrap()
            ),
            path: format!(
                "{base}/{}/manifests/{version}{}",
                image.repository(),
                namespace.unwrap_or_default()
            ),
            header: host.headers.get("x-test").map(|value| value.to_str().unwrap().to_owned()),
        }
    };
    hosts.iter().filter(can).map(asked).collect()
}

/// A case: the directory's name, the text of its file if there is one, and the registry whose images are pulled.
const CASES: [(&str, Option<&str>, &str); 8] = [
    (
        "registry.test",
        Some(
            r#"server = "http://{3}"
               [host."http://{2}"]
                 capabilities = ["pull", "resolve"]
               [host."http://{0}/mirror//of/../them/"]
                 capabilities = ["RESOLVE", "Pull"]
                 [host."http://{0}/mirror//of/../them/".header]
                   x-test = "a key"
               [host."http://{1}"]
                 capabilities = ["pull"]
               [host."http://{1}/mute"]
                 capabilities = ["resolve"]"#,
        ),
        "registry.test",
    ),
    (
        "override.test",
        Some(
            r#"server = "http://{1}/v2/"
               capabilities = ["pull", "resolve"]
               [host."http://{0}/v2/proxy/docker.io"]
                 override_path = true
               [header]
                 x-test = ["of the server"]"#,
        ),
        "override.test",
    ),
    ("registry.test:5000", Some(r#"server = "http://{0}""#), "registry.test:5000"),
    ("registry.test_5000_", Some(r#"server = "http://{1}""#), "registry.test:5000"),
    ("_default", Some(r#"server = "http://{2}/default""#), "other.test"),
    ("_default", Some(r#"server = "http://{2}/hub""#), "docker.io"),
    // Containerd asks these by HTTPS first, and then, like us, by HTTP.
    ("{3}", Some("skip_verify = true\n[host.'http://{0}']\nskip_verify = true"), "{3}"),
    ("unused", None, "{2}"),
];

async fn the_same_servers_are_asked(version: Version) {
    let containerd = Containerd::start(version).await;
    let client = Client::new(&containerd.address());
    let servers = Servers::start(4).await;
    let dirs = [PathBuf::from("/certs.d")];
    let certs = containerd.directory().join("certs.d");
    for (directory, text, domain) in CASES {
        let (directory, domain) = (certs.join(servers.fill(directory)), servers.fill(domain));
        std::fs::create_dir_all(&directory).unwrap();
        if let Some(text) = text {
            std::fs::write(directory.join("hosts.toml"), servers.fill(text)).unwrap();
        } else {
            // Nothing is said of any registry.
            std::fs::remove_dir_all(&certs).unwrap();
            std::fs::create_dir_all(&directory).unwrap();
        }
        let hosts = registry_hosts(&dirs, Some(containerd.directory()), &domain).await.unwrap();
        for reference in ["team/app:1.0", &format!("team/app@{DIGEST}")] {
            let image: ImageRef = format!("{domain}/{reference}").parse().unwrap();
            client.pull_image(&image, None).await.unwrap_err();
            let expected = expected(&hosts, &image);
            assert!(!expected.is_empty(), "{image}");
            assert_eq!(servers.take(), expected, "{image} with {text:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containerd_2_4_asks_the_same_servers() {
    the_same_servers_are_asked(Version::V2_4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containerd_1_7_asks_the_same_servers() {
    the_same_servers_are_asked(Version::V1_7).await;
}
