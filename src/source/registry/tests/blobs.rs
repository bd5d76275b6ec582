use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use futures::future::join_all;

use super::*;
use crate::types::ErrorKind;

/// A registry that sends blobs to signed URLs of `store`, each signature with its number; and how many it gave.
async fn signing(store: &Server) -> (Server, Arc<AtomicUsize>) {
    let signed = Arc::new(AtomicUsize::new(0));
    let (count, base) = (Arc::clone(&signed), store.url("/bucket/blob"));
    let registry = Server::start(move |request| {
        if request.header("authorization").is_none() {
            return Answer::new(401).header("WWW-Authenticate", "Basic realm=x");
        }
        let number = count.fetch_add(1, Relaxed);
        Answer::new(307).header("Location", format!("{base}?signature=hush{number}"))
    })
    .await;
    (registry, signed)
}

#[tokio::test]
async fn ranges_are_read_and_checked() {
    let server = Server::start(served).await;
    let layer = blob(&at(vec![host(&server)], Vec::new()));
    assert_eq!(read(&*layer, 3, 7).await.unwrap(), b"3456");
    assert_eq!(read(&*layer, 0, 36).await.unwrap(), BLOB);
    assert!(layer.serves_ranges());
    assert_eq!(server.seen()[0].range(), Some((3, 6)));
    let part = |range: &str| Answer::new(206).header("Content-Range", range).body("3456");
    for answer in [
        part("bytes 4-7/36"),
        part("bytes 3-6/37"),
        part("bytes 3-6/*"),
        part("bytes 3-6/36").header("Content-Encoding", "gzip"),
        Answer::new(200).body("short"),
        Answer::new(200).header("Content-Type", "text/html").body(BLOB),
        Answer::new(416).header("Content-Range", "bytes */2"),
    ] {
        let told = answer.clone();
        let server = Server::start(move |_| told.clone()).await;
        let error = read(&*blob(&at(vec![host(&server)], Vec::new())), 3, 7).await.unwrap_err();
        assert!(matches!(error, SourceError::Protocol { .. }), "{answer:?}: {error}");
    }
}

#[tokio::test]
async fn a_registry_that_ignores_ranges_is_found_out() {
    let server = Server::start(|_| Answer::new(200).body(BLOB)).await;
    let layer = blob(&at(vec![host(&server)], Vec::new()));
    assert_eq!(read(&*layer, 10, 14).await.unwrap(), b"abcd");
    assert!(!layer.serves_ranges());
    assert_eq!(read(&*layer, 0, 36).await.unwrap(), BLOB);
}

#[tokio::test]
async fn a_signed_place_is_asked_for_once_and_credentials_stay_behind() {
    let store = Server::start(|request| Answer::of(request, BLOB, "e")).await;
    let (registry, signed) = signing(&store).await;
    let mut own = host(&registry);
    own.headers.insert("x-registry-key", http::HeaderValue::from_static("hunter2"));
    let layer = blob(&at(vec![own], vec![user("me")]));
    let ranges = join_all((0..16).map(|at| read(&*layer, at, at + 2))).await;
    for (at, bytes) in ranges.into_iter().enumerate() {
        assert_eq!(bytes.unwrap(), &BLOB[at..at + 2]);
    }
    assert_eq!((signed.load(Relaxed), registry.seen().len(), store.seen().len()), (1, 2, 16));
    for request in store.seen() {
        assert_eq!((request.header("authorization"), request.header("x-registry-key")), (None, None));
        assert_eq!(request.target, "/bucket/blob?signature=hush0");
    }
    assert!(registry.seen().iter().all(|request| request.header("x-registry-key") == Some("hunter2")));
    assert!(!format!("{layer:?}").contains("hush"));
}

#[tokio::test]
async fn an_expired_signature_is_asked_for_anew_once_for_all_ranges() {
    for status in [400, 401, 403, 404, 410] {
        let valid = Arc::new(AtomicUsize::new(0));
        let now = Arc::clone(&valid);
        let store = Server::start(move |request| {
            match request.target.ends_with(&format!("hush{}", now.load(Relaxed))) {
                true => Answer::of(request, BLOB, "e"),
                false => Answer::new(status),
            }
        })
        .await;
        let (registry, signed) = signing(&store).await;
        let layer = blob(&at(vec![host(&registry)], vec![user("me")]));
        read(&*layer, 0, 2).await.unwrap();
        valid.store(1, Relaxed);
        let ranges = join_all((0..16).map(|at| read(&*layer, at, at + 2))).await;
        for (at, bytes) in ranges.into_iter().enumerate() {
            assert_eq!(bytes.unwrap(), &BLOB[at..at + 2], "{status}");
        }
        assert_eq!(signed.load(Relaxed), 2, "{status}");
        // None of the signatures that are given from now on is good: it's asked for once more and then told.
        valid.store(100, Relaxed);
        let error = read(&*layer, 0, 2).await.unwrap_err();
        assert!(!crate::rt::chain(&error).contains("hush"), "{}", crate::rt::chain(&error));
        assert!(error.to_string().contains("redirected to 127.0.0.1"), "{error}");
        assert_eq!(signed.load(Relaxed), 3, "{status}");
    }
}

#[tokio::test]
async fn a_store_that_throttles_keeps_its_place() {
    let asked = AtomicUsize::new(0);
    let store = Server::start(move |request| match asked.fetch_add(1, Relaxed) {
        1 => Answer::new(503).header("Retry-After", "7"),
        _ => Answer::of(request, BLOB, "e"),
    })
    .await;
    let (registry, signed) = signing(&store).await;
    let layer = blob(&at(vec![host(&registry)], vec![user("me")]));
    read(&*layer, 0, 2).await.unwrap();
    let error = read(&*layer, 0, 2).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Throttled { retry_after: Some(Duration::from_secs(7)) });
    read(&*layer, 0, 2).await.unwrap();
    assert_eq!(signed.load(Relaxed), 1);
}

#[tokio::test]
async fn a_mirror_that_dies_in_mid_pull_is_replaced() {
    let registry = Server::start(served).await;
    let mirror = Server::start(served).await;
    let repository = at(vec![host(&mirror), host(&registry)], Vec::new());
    let layer = blob(&repository);
    read(&*layer, 0, 2).await.unwrap();
    assert!(registry.seen().is_empty());
    drop(mirror);
    assert_eq!(read(&*layer, 2, 4).await.unwrap(), b"23");
}

#[tokio::test]
async fn redirects_are_few_and_never_lead_to_this_machines_secrets() {
    for location in ["/v2/team/app/blobs/again", "http://169.254.169.254/x?hush", "ftp://x/hush", "http://["]
    {
        let server = Server::start(move |_| Answer::new(302).header("Location", location)).await;
        let error = read(&*blob(&at(vec![host(&server)], Vec::new())), 0, 2).await.unwrap_err();
        assert!(!crate::rt::chain(&error).contains("hush"), "{error}");
        assert!(server.seen().len() <= 6);
    }
}

#[tokio::test]
async fn a_redirect_within_the_host_keeps_the_credentials() {
    let server = Server::start(|request| {
        if request.header("authorization").is_none() {
            return Answer::new(401).header("WWW-Authenticate", "Basic realm=x");
        }
        match request.target.contains("/v2/") {
            true => Answer::new(302).header("Location", "/files/blob?sig=hush"),
            false => Answer::of(request, BLOB, "e"),
        }
    })
    .await;
    let layer = blob(&at(vec![host(&server)], vec![user("me")]));
    read(&*layer, 0, 2).await.unwrap();
    assert_eq!(read(&*layer, 2, 4).await.unwrap(), b"23");
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn another_registry_that_we_are_sent_to_gets_nobodys_token() {
    let tokens = Server::start(|_| Answer::new(200).body(r#"{"token":"anonymous"}"#)).await;
    let realm = tokens.url("/token");
    let elsewhere = Server::start(move |request| match request.header("authorization") {
        Some("Bearer anonymous") => Answer::of(request, BLOB, "e"),
        Some(_) => Answer::new(400),
        None => Answer::new(401).header(
            "WWW-Authenticate",
            format!("Bearer realm=\"{realm}\",service=far,scope=\"repository:far/app:pull\""),
        ),
    })
    .await;
    let there = elsewhere.url("/v2/far/app/blobs/x");
    let registry = Server::start(move |_| Answer::new(307).header("Location", there.clone())).await;
    let layer = blob(&at(vec![host(&registry)], vec![user("me")]));
    assert_eq!(read(&*layer, 0, 2).await.unwrap(), b"01");
    assert_eq!(read(&*layer, 2, 4).await.unwrap(), b"23");
    assert_eq!(targets(&tokens), ["GET /token?service=far&scope=repository%3Afar%2Fapp%3Apull"]);
    assert_eq!(authorizations(&tokens), [None]);
}
