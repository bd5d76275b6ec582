//! Networks with a proxy, and servers that only a private authority vouches for. The names asked for here exist nowhere
//! but at the proxy.

use std::path::Path;
use std::process::Output;

use crate::node::{BUCKET, SOON, bytes, push, said};
use crate::parts::{Containerd, ForwardProxy, Nginx, Registry, S3, Scratch, Stoker, TlsFront, Version};

/// `stoker pull URI`, told of the proxy and of no way around it.
fn pull(uri: &str, proxy: &ForwardProxy) -> Stoker {
    Stoker::new(["pull", uri])
        .env("HTTPS_PROXY", proxy.url())
        .env("HTTP_PROXY", proxy.url())
        .env("https_proxy", proxy.url())
        .env("http_proxy", proxy.url())
        .env("NO_PROXY", "")
        .env("no_proxy", "")
}

fn to(stoker: Stoker, dir: &Path) -> Stoker {
    stoker.args(["--to", dir.to_str().unwrap()])
}

fn trusting(stoker: Stoker, front: &TlsFront) -> Stoker {
    stoker.args(["--ca-file", front.authority().to_str().unwrap()])
}

#[track_caller]
fn came(run: &Output, file: &Path, bytes: &[u8]) {
    assert_eq!(run.status.code(), Some(0), "{}", said(run));
    assert!(std::fs::read(file).unwrap() == bytes);
}

#[tokio::test]
async fn files_come_by_the_proxy_and_under_a_private_authority() {
    let nginx = Nginx::start().await;
    let front = TlsFront::start("models.test", &nginx.host()).await;
    let weights = bytes(1, 30 << 20);
    nginx.put("m.bin", &weights);
    let proxy = ForwardProxy::start([("models.test", front.host())]);
    let dir = Scratch::new("pulled");
    let uri = "https://models.test/m.bin";
    let authority = front.authority();
    let run = to(pull(uri, &proxy), dir.path()).env("STOKER_CA_FILE", &authority).output(SOON).await;
    came(&run, &dir.join("m.bin"), &weights);
    let seen = proxy.seen();
    assert!(
        !seen.is_empty() && seen.iter().all(|line| line == "CONNECT models.test:443 HTTP/1.1"),
        "{seen:?}"
    );

    let untrusted = to(pull(uri, &proxy), dir.path()).output(SOON).await;
    assert_eq!(untrusted.status.code(), Some(1), "{}", said(&untrusted));
    assert!(said(&untrusted).contains("certificate"), "{}", said(&untrusted));
    let before = proxy.seen().len();
    let around =
        to(pull(uri, &proxy), dir.path()).env("NO_PROXY", "models.test").env("no_proxy", "models.test");
    let around = around.env("STOKER_CA_FILE", &authority).output(SOON).await;
    assert_eq!(around.status.code(), Some(1), "nobody but the proxy knows the name: {}", said(&around));
    assert_eq!(proxy.seen().len(), before);
    let broken = to(pull(uri, &proxy), dir.path()).args(["--ca-file", "/dev/null"]).output(SOON).await;
    assert!(said(&broken).contains("--ca-file /dev/null"), "{}", said(&broken));
}

#[tokio::test]
async fn plain_http_comes_by_the_proxy_too() {
    let nginx = Nginx::start().await;
    let weights = bytes(1, 20 << 20);
    nginx.put("m.bin", &weights);
    let proxy = ForwardProxy::start([("models.test", nginx.host())]);
    let dir = Scratch::new("pulled");
    let run = to(pull("http://models.test/m.bin", &proxy), dir.path()).output(SOON).await;
    came(&run, &dir.join("m.bin"), &weights);
    assert!(
        proxy.seen().iter().all(|line| line == "GET http://models.test/m.bin HTTP/1.1"),
        "{:?}",
        proxy.seen()
    );
}

#[tokio::test]
async fn objects_come_by_the_proxy_and_under_a_private_authority() {
    let s3 = S3::start().await;
    s3.make_bucket(BUCKET).await;
    let weights = bytes(1, 30 << 20);
    s3.put(BUCKET, "m/w.bin", &*weights).await;
    let front = TlsFront::start("s3.test", s3.endpoint().trim_start_matches("http://")).await;
    let proxy = ForwardProxy::start([("s3.test", front.host())]);
    let dir = Scratch::new("pulled");
    let uri = format!("s3://{BUCKET}/m/");
    let pull =
        || to(pull(&uri, &proxy), dir.path()).envs(s3.env()).env("AWS_ENDPOINT_URL", "https://s3.test");
    let run = trusting(pull(), &front).output(SOON).await;
    came(&run, &dir.join("w.bin"), &weights);
    let seen = proxy.seen();
    assert!(!seen.is_empty() && seen.iter().all(|line| line == "CONNECT s3.test:443 HTTP/1.1"), "{seen:?}");
    std::fs::remove_file(dir.join("w.bin")).unwrap();
    let untrusted = pull().output(SOON).await;
    assert_eq!(untrusted.status.code(), Some(1), "{}", said(&untrusted));
    assert!(!dir.join("w.bin").exists());
}

#[tokio::test]
async fn images_come_by_the_proxy_and_under_a_private_authority() {
    let (registry, containerd) = tokio::join!(Registry::start(), Containerd::start(Version::V2_4));
    let image = push(&registry, "app", "an image").await;
    let front = TlsFront::start("registry.test", &registry.host()).await;
    let proxy = ForwardProxy::start([("registry.test", front.host())]);
    let address = containerd.address();
    let pull =
        || pull("registry.test/app:v1", &proxy).env("STOKER_CONTAINERD_ADDRESS", address.to_str().unwrap());
    let run = trusting(pull(), &front).output(SOON).await;
    assert_eq!(run.status.code(), Some(0), "{}", said(&run));
    assert!(said(&run).contains(&image.digest.to_string()[..19]), "{}", said(&run));
    let seen = proxy.seen();
    assert!(
        !seen.is_empty() && seen.iter().all(|line| line == "CONNECT registry.test:443 HTTP/1.1"),
        "{seen:?}"
    );
}
