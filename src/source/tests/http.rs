use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::TryStreamExt as _;

use super::server::{Answer, Request, Server};
use crate::list::WeightsGoods;
use crate::source::{RangeSource, RemoteFile, SourceConfig, SourceError, Sources};
use crate::types::{ByteRange, Digest, ErrorKind, Globs};

const BLOB: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";

pub(in crate::source) fn goods(uri: &str, index: bool) -> WeightsGoods {
    WeightsGoods { uri: uri.parse().unwrap(), index, globs: Globs::all(), sha256: Default::default() }
}

pub(in crate::source) fn config() -> SourceConfig {
    let patience = Duration::from_millis(300);
    SourceConfig { allow_http: true, first_byte: patience, stall: patience, ..SourceConfig::default() }
}

pub(super) async fn resolve(uri: &str, index: bool) -> Result<Vec<RemoteFile>, SourceError> {
    let listing = Sources::new(config()).unwrap().resolve(&goods(uri, index), None).await?;
    Ok(listing.files)
}

async fn one(server: &Server) -> RemoteFile {
    resolve(&server.url("/dir/model%20a.bin?sig=secret"), false).await.unwrap().remove(0)
}

pub(in crate::source) async fn read(
    source: &dyn RangeSource,
    start: u64,
    end: u64,
) -> Result<Vec<u8>, SourceError> {
    let body = source.get(ByteRange::new(start, end).unwrap()).await?;
    let pieces: Vec<bytes::Bytes> = body.bytes.try_collect().await?;
    Ok(pieces.concat())
}

/// A server that answers the probe well, and what comes after it with `then`.
async fn after_probe(then: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Server {
    let asked = AtomicUsize::new(0);
    Server::start(move |request| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => Answer::of(request, BLOB, "v1"),
        _ => then(request),
    })
    .await
}

#[tokio::test]
async fn one_file_is_probed_and_read_in_ranges_of_one_version() {
    let server = Server::start(|request| Answer::of(request, BLOB, "v1")).await;
    let file = one(&server).await;
    assert_eq!(file.path.as_str(), "model a.bin");
    assert_eq!((file.size, file.version.as_deref(), &file.digest), (36, Some("v1"), &None));
    assert!(file.bytes.serves_ranges());
    assert_eq!(read(&*file.bytes, 3, 7).await.unwrap(), b"3456");
    assert_eq!(read(&*file.bytes, 0, 36).await.unwrap(), BLOB);
    let seen = server.seen();
    assert_eq!(seen[0].range(), Some((0, 0)));
    assert_eq!(seen[1].range(), Some((3, 6)));
    for request in &seen {
        assert_eq!(request.target, "/dir/model%20a.bin?sig=secret");
        assert_eq!(request.header("accept-encoding"), Some("identity"));
        assert_eq!(request.header("authorization"), None);
    }
    assert_eq!(seen[0].header("if-match"), None);
    assert_eq!(seen[1].header("if-match"), Some("\"v1\""));
    assert!(!format!("{file:?}").contains("secret"));
}

#[tokio::test]
async fn another_version_is_changed_however_it_shows() {
    let other = |body: &'static [u8], range: &str, etag: &str| {
        Answer::new(206).header("ETag", etag).header("Content-Range", range).body(body)
    };
    let answers = [
        Answer::new(412),
        other(b"3456", "bytes 3-6/36", "\"v2\""),
        other(b"3456", "bytes 3-6/37", "\"v1\""),
        Answer::new(416).header("Content-Range", "bytes */2"),
        Answer::new(200).header("ETag", "\"v1\"").body("shorter"),
        Answer::new(200).header("ETag", "\"v2\"").body(BLOB),
    ];
    for answer in answers {
        let told = answer.clone();
        let server = after_probe(move |_| told.clone()).await;
        let file = one(&server).await;
        let error = read(&*file.bytes, 3, 7).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Changed, "{answer:?}: {error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_the_range_is_never_used() {
    let part =
        |range: &str| Answer::new(206).header("ETag", "\"v1\"").header("Content-Range", range).body("3456");
    let answers = [
        part("bytes 4-7/36"),
        part("bytes 3-7/36"),
        part("bytes 3-6/*"),
        part("nonsense"),
        part("bytes 3-6/36").header("Content-Encoding", "gzip"),
        Answer::new(206).header("ETag", "\"v1\"").body("3456"),
        Answer::new(206).header("Content-Range", "bytes 3-6/36").body("3456"),
        Answer::new(200).header("Content-Type", "text/html").body("<html>Please log in"),
        Answer::new(200).header("Transfer-Encoding", "chunked").body("0\r\n\r\n"),
    ];
    for answer in answers {
        let told = answer.clone();
        let server = after_probe(move |_| told.clone()).await;
        let file = one(&server).await;
        let error = read(&*file.bytes, 3, 7).await.unwrap_err();
        assert!(matches!(error, SourceError::Protocol { .. }), "{answer:?}: {error}");
        assert!(file.bytes.serves_ranges());
    }
}

#[tokio::test]
async fn a_server_that_ignores_ranges_is_found_out() {
    let server = Server::start(|_| Answer::new(200).body(BLOB)).await;
    let file = one(&server).await;
    assert!(!file.bytes.serves_ranges());
    assert_eq!((file.size, &file.version), (36, &None));
    assert_eq!(read(&*file.bytes, 10, 14).await.unwrap(), b"abcd");
    assert_eq!(read(&*file.bytes, 0, 36).await.unwrap(), BLOB);
    let later = after_probe(|_| Answer::new(200).header("ETag", "\"v1\"").body(BLOB)).await;
    let file = one(&later).await;
    assert!(file.bytes.serves_ranges());
    assert_eq!(read(&*file.bytes, 10, 14).await.unwrap(), b"abcd");
    assert!(!file.bytes.serves_ranges());
}

#[tokio::test]
async fn statuses_keep_their_meaning() {
    let cases = [
        (Answer::new(404), ErrorKind::NotFound),
        (Answer::new(403), ErrorKind::Denied),
        (
            Answer::new(503).header("Retry-After", "7"),
            ErrorKind::Throttled { retry_after: Some(Duration::from_secs(7)) },
        ),
        (Answer::new(500), ErrorKind::Transient),
        (Answer::new(416).header("Content-Range", "bytes */36"), ErrorKind::Invalid),
    ];
    for (answer, kind) in cases {
        let told = answer.clone();
        let server = after_probe(move |_| told.clone()).await;
        let error = read(&*one(&server).await.bytes, 3, 7).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{answer:?}");
    }
}

#[tokio::test]
async fn silence_is_a_stall_before_and_in_the_body_and_a_cut_is_broken() {
    let silent = after_probe(|_| Answer::none()).await;
    let error = read(&*one(&silent).await.bytes, 3, 7).await.unwrap_err();
    assert!(matches!(error, SourceError::Stalled { .. }), "{error}");
    let part = || Answer::new(206).header("ETag", "\"v1\"").header("Content-Range", "bytes 3-6/36");
    let stalls = after_probe(move |_| part().header("Content-Length", "4").body("34").hanging()).await;
    let error = read(&*one(&stalls).await.bytes, 3, 7).await.unwrap_err();
    assert!(matches!(error, SourceError::Stalled { .. }), "{error}");
    let cuts = after_probe(move |_| part().header("Content-Length", "4").body("34")).await;
    let error = read(&*one(&cuts).await.bytes, 3, 7).await.unwrap_err();
    assert!(matches!(error, SourceError::Broken { .. }), "{error}");
    assert!(!crate::rt::chain(&error).contains("secret"), "{error}");
}

#[tokio::test]
async fn an_empty_file_is_a_file() {
    let server = Server::start(|request| Answer::of(request, b"", "v0")).await;
    assert_eq!(one(&server).await.size, 0);
}

#[tokio::test]
async fn a_probe_is_made_again_when_it_fails_in_passing() {
    let asked = AtomicUsize::new(0);
    let server = Server::start(move |request| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => Answer::new(500),
        _ => Answer::of(request, BLOB, "v1"),
    })
    .await;
    assert_eq!(one(&server).await.size, 36);
    let absent = Server::start(|_| Answer::new(404)).await;
    let error = resolve(&absent.url("/x"), false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(absent.seen().len(), 1);
}

#[tokio::test]
async fn nobody_there_is_a_connection_error() {
    let server = Server::start(|_| Answer::new(404)).await;
    let file = {
        let served = Server::start(|request| Answer::of(request, BLOB, "v1")).await;
        let file = one(&served).await;
        drop(served);
        file
    };
    drop(server);
    let error = read(&*file.bytes, 0, 4).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    assert!(!crate::rt::chain(&error).contains("secret"));
}

#[tokio::test]
async fn credentials_go_to_their_own_server_and_no_further() {
    let other = Arc::new(Server::start(|request| Answer::of(request, BLOB, "v1")).await);
    let elsewhere = other.url("/blob?sig=secret");
    let server = Server::start(move |request| match request.target.as_str() {
        "/there" => Answer::new(302).header("Location", elsewhere.clone()),
        "/here" => Answer::new(307).header("Location", "/final"),
        _ => Answer::of(request, BLOB, "v1"),
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, key: &str, value: &str| {
        std::fs::create_dir_all(dir.path().join(name)).unwrap();
        std::fs::write(dir.path().join(name).join(key), value).unwrap();
    };
    write("bearer", "token", "hunter2\n");
    write("basic", "username", "me");
    write("basic", "password", "pw");
    write("s3", "AWS_ACCESS_KEY_ID", "x");
    let config = SourceConfig { credentials_dir: Some(dir.path().to_owned()), ..config() };
    let sources = Sources::new(config).unwrap();
    for (name, value) in [("bearer", "Bearer hunter2"), ("basic", "Basic bWU6cHc=")] {
        for target in ["/here", "/there"] {
            let files = sources.resolve(&goods(&server.url(target), false), Some(name)).await.unwrap().files;
            assert_eq!(read(&*files[0].bytes, 1, 3).await.unwrap(), b"12");
            assert!(!format!("{files:?}").contains("hunter2"));
        }
        assert!(server.seen().iter().all(|request| request.header("authorization") == Some(value)));
        server.forget();
    }
    assert_eq!(other.seen().len(), 4);
    assert!(other.seen().iter().all(|request| request.header("authorization").is_none()));
    let wrong = sources.resolve(&goods(&server.url("/x"), false), Some("s3")).await.unwrap_err();
    assert!(wrong.to_string().contains("token"), "{wrong}");
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn what_a_list_may_not_name_is_never_asked() {
    let strict = Sources::new(SourceConfig::default()).unwrap();
    let error = strict.resolve(&goods("http://127.0.0.1:1/x", false), None).await.unwrap_err();
    assert!(error.to_string().contains("--allow-schemes"), "{error}");
    for uri in ["http://169.254.169.254/latest/meta-data", "http://127.0.0.1:1/", "http://127.0.0.1:1/a%2Fb"]
    {
        assert_eq!(resolve(uri, false).await.unwrap_err().kind(), ErrorKind::Invalid, "{uri}");
    }
}

#[tokio::test]
async fn redirects_are_few_and_never_lead_to_this_machines_secrets() {
    let server = Server::start(|request| match request.target.as_str() {
        "/loop" => Answer::new(302).header("Location", "/loop"),
        _ => Answer::new(302).header("Location", "http://169.254.169.254/latest?sig=secret"),
    })
    .await;
    for target in ["/loop", "/metadata"] {
        let error = resolve(&server.url(target), false).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(!crate::rt::chain(&error).contains("secret"), "{error}");
    }
    assert!(server.seen().len() <= 8);
}

#[tokio::test]
async fn the_list_may_give_the_digest_of_the_one_file() {
    let server = Server::start(|request| Answer::of(request, BLOB, "v1")).await;
    let mut wanted = goods(&server.url("/model.bin"), false);
    wanted.sha256.insert("model.bin".parse().unwrap(), Digest::of(BLOB));
    let sources = Sources::new(config()).unwrap();
    let files = sources.resolve(&wanted, None).await.unwrap().files;
    assert_eq!(files[0].digest, Some(Digest::of(BLOB).into()));
    wanted.sha256.insert("misspelt.bin".parse().unwrap(), Digest::of(BLOB));
    let error = sources.resolve(&wanted, None).await.unwrap_err();
    assert!(error.to_string().contains("misspelt.bin"), "{error}");
}
