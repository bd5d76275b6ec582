use super::*;
use crate::types::ErrorKind;

const MANIFEST: &[u8] = br#"{"schemaVersion":2}"#;

#[tokio::test]
async fn a_tag_is_resolved_by_one_head() {
    let server = Server::start(served).await;
    let found = at(vec![host(&server)], Vec::new()).resolve().await.unwrap();
    assert_eq!(found, descriptor(MANIFEST));
    let seen = server.seen();
    assert_eq!(targets(&server), ["HEAD /v2/team/app/manifests/v1"]);
    let accept = seen[0].header("accept").unwrap();
    for kind in [OCI, "oci.image.index", "distribution.manifest.list.v2", "distribution.manifest.v2"] {
        assert!(accept.contains(kind), "{accept}");
    }
}

#[tokio::test]
async fn where_head_says_too_little_the_body_is_read() {
    let docker = br#"{"mediaType":"application/vnd.docker.distribution.manifest.v2+json"}"#;
    let cases = [
        (Answer::new(405), OCI, MANIFEST, OCI),
        (Answer::new(200).header("Content-Type", OCI), OCI, MANIFEST, OCI),
        (
            Answer::new(200).header("Docker-Content-Digest", Digest::of(docker).to_string()),
            "text/plain; charset=utf-8",
            &docker[..],
            "application/vnd.docker.distribution.manifest.v2+json",
        ),
        (Answer::new(501), "application/json", MANIFEST, "application/json"),
    ];
    for (head, kind, body, expected) in cases {
        let server = Server::start(move |request| match request.method.as_str() {
            "HEAD" => head.clone(),
            _ => Answer::new(200).header("Content-Type", kind).body(body),
        })
        .await;
        let found = at(vec![host(&server)], Vec::new()).resolve().await.unwrap();
        assert_eq!((found.digest, found.size), (Digest::of(body), body.len() as u64));
        assert_eq!(found.media_type, expected);
        assert_eq!(server.seen().len(), 2);
    }
}

#[tokio::test]
async fn a_digest_that_is_told_must_be_the_right_one() {
    let other = Digest::of(b"other").to_string();
    let wrong = other.clone();
    let server = Server::start(move |request| match request.method.as_str() {
        "HEAD" => Answer::new(405),
        _ => Answer::new(200)
            .header("Content-Type", OCI)
            .header("Docker-Content-Digest", wrong.clone())
            .body(MANIFEST),
    })
    .await;
    let error = at(vec![host(&server)], Vec::new()).resolve().await.unwrap_err();
    assert!(error.to_string().contains("not those of the digest"), "{error}");
    let sha512 = Server::start(|_| Answer::new(200).header("Docker-Content-Digest", "sha512:00")).await;
    let error = at(vec![host(&sha512)], Vec::new()).resolve().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

#[tokio::test]
async fn a_digest_is_asked_for_type_and_size_only() {
    let server = Server::start(served).await;
    let digest = Digest::of(MANIFEST);
    let image = format!("{NAME}@{digest}").parse().unwrap();
    let repository = Registries::new(config()).unwrap().repository(&image, vec![host(&server)], Vec::new());
    assert_eq!(repository.resolve().await.unwrap(), descriptor(MANIFEST));
    assert_eq!(targets(&server), [format!("HEAD /v2/team/app/manifests/{digest}")]);
}

#[tokio::test]
async fn documents_are_checked() {
    let server = Server::start(|_| Answer::new(200).body(MANIFEST)).await;
    let repository = at(vec![host(&server)], Vec::new());
    assert_eq!(repository.manifest(&descriptor(MANIFEST)).await.unwrap(), MANIFEST);
    assert_eq!(repository.small_blob(&descriptor(MANIFEST), 100).await.unwrap(), MANIFEST);
    let digest = Digest::of(MANIFEST);
    assert_eq!(
        targets(&server),
        [format!("GET /v2/team/app/manifests/{digest}"), format!("GET /v2/team/app/blobs/{digest}")]
    );
    server.forget();
    let mut long = descriptor(MANIFEST);
    long.size = (4 << 20) + 1;
    assert_eq!(repository.manifest(&long).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(repository.small_blob(&descriptor(MANIFEST), 5).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert!(server.seen().is_empty(), "what is too long isn't asked for");
    let other = repository.manifest(&descriptor(br#"{"schemaVersion":3}"#)).await.unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Corrupt, "{other}");
    let shorter = repository.manifest(&descriptor(br#"{"schemaVersion":2} "#)).await.unwrap_err();
    assert_eq!(shorter.kind(), ErrorKind::Corrupt, "{shorter}");
    let longer = repository.manifest(&descriptor(b"{}")).await.unwrap_err();
    assert_eq!(longer.kind(), ErrorKind::Invalid, "{longer}");
}

#[tokio::test]
async fn refusals_keep_their_meaning_and_say_what_to_do() {
    let errors = r#"{"errors":[{"code":"DENIED","message":"your token hunter2"}]}"#;
    for (status, kind, says) in [
        (401, ErrorKind::Denied, "pull secrets"),
        (403, ErrorKind::Denied, "pull secrets"),
        (404, ErrorKind::NotFound, "spelt"),
    ] {
        let server = Server::start(move |_| Answer::new(status).body(errors)).await;
        let repository = at(vec![host(&server)], vec![user("me")]);
        let error = repository.manifest(&descriptor(MANIFEST)).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        let text = crate::rt::chain(&error);
        assert!(text.contains(says) && text.contains("DENIED") && !text.contains("hunter2"), "{text}");
        assert_eq!(server.seen().len(), 1);
    }
    let throttles = Server::start(|_| Answer::new(429).header("Retry-After", "40")).await;
    let error = at(vec![host(&throttles)], Vec::new()).resolve().await.unwrap_err();
    let retry_after = Some(Duration::from_secs(40));
    assert_eq!(error.kind(), ErrorKind::Throttled { retry_after }, "{error}");
}
