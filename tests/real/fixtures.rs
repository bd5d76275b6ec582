//! Each part starts, answers, stops, and leaves nothing: no process, no mount, no directory.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt as _;
use stoker::types::Digest;

use crate::parts::{Containerd, Nginx, Process, Registry, S3, Scratch, Version};

/// What is left of a part whose directory was `dir`: its directory, and processes that name it.
fn left_of(dir: &std::path::Path) -> Vec<String> {
    let dir = dir.to_string_lossy();
    let mut left: Vec<String> = std::fs::metadata(&*dir).map(|_| dir.to_string()).into_iter().collect();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(&*dir) {
            left.push(command);
        }
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    left.extend(mounts.lines().filter(|line| line.contains(&*dir)).map(str::to_owned));
    left
}

#[tokio::test]
async fn the_registry_answers_and_leaves_nothing() {
    let registry = Registry::start().await;
    let dir = registry.directory().to_owned();
    assert!(registry.requests().iter().any(|request| request == "GET /v2/"), "{:?}", registry.requests());
    assert!(registry.pulls().is_empty());
    drop(registry);
    assert_eq!(left_of(&dir), Vec::<String>::new());
}

#[tokio::test]
async fn the_registry_asks_for_its_password_and_comes_back_on_its_port() {
    let mut registry = Registry::start_with_password().await;
    let url = format!("{}/v2/", registry.url());
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let (user, password) = registry.credentials().expect("it has a password");
    let bare = client.get(&url).send().await.expect("an answer");
    assert_eq!(bare.status(), 401);
    let wrong = client.get(&url).basic_auth(user, Some("wrong")).send().await.expect("an answer");
    assert_eq!(wrong.status(), 401);
    registry.stop();
    assert!(client.get(&url).send().await.is_err(), "it is down");
    registry.start_again().await;
    let right = client.get(&url).basic_auth(user, Some(password)).send().await.expect("an answer");
    assert_eq!(right.status(), 200);
}

#[tokio::test]
async fn nginx_serves_ranges_and_leaves_nothing() {
    let nginx = Nginx::start().await;
    let dir = nginx.directory().to_owned();
    nginx.put("a/model.bin", b"0123456789");
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let answer =
        client.get(nginx.url("a/model.bin")).header("Range", "bytes=2-4").send().await.expect("an answer");
    assert_eq!(answer.status(), 206);
    assert_eq!(answer.headers().get("content-range").expect("a range"), "bytes 2-4/10");
    let etag = answer.headers().get("etag").expect("an ETag").clone();
    assert_eq!(answer.bytes().await.expect("a body"), "234");
    nginx.put("a/model.bin", b"other bytes");
    let changed =
        client.get(nginx.url("a/model.bin")).header("If-Match", etag).send().await.expect("an answer");
    assert_eq!(changed.status(), 412);
    assert_eq!(nginx.requests(), ["GET /a/model.bin", "GET /a/model.bin"]);
    drop(nginx);
    assert_eq!(left_of(&dir), Vec::<String>::new());
}

#[tokio::test]
async fn s3_keeps_objects_with_their_digests_and_leaves_nothing() {
    use base64::Engine as _;
    let s3 = S3::start().await;
    let dir = s3.directory("models").parent().expect("a parent").parent().expect("a parent").to_owned();
    s3.make_bucket("models").await;
    s3.put("models", "llama/config.json", b"{}").await;
    let head = s3.client().head_object().bucket("models").key("llama/config.json");
    let head = head.checksum_mode(aws_sdk_s3::types::ChecksumMode::Enabled).send().await.expect("an object");
    let sha256 = base64::engine::general_purpose::STANDARD.decode(head.checksum_sha256().expect("a digest"));
    let sha256 = <[u8; 32]>::try_from(sha256.expect("base64")).expect("32 bytes");
    assert_eq!(Digest::from_bytes(sha256), Digest::of(b"{}"));
    let parts = vec![7_u8; 6 * 1024 * 1024];
    s3.put_in_parts("models", "llama/model.safetensors", &parts, 5 * 1024 * 1024).await;
    let head = s3.client().head_object().bucket("models").key("llama/model.safetensors").send().await;
    assert!(head.expect("an object").e_tag().expect("an ETag").ends_with("-2\""));
    let got = s3.client().get_object().bucket("models").key("llama/model.safetensors").send().await;
    let got = got.expect("an object").body.collect().await.expect("a body").into_bytes();
    assert!(got == parts, "the bytes come back");
    s3.delete("models", "llama/config.json").await;
    assert!(!s3.directory("models").join("llama/config.json").exists());
    drop(s3);
    assert_eq!(left_of(&dir), Vec::<String>::new());
}

async fn containerd_answers(version: Version) {
    let mut containerd = Containerd::start(version).await;
    let dir = containerd.root().parent().expect("a parent").to_owned();
    let says = containerd.ctr_ok(&["version"]).await;
    assert!(says.contains(version.number()), "{says}");
    containerd.ctr_ok(&["images", "ls"]).await;
    containerd.restart().await;
    containerd.ctr_ok(&["content", "ls"]).await;
    containerd.kill9();
    assert!(!containerd.ctr(&["content", "ls"]).await.status.success(), "it is down");
    containerd.restart().await;
    containerd.ctr_ok(&["snapshots", "ls"]).await;
    drop(containerd);
    assert_eq!(left_of(&dir), Vec::<String>::new());
}

#[tokio::test]
async fn containerd_2_4_answers_restarts_and_leaves_nothing() {
    containerd_answers(Version::V2_4).await;
}

#[tokio::test]
async fn containerd_1_7_answers_restarts_and_leaves_nothing() {
    containerd_answers(Version::V1_7).await;
}

#[tokio::test]
async fn a_part_that_cannot_start_says_why() {
    let scratch = Scratch::new("broken");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "echo the port is taken; exit 3"]);
    let log = scratch.join("log");
    let start = async {
        let process = Process::start("broken", &command, &log);
        process.wait_ready("an answer", Duration::from_secs(10), async || None::<()>).await;
    };
    let panic = AssertUnwindSafe(start).catch_unwind().await.expect_err("it can't start");
    let message = panic.downcast::<String>().expect("a message");
    assert!(message.contains("exit status: 3") && message.contains("the port is taken"), "{message}");
}
