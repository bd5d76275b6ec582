use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::*;
use crate::source::RemoteFile;
use crate::source::tests::http::read;
use crate::types::ErrorKind;

/// A Hub that sends the large file to signed URLs of `store`, each signature with its number.
async fn signing(store: &Server) -> Server {
    let (signed, base) = (AtomicUsize::new(0), store.url("/bucket/blob"));
    Server::start(move |request| {
        if !request.target.ends_with("/onnx/model") {
            return served(request);
        }
        let number = signed.fetch_add(1, Relaxed);
        Answer::new(302).header("Location", format!("{base}?signature=hush{number}"))
    })
    .await
}

/// The large file, asked for with a token.
async fn model(server: &Server) -> RemoteFile {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("reader")).unwrap();
    std::fs::write(dir.path().join("reader/HF_TOKEN"), "hf_secret").unwrap();
    let sources = sources(server, Some(dir.path()));
    let listing = sources.resolve(&goods("hf://org/name", false), Some("reader")).await.unwrap();
    server.forget();
    listing.files.into_iter().find(|file| file.path.as_str() == "onnx/model").unwrap()
}

#[tokio::test]
async fn ranges_are_read_of_the_commit() {
    let server = Server::start(served).await;
    let file = model(&server).await;
    assert_eq!(read(&*file.bytes, 3, 7).await.unwrap(), b"3456");
    assert_eq!(read(&*file.bytes, 0, 36).await.unwrap(), LARGE);
    assert!(file.bytes.serves_ranges());
    let seen = server.seen();
    assert_eq!(seen[0].target, format!("/org/name/resolve/{COMMIT}/onnx/model"));
    assert_eq!((seen[0].range(), seen[0].header("authorization")), (Some((3, 6)), Some("Bearer hf_secret")));
}

#[tokio::test]
async fn the_way_to_the_bytes_is_asked_for_once_and_the_token_stays_behind() {
    let store = Server::start(|request| Answer::of(request, LARGE, "e")).await;
    let hub = signing(&store).await;
    let file = model(&hub).await;
    for start in 0..5 {
        assert_eq!(read(&*file.bytes, start, 10).await.unwrap(), &LARGE[start as usize..10]);
    }
    assert_eq!(hub.seen().len(), 1);
    assert_eq!(store.seen().len(), 5);
    let leaked = |request: &Request| request.header("authorization").is_some();
    assert!(!store.seen().iter().any(leaked), "{:?}", store.seen());
}

#[tokio::test]
async fn a_url_that_has_expired_is_asked_for_anew() {
    for status in [400, 401, 403, 404] {
        let store = Server::start(move |request| match request.target.ends_with("hush0") {
            true if request.range() == Some((0, 0)) => Answer::of(request, LARGE, "e"),
            true => Answer::new(status),
            false => Answer::of(request, LARGE, "e"),
        })
        .await;
        let hub = signing(&store).await;
        let file = model(&hub).await;
        read(&*file.bytes, 0, 1).await.unwrap();
        assert_eq!(read(&*file.bytes, 3, 7).await.unwrap(), b"3456", "{status}");
        assert_eq!((hub.seen().len(), store.seen().len()), (2, 3));
    }
}

#[tokio::test]
async fn a_store_that_refuses_is_named_without_its_signature() {
    let store = Server::start(|_| Answer::new(403)).await;
    let hub = signing(&store).await;
    let file = model(&hub).await;
    let error = read(&*file.bytes, 0, 9).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    let shown = crate::rt::chain(&error);
    assert!(shown.contains("(at 127.0.0.1:") && shown.contains("403"), "{shown}");
    assert!(!shown.contains("hush") && !shown.contains("secret"), "{shown}");
    assert!(!format!("{file:?}").contains("hush"));
}

#[tokio::test]
async fn other_answers_than_the_tree_promises_are_not_used() {
    let part = |range: &str| Answer::new(206).header("Content-Range", range).body("3456");
    for answer in [
        part("bytes 4-7/36"),
        part("bytes 3-6/37"),
        part("bytes 3-6/36").header("Content-Encoding", "gzip"),
        Answer::new(200).body("short"),
        Answer::new(200).header("Content-Type", "text/html").body(LARGE),
    ] {
        let told = answer.clone();
        let server = Server::start(move |request| match request.target.ends_with("/onnx/model") {
            true => told.clone(),
            false => served(request),
        })
        .await;
        let error = read(&*model(&server).await.bytes, 3, 7).await.unwrap_err();
        assert!(matches!(error, SourceError::Protocol { .. }), "{answer:?}: {error}");
        assert!(error.to_string().contains("onnx/model"), "{error}");
    }
}

#[tokio::test]
async fn a_hub_that_ignores_ranges_is_found_out() {
    let server = Server::start(|request| match request.target.ends_with("/onnx/model") {
        true => Answer::new(200).body(LARGE),
        false => served(request),
    })
    .await;
    let file = model(&server).await;
    assert_eq!(read(&*file.bytes, 10, 14).await.unwrap(), b"abcd");
    assert!(!file.bytes.serves_ranges());
}

#[tokio::test]
async fn a_commit_that_has_gone_is_a_change_of_its_branch_only() {
    let gone = Arc::new(|request: &Request| match request.target.contains("/resolve/") {
        true => Answer::new(404).header("X-Error-Code", "RevisionNotFound"),
        false => served(request),
    });
    let server = Server::start(move |request| gone(request)).await;
    let branch = model(&server).await;
    assert_eq!(read(&*branch.bytes, 0, 1).await.unwrap_err().kind(), ErrorKind::Changed);
    let pinned = resolve(&server, &format!("hf://org/name@{COMMIT}")).await.unwrap().files.remove(0);
    assert_eq!(read(&*pinned.bytes, 0, 1).await.unwrap_err().kind(), ErrorKind::NotFound);
}
