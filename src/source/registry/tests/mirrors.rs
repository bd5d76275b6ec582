use http::HeaderValue;

use super::*;
use crate::types::ErrorKind;

async fn always(status: u16) -> Server {
    Server::start(move |_| Answer::new(status)).await
}

#[tokio::test]
async fn the_next_host_is_asked_whatever_the_first_one_said() {
    let nobody = {
        let server = always(200).await;
        host(&server)
    };
    let silent = Server::start(|_| Answer::none()).await;
    let wrong = Server::start(|request| match request.target.contains("/blobs/") {
        true => Answer::new(206).header("Content-Range", "bytes 1-4/36").body("1234"),
        false => Answer::new(200).header("Docker-Content-Digest", "sha512:1"),
    })
    .await;
    let shorter = Server::start(|request| Answer::of(request, &BLOB[..30], "e")).await;
    let statuses = [always(404).await, always(500).await, always(429).await, always(401).await];
    let mut mirrors: Vec<RegistryHost> = statuses.iter().map(host).collect();
    mirrors.extend([nobody, host(&silent), host(&wrong), host(&shorter)]);
    let registry = Server::start(served).await;
    for mirror in mirrors {
        let repository = at(vec![mirror.clone(), host(&registry)], vec![user("me")]);
        assert_eq!(read(&*blob(&repository), 3, 7).await.unwrap(), b"3456", "{}", mirror.base);
        if mirror.base != host(&shorter).base {
            assert_eq!(repository.resolve().await.unwrap().media_type, OCI, "{}", mirror.base);
        }
    }
}

#[tokio::test]
async fn the_error_is_the_registrys_own_with_the_mirrors_beside_it() {
    let (mirror, registry) = (always(404).await, always(403).await);
    let repository = at(vec![host(&mirror), host(&registry)], Vec::new());
    let error = repository.resolve().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    let text = crate::rt::chain(&error);
    assert!(text.contains("answered 404") && text.contains("answered 403"), "{text}");
    let error = read(&*blob(&repository), 0, 4).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn a_registry_that_fails_in_mid_pull_is_not_blamed_on_a_mirror_that_lacks_the_blob() {
    let mirror = always(404).await;
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let registry =
        Server::start(move |request| match asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 => served(request),
            _ => Answer::new(500),
        })
        .await;
    let repository = at(vec![host(&mirror), host(&registry)], Vec::new());
    let layer = blob(&repository);
    read(&*layer, 0, 4).await.unwrap();
    let error = read(&*layer, 4, 8).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
}

#[tokio::test]
async fn only_hosts_that_may_are_asked_and_mirrors_are_told_the_registry() {
    let (puller, registry) = (Server::start(served).await, Server::start(served).await);
    let mut mirror = host(&puller);
    mirror.can_resolve = false;
    mirror.base = puller.url("/proxy/hub").parse().unwrap();
    mirror.namespace = Some("registry.example:5000".to_owned());
    mirror.headers.insert("x-mirror", HeaderValue::from_static("yes"));
    let mut own = host(&registry);
    own.can_pull = false;
    let repository = at(vec![mirror, own], Vec::new());
    let layer = blob(&repository);
    assert_eq!(layer.origin(), puller.url("").trim_start_matches("http://"));
    let found = repository.resolve().await.unwrap();
    repository.manifest(&found).await.unwrap();
    read(&*layer, 0, 4).await.unwrap();
    assert_eq!(targets(&registry), ["HEAD /v2/team/app/manifests/v1"]);
    let (manifest, blob) = (found.digest, Digest::of(BLOB));
    let ns = "?ns=registry.example%3A5000";
    assert_eq!(
        targets(&puller),
        [
            format!("GET /proxy/hub/team/app/manifests/{manifest}{ns}"),
            format!("GET /proxy/hub/team/app/blobs/{blob}{ns}")
        ]
    );
    assert!(puller.seen().iter().all(|request| request.header("x-mirror") == Some("yes")));
    assert!(registry.seen().iter().all(|request| request.header("x-mirror").is_none()));
    let none = at(Vec::new(), Vec::new()).resolve().await.unwrap_err();
    assert!(none.to_string().contains("hosts.toml"), "{none}");
}

#[tokio::test]
async fn a_host_that_is_not_there_is_asked_last_for_a_while() {
    let silent = Server::start(|_| Answer::none()).await;
    let registry = Server::start(served).await;
    let repository = at(vec![host(&silent), host(&registry)], Vec::new());
    for _ in 0..3 {
        repository.resolve().await.unwrap();
    }
    assert_eq!((silent.seen().len(), registry.seen().len()), (1, 3));
}

#[tokio::test]
async fn link_local_hosts_are_never_asked() {
    let mut metadata = host(&Server::start(served).await);
    metadata.base = "http://169.254.169.254/v2".parse().unwrap();
    let error = at(vec![metadata], vec![user("me")]).resolve().await.unwrap_err();
    assert!(error.to_string().contains("link-local"), "{error}");
}

#[tokio::test]
async fn a_missing_authority_is_named_and_a_mirror_with_one_is_passed_over() {
    let registry = Server::start(served).await;
    let mut broken = host(&registry);
    broken.tls.ca.push("/nowhere/ca.crt".into());
    let error = at(vec![broken.clone()], Vec::new()).resolve().await.unwrap_err();
    assert!(error.to_string().contains("/nowhere/ca.crt"), "{error}");
    at(vec![broken, host(&registry)], Vec::new()).resolve().await.unwrap();
}

#[tokio::test]
async fn past_its_mirrors_only_the_registry_is_asked() {
    let (mirror, registry) = (Server::start(served).await, Server::start(served).await);
    let repository = at(vec![host(&mirror), host(&registry)], Vec::new());
    assert!(repository.has_mirrors());
    let layer = repository.blob_past_mirrors(&descriptor(BLOB));
    assert_eq!(layer.origin(), registry.url("").trim_start_matches("http://"));
    for _ in 0..2 {
        assert_eq!(read(&*layer, 3, 7).await.unwrap(), b"3456");
    }
    // Not even where it fails: a mirror's bytes were wrong already.
    let broken = always(500).await;
    let repository = at(vec![host(&mirror), host(&broken)], Vec::new());
    let error = read(&*repository.blob_past_mirrors(&descriptor(BLOB)), 0, 4).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient);
    assert!(mirror.seen().is_empty(), "{:?}", targets(&mirror));
    assert!(!at(vec![host(&mirror)], Vec::new()).has_mirrors());
}
