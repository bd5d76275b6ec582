use std::sync::Arc;

use base64::Engine as _;
use tempfile::TempDir;

use super::http::{config, goods, read};
use super::server::{Answer, Request, Server};
use crate::source::{RemoteFile, SourceConfig, SourceError, Sources};
use crate::types::{Digest, ErrorKind, Globs};

const BLOB: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// A Secret for this server, as it's mounted.
struct Secret(TempDir);

impl Secret {
    fn new(server: &Server, keys: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("s3");
        std::fs::create_dir(&secret).unwrap();
        std::fs::write(secret.join("AWS_ENDPOINT_URL"), server.url("")).unwrap();
        for (key, value) in keys {
            std::fs::write(secret.join(key), value).unwrap();
        }
        Self(dir)
    }

    fn sources(&self) -> Sources {
        let credentials_dir = Some(self.0.path().to_owned());
        Sources::new(SourceConfig { credentials_dir, ..config() }).unwrap()
    }
}

const KEYS: &[(&str, &str)] = &[
    ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE\n"),
    ("AWS_SECRET_ACCESS_KEY", "hunter2"),
    ("AWS_REGION", "eu-west-1"),
];

async fn resolve(server: &Server, uri: &str) -> Result<Vec<RemoteFile>, SourceError> {
    let listing = Secret::new(server, KEYS).sources().resolve(&goods(uri, false), Some("s3")).await?;
    Ok(listing.files)
}

fn sha256(bytes: &[u8]) -> String {
    let hex = Digest::of(bytes).hex();
    let bytes: Vec<u8> =
        (0..32).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect();
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn refusal(status: u16, code: &str, message: &str) -> Answer {
    let xml =
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>");
    Answer::new(status).header("Content-Type", "application/xml").body(xml)
}

/// A listing of these keys, each of as many bytes as its name has.
fn listing(keys: &[&str], more: Option<&str>) -> Answer {
    let mut xml = "<?xml version=\"1.0\"?><ListBucketResult>".to_owned();
    for key in keys {
        let size = if key.ends_with('/') { 0 } else { key.len() };
        xml += &format!(
            "<Contents><Key>{key}</Key><Size>{size}</Size><ETag>&quot;e-{key}&quot;</ETag></Contents>"
        );
    }
    xml += &format!("<IsTruncated>{}</IsTruncated>", more.is_some());
    xml += &more
        .map(|token| format!("<NextContinuationToken>{token}</NextContinuationToken>"))
        .unwrap_or_default();
    Answer::new(200).header("Content-Type", "application/xml").body(xml + "</ListBucketResult>")
}

/// The object that `listing` lists, with a digest if its name says so.
fn listed_object(request: &Request) -> Answer {
    let key = request.target.trim_start_matches("/bucket/").split('?').next().unwrap();
    let answer = Answer::of(request, key.as_bytes(), &format!("e-{key}"));
    if key.contains("sha") { answer.header("x-amz-checksum-sha256", sha256(key.as_bytes())) } else { answer }
}

#[tokio::test]
async fn one_object_is_read_in_signed_ranges_of_one_version() {
    let server = Server::start(|request| {
        Answer::of(request, BLOB, "v1-3").header("x-amz-checksum-sha256", sha256(BLOB))
    })
    .await;
    let file = resolve(&server, "s3://bucket/models/model.bin").await.unwrap().remove(0);
    assert_eq!((file.path.as_str(), file.size, file.version.as_deref()), ("model.bin", 36, Some("v1-3")));
    assert_eq!(file.digest, Some(Digest::of(BLOB).into()));
    assert_eq!(read(&*file.bytes, 3, 7).await.unwrap(), b"3456");
    assert_eq!(read(&*file.bytes, 0, 36).await.unwrap(), BLOB);
    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    assert_eq!((seen[0].method.as_str(), seen[1].method.as_str()), ("HEAD", "GET"));
    for request in &seen {
        assert!(request.target.starts_with("/bucket/models/model.bin"), "{}", request.target);
        let signature = request.header("authorization").unwrap();
        assert!(signature.contains("Credential=AKIDEXAMPLE/") && signature.contains("/eu-west-1/s3/"));
    }
    assert_eq!(seen[0].header("x-amz-checksum-mode"), Some("ENABLED"));
    assert_eq!(seen[1].header("if-match"), Some("\"v1-3\""));
    assert_eq!(seen[1].header("range"), Some("bytes=3-6"));
    assert!(server.url("").ends_with(file.bytes.origin()));
    assert!(!format!("{file:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_composite_checksum_is_no_digest() {
    let composite = Server::start(|request| {
        Answer::of(request, BLOB, "v1-3").header("x-amz-checksum-sha256", format!("{}-3", sha256(BLOB)))
    })
    .await;
    assert_eq!(resolve(&composite, "s3://bucket/x").await.unwrap()[0].digest, None);
    let typed = Server::start(|request| {
        Answer::of(request, BLOB, "v1-3")
            .header("x-amz-checksum-sha256", sha256(BLOB))
            .header("x-amz-checksum-type", "COMPOSITE")
    })
    .await;
    assert_eq!(resolve(&typed, "s3://bucket/x").await.unwrap()[0].digest, None);
}

#[tokio::test]
async fn a_prefix_is_listed_page_by_page() {
    let server = Server::start(|request| match request.target.as_str() {
        target if !target.contains("list-type=2") => listed_object(request),
        target if target.contains("continuation-token=two") => listing(&["m/sub/sha", "m/sub/"], None),
        target if target.contains("prefix=m%2F") => listing(&["m/", "m/b.bin", "m/a.json"], Some("two")),
        _ => Answer::new(404),
    })
    .await;
    let secret = Secret::new(&server, KEYS);
    let mut wanted = goods("s3://bucket/m/", false);
    wanted.globs = Globs::new(&[], &["*.json".to_owned()]).unwrap();
    wanted.sha256.insert("b.bin".parse().unwrap(), Digest::of(b"m/b.bin"));
    let files = secret.sources().resolve(&wanted, Some("s3")).await.unwrap().files;
    let shown: Vec<_> =
        files.iter().map(|file| (file.path.as_str(), file.size, file.digest.clone())).collect();
    let digest = |key: &str| Some(Digest::of(key.as_bytes()).into());
    assert_eq!(shown, [("b.bin", 7, digest("m/b.bin")), ("sub/sha", 9, None)]);
    let heads = || server.seen().into_iter().filter(|seen| seen.method == "HEAD").count();
    assert_eq!(heads(), 0, "what a listing doesn't tell is asked for by whoever must know it");
    let untold: Vec<bool> = files.iter().map(|file| file.bytes.may_tell()).collect();
    assert_eq!(untold, [false, true], "the list says what the first is");
    for _ in 0..2 {
        assert_eq!(files[1].bytes.ask().await.unwrap(), digest("m/sub/sha"));
        assert_eq!(files[1].bytes.told(), digest("m/sub/sha"));
        assert!(!files[1].bytes.may_tell());
    }
    assert_eq!(heads(), 1);
    assert_eq!(read(&*files[0].bytes, 2, 5).await.unwrap(), b"b.b");
}

#[tokio::test]
async fn whoever_gets_all_of_an_object_is_told_what_it_is() {
    let server = Server::start(|request| match request.target.contains("list-type=2") {
        true => listing(&["m/nothing", "m/parts-sha", "m/sha"], None),
        false if request.target.contains("parts") => {
            listed_object(request).header("x-amz-checksum-type", "COMPOSITE")
        }
        false => listed_object(request),
    })
    .await;
    let files = resolve(&server, "s3://bucket/m/").await.unwrap();
    server.forget();
    let told = |at: usize| (files[at].bytes.may_tell(), files[at].bytes.told());
    assert_eq!(read(&*files[2].bytes, 1, 3).await.unwrap(), b"/s");
    assert_eq!(told(2), (true, None), "a part tells nothing of the whole");
    for (at, key) in ["m/nothing", "m/parts-sha", "m/sha"].into_iter().enumerate() {
        assert_eq!(read(&*files[at].bytes, 0, key.len() as u64).await.unwrap(), key.as_bytes());
    }
    assert_eq!(told(0), (false, None));
    assert_eq!(told(1), (true, None), "what its parts are has to be asked for");
    assert_eq!(told(2), (false, Some(Digest::of(b"m/sha").into())));
    let seen = server.seen();
    assert!(seen.iter().all(|seen| seen.method == "GET"));
    assert_eq!(seen[1].header("x-amz-checksum-mode"), Some("ENABLED"));
    assert_eq!((seen[1].header("range"), seen[0].header("range")), (None, Some("bytes=1-2")));
}

#[tokio::test]
async fn an_object_that_has_changed_since_it_was_listed_tells_nothing() {
    let server = Server::start(|request| match request.target.contains("list-type=2") {
        true => listing(&["m/sha"], None),
        false => Answer::of(request, b"m/SHA", "e-another").header("x-amz-checksum-sha256", sha256(b"m/SHA")),
    })
    .await;
    let file = resolve(&server, "s3://bucket/m/").await.unwrap().remove(0);
    assert_eq!(file.bytes.ask().await.unwrap_err().kind(), ErrorKind::Changed);
    assert_eq!(read(&*file.bytes, 0, 5).await.unwrap_err().kind(), ErrorKind::Changed);
    assert_eq!((file.bytes.may_tell(), file.bytes.told()), (true, None));
}

#[tokio::test]
async fn a_listing_that_no_tree_can_hold_is_invalid_and_names_the_key() {
    for (keys, word) in [
        (&["m/../x"][..], "m/../x"),
        (&["m/a", "m/a/b"][..], "a is a file"),
        (&["m/x//y"][..], "m/x//y"),
        (&[][..], "no files"),
    ] {
        let keys = keys.to_vec();
        let server = Server::start(move |request| match request.target.contains("list-type=2") {
            true => listing(&keys, None),
            false => listed_object(request),
        })
        .await;
        let error = resolve(&server, "s3://bucket/m/").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[tokio::test]
async fn a_listing_that_goes_in_circles_ends() {
    let server = Server::start(|_| listing(&["m/a"], Some("again"))).await;
    let error = resolve(&server, "s3://bucket/m/").await.unwrap_err();
    assert!(matches!(error, SourceError::Protocol { .. }), "{error}");
    assert!(server.seen().len() <= 3);
}

/// Resolves well, then answers every range with `then`.
async fn broken(then: Answer) -> (Server, Arc<dyn crate::source::RangeSource>) {
    let server = Server::start(move |request| match request.method.as_str() {
        "HEAD" => Answer::of(request, BLOB, "v1"),
        _ => then.clone(),
    })
    .await;
    let file = resolve(&server, "s3://bucket/x").await.unwrap().remove(0);
    (server, file.bytes)
}

#[tokio::test]
async fn another_version_is_changed_however_it_shows() {
    let part = |range: &str, etag: &str| {
        Answer::new(206).header("ETag", etag).header("Content-Range", range).body("3456")
    };
    for answer in [
        refusal(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold"),
        part("bytes 3-6/36", "\"v2\""),
        part("bytes 3-6/37", "\"v1\""),
        Answer::new(200).header("ETag", "\"v1\"").body("shorter"),
    ] {
        let (_server, bytes) = broken(answer.clone()).await;
        assert_eq!(read(&*bytes, 3, 7).await.unwrap_err().kind(), ErrorKind::Changed, "{answer:?}");
    }
}

#[tokio::test]
async fn another_range_is_never_used_and_an_ignored_one_is_cut_out() {
    let part =
        |range: &str| Answer::new(206).header("ETag", "\"v1\"").header("Content-Range", range).body("3456");
    for range in ["bytes 4-7/36", "bytes 3-6/*", "nonsense"] {
        let (_server, bytes) = broken(part(range)).await;
        let error = read(&*bytes, 3, 7).await.unwrap_err();
        assert!(matches!(error, SourceError::Protocol { .. }), "{range}: {error}");
        assert!(bytes.serves_ranges());
    }
    let (_server, bytes) = broken(Answer::new(200).header("ETag", "\"v1\"").body(BLOB)).await;
    assert_eq!(read(&*bytes, 3, 7).await.unwrap(), b"3456");
    assert!(!bytes.serves_ranges());
}

#[tokio::test]
async fn refusals_keep_their_meaning_and_their_words() {
    let throttled = ErrorKind::Throttled { retry_after: Some(std::time::Duration::from_secs(3)) };
    for (answer, kind, words) in [
        (refusal(404, "NoSuchKey", "The specified key does not exist."), ErrorKind::NotFound, "NoSuchKey"),
        (refusal(403, "AccessDenied", "Access Denied"), ErrorKind::Denied, "AccessDenied"),
        (refusal(400, "ExpiredToken", "The provided token has expired."), ErrorKind::Denied, "expired"),
        (
            refusal(503, "SlowDown", "Reduce your request rate.").header("Retry-After", "3"),
            throttled,
            "SlowDown",
        ),
        (refusal(500, "InternalError", "We encountered an internal error."), ErrorKind::Transient, "500"),
        (Answer::new(502).body("<html>bad gateway</html>"), ErrorKind::Transient, "502"),
        (
            refusal(301, "PermanentRedirect", "Use the other one.")
                .header("x-amz-bucket-region", "ap-east-1"),
            ErrorKind::Invalid,
            "ap-east-1",
        ),
    ] {
        let (server, bytes) = broken(answer.clone()).await;
        let error = read(&*bytes, 3, 7).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{answer:?}: {error}");
        assert!(error.to_string().contains(words) && error.to_string().contains("s3://bucket/x"), "{error}");
        assert_eq!(server.seen().len(), 2, "the SDK does not try again");
    }
}

#[tokio::test]
async fn silence_and_cuts_are_noticed() {
    let (_server, bytes) = broken(Answer::none()).await;
    assert!(matches!(read(&*bytes, 3, 7).await, Err(SourceError::Stalled { .. })));
    let part = Answer::new(206).header("ETag", "\"v1\"").header("Content-Range", "bytes 3-6/36");
    let part = part.header("Content-Length", "4").body("34");
    let (_server, bytes) = broken(part.clone().hanging()).await;
    assert!(matches!(read(&*bytes, 3, 7).await, Err(SourceError::Stalled { .. })));
    let (_server, bytes) = broken(part).await;
    assert!(matches!(read(&*bytes, 3, 7).await, Err(SourceError::Broken { .. })));
    let (server, bytes) = broken(Answer::new(404)).await;
    drop(server);
    let error = read(&*bytes, 3, 7).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
}

#[tokio::test]
async fn secrets_are_read_anew_and_what_they_lack_is_named() {
    let server = Server::start(|request| Answer::of(request, BLOB, "v1")).await;
    let secret = Secret::new(&server, KEYS);
    let sources = secret.sources();
    let wanted = goods("s3://bucket/x", false);
    sources.resolve(&wanted, Some("s3")).await.unwrap();
    std::fs::write(secret.0.path().join("s3/AWS_ACCESS_KEY_ID"), "AKIDROTATED").unwrap();
    sources.resolve(&wanted, Some("s3")).await.unwrap();
    let signature = server.seen()[1].header("authorization").unwrap().to_owned();
    assert!(signature.contains("AKIDROTATED"), "{signature}");
    let partial = Secret::new(&server, &KEYS[..1]);
    let error = partial.sources().resolve(&wanted, Some("s3")).await.unwrap_err();
    assert!(error.to_string().contains("AWS_SECRET_ACCESS_KEY"), "{error}");
    let open = Secret::new(&server, &[("AWS_ANONYMOUS", "")]);
    server.forget();
    open.sources().resolve(&wanted, Some("s3")).await.unwrap();
    assert_eq!(server.seen()[0].header("authorization"), None);
}
