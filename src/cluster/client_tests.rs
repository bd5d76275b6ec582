use std::fs;

use super::*;
use crate::cluster::Fault;

const KUBECONFIG: &str = "
apiVersion: v1
kind: Config
current-context: here
contexts: [{name: here, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1', insecure-skip-tls-verify: true}}]
users: [{name: u, user: {tokenFile: token}}]
";

#[tokio::test]
async fn a_configuration_that_is_not_there_or_broken_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kubeconfig");
    let error = Cluster::connect(Some(&path)).await.unwrap_err().to_string();
    assert!(error.contains(path.to_str().unwrap()) && error.contains("No such file"), "{error}");
    fs::write(&path, "kind: [").unwrap();
    let error = Cluster::connect(Some(&path)).await.unwrap_err();
    assert!(matches!(error, ConnectError::Kubeconfig { .. }), "{error}");
    fs::write(&path, KUBECONFIG).unwrap();
    let error = Cluster::connect(Some(&path)).await.unwrap_err().to_string();
    assert!(error.contains("/token can't be read"), "{error}");
}

#[tokio::test]
async fn a_server_that_is_down_is_no_reason_not_to_connect_and_an_error_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kubeconfig");
    fs::write(&path, KUBECONFIG).unwrap();
    fs::write(dir.path().join("token"), "t\n").unwrap();
    let cluster = Cluster::connect(Some(&path)).await.unwrap();
    let version = cluster.client().apiserver_version();
    let error = cluster.ask("read the version", version).await.unwrap_err();
    assert_eq!(error.fault(), Fault::Transient);
    let message = error.to_string();
    assert!(message.contains("127.0.0.1:1") && message.contains("refused"), "{message}");
}

/// What the API server sees of a request.
#[tokio::test]
async fn a_request_carries_the_token_without_its_newline_and_says_who_asks() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kubeconfig");
    fs::write(&path, KUBECONFIG.replace("http://127.0.0.1:1", &server)).unwrap();
    fs::write(dir.path().join("token"), "secret\n").unwrap();
    let cluster = Cluster::connect(Some(&path)).await.unwrap();
    let answer = async {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut seen = String::new();
        while !seen.contains("\r\n\r\n") {
            let mut part = [0; 1024];
            let read = connection.read(&mut part).await.unwrap();
            seen.push_str(std::str::from_utf8(&part[..read]).unwrap());
        }
        let refusal = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 3\r\ncontent-length: 0\r\n\r\n";
        connection.write_all(refusal.as_bytes()).await.unwrap();
        seen
    };
    let version = cluster.client().apiserver_version();
    let (seen, asked) = tokio::join!(answer, cluster.ask("read the version", version));
    assert!(seen.contains("authorization: Bearer secret\r\n"), "{seen}");
    assert!(seen.contains(&format!("user-agent: {AGENT}\r\n")), "{seen}");
    let retry_after = Some(Duration::from_secs(3));
    assert_eq!(asked.unwrap_err().fault(), Fault::Throttled { retry_after });
}

#[tokio::test]
async fn the_kubeconfigs_proxy_is_asked_for_a_tunnel() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("proxy-url: 'http://me:secret@{}', server: ", listener.local_addr().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kubeconfig");
    let text = KUBECONFIG.replace("http://127.0.0.1:1", "https://kube.test:6443");
    fs::write(&path, text.replace("server: ", &proxy)).unwrap();
    fs::write(dir.path().join("token"), "t").unwrap();
    let cluster = Cluster::connect(Some(&path)).await.unwrap();
    let answer = async {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut seen = [0; 1024];
        let read = connection.read(&mut seen).await.unwrap();
        connection.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await.unwrap();
        String::from_utf8_lossy(&seen[..read]).into_owned()
    };
    let version = cluster.client().apiserver_version();
    let (seen, asked) = tokio::join!(answer, cluster.ask("read the version", version));
    assert!(seen.starts_with("CONNECT kube.test:6443 HTTP/1.1\r\n"), "{seen}");
    assert!(seen.to_lowercase().contains("proxy-authorization: basic"), "{seen}");
    let error = asked.unwrap_err();
    assert!(error.fault() == Fault::Transient && !error.to_string().contains("secret"), "{error}");
}
