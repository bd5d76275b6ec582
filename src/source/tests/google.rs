use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::http::{goods, read};
use super::secret::Secret;
use super::server::{Answer, Request, Server};
use crate::source::{RangeSource, RemoteFile, SourceError};
use crate::types::{Digest, ErrorKind, Globs};

const BLOB: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";

fn secret(server: &Server) -> Secret {
    Secret::new(&[("GOOGLE_BASE_URL", &server.url("")), ("GOOGLE_ANONYMOUS", "")])
}

async fn resolve(server: &Server, uri: &str) -> Result<Vec<RemoteFile>, SourceError> {
    secret(server).resolve(uri).await
}

fn item(name: &str, size: usize, more: &str) -> String {
    format!(r#"{{"name":"{name}","size":"{size}","generation":"7"{more}}}"#)
}

fn json(document: impl Into<String>) -> Answer {
    Answer::new(200).header("Content-Type", "application/json").body(document.into())
}

/// The object `m/model.bin` at generation 7.
fn object(request: &Request) -> Answer {
    match request.target.as_str() {
        target if target.contains("alt=media") && target.contains("generation=7") => {
            Answer::of(request, BLOB, "whatever").header("X-Goog-Generation", "7")
        }
        target if target.starts_with("/storage/v1/b/bucket/o/m%2Fmodel.bin?fields=") => {
            json(item("m/model.bin", BLOB.len(), ""))
        }
        _ => Answer::new(404),
    }
}

#[tokio::test]
async fn one_object_is_read_in_ranges_of_one_generation() {
    let server = Server::start(object).await;
    let file = resolve(&server, "gs://bucket/m/model.bin").await.unwrap().remove(0);
    assert_eq!((file.path.as_str(), file.size, file.version.as_deref()), ("model.bin", 36, Some("7")));
    assert_eq!(file.digest, None, "neither MD5 nor CRC32C proves a file");
    assert_eq!(read(&*file.bytes, 3, 7).await.unwrap(), b"3456");
    assert_eq!(read(&*file.bytes, 0, 36).await.unwrap(), BLOB);
    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    assert_eq!(seen[1].target, "/storage/v1/b/bucket/o/m%2Fmodel.bin?alt=media&generation=7");
    assert_eq!(seen[1].header("range"), Some("bytes=3-6"));
    assert_eq!(seen[1].header("authorization"), None);
    assert!(server.url("").ends_with(file.bytes.origin()));
}

#[tokio::test]
async fn a_prefix_is_listed_page_by_page() {
    let digest = Digest::of(b"b").hex();
    let published = format!(r#","metadata":{{"sha256":"{digest}"}}"#);
    let server = Server::start(move |request| {
        assert!(request.target.contains("prefix=m%2F"), "{}", request.target);
        if request.target.contains("pageToken=two%2F") {
            return json(format!(
                "{{\"items\":[{},{}]}}",
                item("m/sub/", 0, ""),
                item("m/sub/c d.bin", 3, "")
            ));
        }
        let items = [item("m/", 0, ""), item("m/b.bin", 1, &published), item("m/a.json", 2, "")];
        json(format!(r#"{{"items":[{}],"nextPageToken":"two/"}}"#, items.join(",")))
    })
    .await;
    let mut wanted = goods("gs://bucket/m/", false);
    wanted.globs = Globs::new(&[], &["*.json".to_owned()]).unwrap();
    let files = secret(&server).sources().resolve(&wanted, Some("cloud")).await.unwrap().files;
    let shown: Vec<_> =
        files.iter().map(|file| (file.path.as_str(), file.size, file.digest.clone())).collect();
    assert_eq!(shown, [("b.bin", 1, Some(Digest::of(b"b").into())), ("sub/c d.bin", 3, None)]);
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_listing_that_cannot_be_used_is_told() {
    for (document, kind, word) in [
        (format!(r#"{{"items":[{}]}}"#, item("m/../x", 1, "")), ErrorKind::Invalid, "m/../x"),
        (
            format!(r#"{{"items":[{},{}]}}"#, item("m/a", 1, ""), item("m/a/b", 1, "")),
            ErrorKind::Invalid,
            "a is a file",
        ),
        (
            format!(r#"{{"items":[{}]}}"#, item("m/a", 1, r#","contentEncoding":"gzip""#)),
            ErrorKind::Invalid,
            "Content-Encoding",
        ),
        (
            format!(r#"{{"items":[{}]}}"#, item("m/a", 1, r#","metadata":{"sha256":"x"}"#)),
            ErrorKind::Invalid,
            "64 hex",
        ),
        ("{}".to_owned(), ErrorKind::Invalid, "no files"),
        ("nonsense".to_owned(), ErrorKind::Transient, "line 1"),
        (r#"{"nextPageToken":"again"}"#.to_owned(), ErrorKind::Transient, "no end"),
    ] {
        let server = Server::start(move |_| json(document.clone())).await;
        let error = resolve(&server, "gs://bucket/m/").await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(word), "{error}");
        assert!(server.seen().len() <= 5);
    }
}

#[tokio::test]
async fn a_name_that_no_url_can_hold_is_never_asked_for() {
    let server = Server::start(object).await;
    for uri in ["gs://bucket/../other/x", "gs://bucket/a/./x", "gs://bucket/../", "gs://bucket/.."] {
        assert_eq!(resolve(&server, uri).await.unwrap_err().kind(), ErrorKind::Invalid, "{uri}");
    }
    assert!(server.seen().is_empty());
}

/// Resolves well, then answers every range with `then`.
async fn broken(then: Answer) -> (Server, Arc<dyn RangeSource>) {
    let server = Server::start(move |request| match request.target.contains("alt=media") {
        true => then.clone(),
        false => object(request),
    })
    .await;
    let file = resolve(&server, "gs://bucket/m/model.bin").await.unwrap().remove(0);
    (server, file.bytes)
}

#[tokio::test]
async fn another_version_is_changed_however_it_shows() {
    let part = |range: &str, generation: &str| {
        Answer::new(206).header("X-Goog-Generation", generation).header("Content-Range", range).body("3456")
    };
    for answer in [
        Answer::new(404).body("No such object: bucket/m/model.bin"),
        Answer::new(412),
        part("bytes 3-6/36", "8"),
        part("bytes 3-6/37", "7"),
        Answer::new(200).body("shorter"),
        Answer::new(416).header("Content-Range", "bytes */2"),
    ] {
        let (_server, bytes) = broken(answer.clone()).await;
        assert_eq!(read(&*bytes, 3, 7).await.unwrap_err().kind(), ErrorKind::Changed, "{answer:?}");
    }
}

#[tokio::test]
async fn another_range_is_never_used_and_an_ignored_one_is_cut_out() {
    for range in ["bytes 4-7/36", "bytes 3-6/*", "nonsense"] {
        let (_server, bytes) = broken(Answer::new(206).header("Content-Range", range).body("3456")).await;
        let error = read(&*bytes, 3, 7).await.unwrap_err();
        assert!(matches!(error, SourceError::Protocol { .. }), "{range}: {error}");
    }
    let (_server, bytes) = broken(Answer::new(200).body(BLOB)).await;
    assert_eq!(read(&*bytes, 3, 7).await.unwrap(), b"3456");
    assert!(!bytes.serves_ranges());
}

#[tokio::test]
async fn refusals_keep_their_meaning_and_their_words() {
    let refusal = |status: u16, reason: &str, message: &str| {
        let errors = format!(r#"[{{"reason":"{reason}"}}]"#);
        Answer::new(status)
            .body(format!(r#"{{"error":{{"code":{status},"message":"{message}","errors":{errors}}}}}"#))
    };
    let throttled = |seconds: u64| ErrorKind::Throttled { retry_after: Some(Duration::from_secs(seconds)) };
    for (answer, kind, words) in [
        (
            refusal(401, "required", "Anonymous caller does not have access."),
            ErrorKind::Denied,
            "Anonymous caller",
        ),
        (refusal(403, "forbidden", "No."), ErrorKind::Denied, "roles/storage.objectViewer"),
        (refusal(403, "rateLimitExceeded", "Slow.").header("Retry-After", "3"), throttled(3), "429"),
        (refusal(429, "rateLimitExceeded", "Slow.").header("Retry-After", "3"), throttled(3), "Slow"),
        (Answer::new(503).header("Retry-After", "2"), throttled(2), "503"),
        (Answer::new(502).body("<html>bad gateway</html>"), ErrorKind::Transient, "502"),
        (refusal(400, "userProjectMissing", "Pay."), ErrorKind::Denied, "pays"),
    ] {
        let (server, bytes) = broken(answer.clone()).await;
        let error = read(&*bytes, 3, 7).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{answer:?}: {error}");
        assert!(error.to_string().contains(words) && error.to_string().contains("gs://bucket/m/"), "{error}");
        assert_eq!(server.seen().len(), 2, "nothing tries again but the engine");
    }
    let server = Server::start(|_| Answer::new(404).body("nothing")).await;
    assert_eq!(resolve(&server, "gs://bucket/m/x").await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn silence_and_cuts_are_noticed() {
    let (_server, bytes) = broken(Answer::none()).await;
    assert!(matches!(read(&*bytes, 3, 7).await, Err(SourceError::Stalled { .. })));
    let part =
        Answer::new(206).header("Content-Range", "bytes 3-6/36").header("Content-Length", "4").body("34");
    let (_server, bytes) = broken(part.clone().hanging()).await;
    assert!(matches!(read(&*bytes, 3, 7).await, Err(SourceError::Stalled { .. })));
    let (_server, bytes) = broken(part).await;
    assert!(matches!(read(&*bytes, 3, 7).await, Err(SourceError::Broken { .. })));
    let (server, bytes) = broken(Answer::new(404)).await;
    drop(server);
    assert_eq!(read(&*bytes, 3, 7).await.unwrap_err().kind(), ErrorKind::Transient);
}

/// Runs openssl with this input.
fn openssl(args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("openssl")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is installed");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl {args:?}");
    output.stdout
}

fn key_file(private_key: &[u8]) -> String {
    serde_json::json!({
        "type": "service_account",
        "private_key_id": "k1",
        "private_key": String::from_utf8(private_key.to_vec()).unwrap(),
        "client_email": "reader@project.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
    })
    .to_string()
}

#[tokio::test]
async fn a_service_account_signs_for_itself_and_its_key_is_read_anew() {
    let server = Server::start(object).await;
    let private = openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"], b"");
    let secret = Secret::new(&[("GOOGLE_BASE_URL", &server.url("")), ("key.json", &key_file(&private))]);
    let file = secret.resolve("gs://bucket/m/model.bin").await.unwrap().remove(0);
    assert_eq!(read(&*file.bytes, 3, 7).await.unwrap(), b"3456");
    for request in server.seen() {
        let token = request.header("authorization").unwrap().strip_prefix("Bearer ").unwrap().to_owned();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let claims = URL_SAFE_NO_PAD.decode(signed.split_once('.').unwrap().1).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!(claims["iss"], "reader@project.iam.gserviceaccount.com");
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(at("public"), openssl(&["pkey", "-pubout"], &private)).unwrap();
        std::fs::write(at("signature"), URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
        let verify = ["dgst", "-sha256", "-verify", &at("public"), "-signature", &at("signature")];
        openssl(&verify, signed.as_bytes());
    }
    assert!(!format!("{file:?}").contains("PRIVATE"));
    secret.set("key.json", "{\"type\": \"hunter2\"}");
    let error = secret.resolve("gs://bucket/m/model.bin").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(
        error.to_string().contains("service_account") && !error.to_string().contains("hunter2"),
        "{error}"
    );
}

#[tokio::test]
async fn a_secret_that_lacks_its_key_or_holds_a_broken_one_is_named() {
    let server = Server::start(object).await;
    let at = server.url("");
    for (values, word) in [
        (vec![("GOOGLE_BASE_URL", at.as_str())], "no file key.json"),
        (vec![("key.json", "hunter2")], "in JSON"),
        (vec![("key.json", r#"{"type":"service_account","private_key":"hunter2"}"#)], "download it again"),
        (vec![("GOOGLE_ANONYMOUS", ""), ("GOOGLE_BASE_URL", "hunter2")], "GOOGLE_BASE_URL"),
    ] {
        let error = Secret::new(&values).resolve("gs://bucket/m/model.bin").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        let said = crate::rt::chain(&error);
        assert!(said.contains(word) && said.contains("\"cloud\"") && !said.contains("hunter2"), "{said}");
    }
    assert!(server.seen().is_empty());
}
