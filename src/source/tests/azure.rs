use std::sync::Arc;
use std::time::Duration;

use super::http::{goods, read};
use super::secret::Secret;
use super::server::{Answer, Request, Server};
use crate::source::{RangeSource, RemoteFile, SourceError};
use crate::types::{Digest, ErrorKind, Globs};

const BLOB: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
const SAS: &str = "sv=2023-11-03&sp=rl&sig=hunter2%2Bhunter2%3D";

fn secret(server: &Server) -> Secret {
    Secret::new(&[
        ("AZURE_STORAGE_ENDPOINT", &server.url("/acct")),
        ("AZURE_STORAGE_ACCOUNT_NAME", "acct"),
        ("AZURE_STORAGE_SAS_TOKEN", SAS),
    ])
}

async fn resolve(server: &Server, uri: &str) -> Result<Vec<RemoteFile>, SourceError> {
    secret(server).resolve(uri).await
}

fn blob(name: &str, size: usize, more: &str) -> String {
    format!(
        "<Blob><Name>{name}</Name><Properties><Content-Length>{size}</Content-Length><Etag>0x1</Etag></Properties>\
         {more}</Blob>"
    )
}

fn listing(blobs: &[String], next: &str) -> Answer {
    let blobs = blobs.concat();
    let xml = format!(
        "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults><Blobs>{blobs}</Blobs>\
         <NextMarker>{next}</NextMarker></EnumerationResults>"
    );
    Answer::new(200).header("Content-Type", "application/xml").body(xml)
}

fn refusal(status: u16, code: &str, message: &str) -> Answer {
    let xml = format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}\nRequestId:1</Message>\
         <AuthenticationErrorDetail>{SAS}</AuthenticationErrorDetail></Error>"
    );
    Answer::new(status).header("Content-Type", "application/xml").header("x-ms-error-code", code).body(xml)
}

/// The blob `m/model.bin`.
fn object(request: &Request) -> Answer {
    match request.target.starts_with("/acct/models/m/model.bin") {
        // A blob's type is its owner's business.
        true => Answer::of(request, BLOB, "0x1").header("Content-Type", "text/html"),
        false => Answer::new(404),
    }
}

#[tokio::test]
async fn one_blob_is_read_in_ranges_of_one_etag() {
    let server = Server::start(object).await;
    for uri in ["az://models/m/model.bin", "az://models@acct/m/model.bin"] {
        server.forget();
        let file = resolve(&server, uri).await.unwrap().remove(0);
        assert_eq!((file.path.as_str(), file.size, file.version.as_deref()), ("model.bin", 36, Some("0x1")));
        assert_eq!(read(&*file.bytes, 3, 7).await.unwrap(), b"3456");
        let seen = server.seen();
        assert_eq!((seen[0].method.as_str(), seen[1].method.as_str()), ("HEAD", "GET"));
        assert_eq!(seen[1].header("if-match"), Some("\"0x1\""));
        assert_eq!(seen[1].header("range"), Some("bytes=3-6"));
        assert!(seen[1].target.contains("sig=hunter2%2Bhunter2%3D"), "{}", seen[1].target);
        assert!(!format!("{file:?}").contains("hunter2"));
        assert!(server.url("").ends_with(file.bytes.origin()));
    }
}

#[tokio::test]
async fn a_prefix_is_listed_page_by_page() {
    let digest = Digest::of(b"b").hex();
    let published = format!("<Metadata><sha256>{digest}</sha256></Metadata>");
    let server = Server::start(move |request| {
        assert!(request.target.starts_with("/acct/models?restype=container&comp=list"), "{}", request.target);
        assert!(request.target.contains("prefix=m%2F"), "{}", request.target);
        if request.target.contains("marker=2%212") {
            let folder = "<Metadata><hdi_isfolder>true</hdi_isfolder></Metadata>";
            return listing(&[blob("m/sub", 0, folder), blob("m/sub/c d.bin", 3, "")], "");
        }
        listing(&[blob("m/b.bin", 1, &published), blob("m/a.json", 2, "")], "2!2")
    })
    .await;
    let mut wanted = goods("az://models/m/", false);
    wanted.globs = Globs::new(&[], &["*.json".to_owned()]).unwrap();
    let files = secret(&server).sources().resolve(&wanted, Some("cloud")).await.unwrap().files;
    let shown: Vec<_> =
        files.iter().map(|file| (file.path.as_str(), file.size, file.digest.clone())).collect();
    assert_eq!(shown, [("b.bin", 1, Some(Digest::of(b"b").into())), ("sub/c d.bin", 3, None)]);
}

#[tokio::test]
async fn steps_in_a_name_never_leave_the_container() {
    let server = Server::start(object).await;
    for uri in ["az://models/../other/x", "az://models/../", "az://models/m/../../other/x"] {
        assert_eq!(resolve(&server, uri).await.unwrap_err().kind(), ErrorKind::Invalid, "{uri}");
    }
    assert!(server.seen().is_empty());
}

/// Resolves well, then answers every range with `then`.
async fn broken(then: Answer) -> (Server, Arc<dyn RangeSource>) {
    let server = Server::start(move |request| match request.method.as_str() {
        "HEAD" => object(request),
        _ => then.clone(),
    })
    .await;
    let file = resolve(&server, "az://models/m/model.bin").await.unwrap().remove(0);
    (server, file.bytes)
}

#[tokio::test]
async fn another_version_is_changed_however_it_shows() {
    let part = |range: &str, etag: &str| {
        Answer::new(206).header("ETag", etag).header("Content-Range", range).body("3456")
    };
    for answer in [
        refusal(412, "ConditionNotMet", "The condition is not met."),
        refusal(404, "BlobNotFound", "The specified blob does not exist."),
        part("bytes 3-6/36", "\"0x2\""),
        part("bytes 3-6/37", "\"0x1\""),
    ] {
        let (_server, bytes) = broken(answer.clone()).await;
        assert_eq!(read(&*bytes, 3, 7).await.unwrap_err().kind(), ErrorKind::Changed, "{answer:?}");
    }
}

#[tokio::test]
async fn refusals_keep_their_meaning_and_never_the_signature() {
    let throttled = ErrorKind::Throttled { retry_after: Some(Duration::from_secs(3)) };
    for (answer, kind, words) in [
        (
            refusal(403, "AuthenticationFailed", "Server failed to authenticate."),
            ErrorKind::Denied,
            "clock is wrong",
        ),
        (
            refusal(403, "AuthorizationPermissionMismatch", "No."),
            ErrorKind::Denied,
            "Storage Blob Data Reader",
        ),
        (refusal(409, "PublicAccessNotPermitted", "No."), ErrorKind::Denied, "nobody without credentials"),
        (refusal(503, "ServerBusy", "Busy.").header("Retry-After", "3"), throttled, "ServerBusy"),
        (refusal(500, "InternalError", "Oh."), ErrorKind::Transient, "InternalError: Oh"),
        (Answer::new(502).body("<html>bad gateway</html>"), ErrorKind::Transient, "502"),
    ] {
        let (server, bytes) = broken(answer.clone()).await;
        let error = read(&*bytes, 3, 7).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{answer:?}: {error}");
        let said = crate::rt::chain(&error);
        assert!(said.contains(words) && said.contains("az://models@acct/m/model.bin"), "{said}");
        assert!(!said.contains("hunter2") && !said.contains("sig"), "{said}");
        assert_eq!(server.seen().len(), 2, "nothing tries again but the engine");
    }
    let server = Server::start(|_| Answer::new(404).header("x-ms-error-code", "ContainerNotFound")).await;
    let error = resolve(&server, "az://models/m/x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("ContainerNotFound"), "{error}");
}

#[tokio::test]
async fn silence_shows_no_signature() {
    let (_server, bytes) = broken(Answer::none()).await;
    assert!(matches!(read(&*bytes, 3, 7).await, Err(SourceError::Stalled { .. })));
    let (server, bytes) = broken(Answer::new(404)).await;
    drop(server);
    let said = crate::rt::chain(&read(&*bytes, 3, 7).await.unwrap_err());
    assert!(!said.contains("hunter2"), "{said}");
}

/// A fake of Entra ID's token endpoint, with the blob service behind the same address.
fn entra(request: &Request) -> Answer {
    if request.target.starts_with("/tenant/oauth2/v2.0/token") {
        return match request.body.contains("client_secret=right") {
            true => {
                Answer::new(200).body(r#"{"access_token":"granted","expires_in":3600,"token_type":"Bearer"}"#)
            }
            false => Answer::new(401)
                .body(format!(r#"{{"error":"invalid_client","error_description":"{}"}}"#, request.body)),
        };
    }
    match request.header("authorization") == Some("Bearer granted") {
        true => object(request),
        false => refusal(401, "NoAuthenticationInformation", "Who?"),
    }
}

#[tokio::test]
async fn a_service_principal_is_given_a_token_and_a_wrong_one_is_told() {
    let server = Server::start(entra).await;
    let secret = Secret::new(&[
        ("AZURE_STORAGE_ENDPOINT", &server.url("/acct")),
        ("AZURE_AUTHORITY_HOST", &server.url("")),
        ("AZURE_TENANT_ID", "tenant"),
        ("AZURE_CLIENT_ID", "client"),
        ("AZURE_CLIENT_SECRET", "right"),
    ]);
    let file = secret.resolve("az://models@acct/m/model.bin").await.unwrap().remove(0);
    assert_eq!(read(&*file.bytes, 3, 7).await.unwrap(), b"3456");
    let tokens = server.seen().iter().filter(|seen| seen.target.contains("token")).count();
    assert_eq!(tokens, 1, "a token is used for as long as it's good");
    secret.set("AZURE_CLIENT_SECRET", "hunter2");
    let error = secret.resolve("az://models@acct/m/model.bin").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    let said = crate::rt::chain(&error);
    assert!(said.contains("invalid_client") && !said.contains("hunter2"), "{said}");
}

#[tokio::test]
async fn secrets_that_lack_something_or_are_for_another_account_send_nothing() {
    let server = Server::start(object).await;
    let at = server.url("/acct");
    let endpoint = ("AZURE_STORAGE_ENDPOINT", at.as_str());
    for (values, uri, word) in [
        (vec![endpoint, ("AZURE_STORAGE_SAS_TOKEN", SAS)], "az://models/x", "AZURE_STORAGE_ACCOUNT_NAME"),
        (vec![endpoint, ("OTHER", "x")], "az://models@acct/x", "AZURE_STORAGE_ACCOUNT_KEY"),
        (
            vec![endpoint, ("AZURE_STORAGE_ACCOUNT_NAME", "acct"), ("AZURE_STORAGE_SAS_TOKEN", SAS)],
            "az://models@other/x",
            "the list names other",
        ),
        (vec![endpoint, ("AZURE_STORAGE_ACCOUNT_KEY", "hunter2!")], "az://models@acct/x", "whole"),
        (
            vec![("AZURE_STORAGE_ENDPOINT", "hunter2"), ("AZURE_STORAGE_ANONYMOUS", "")],
            "az://models@acct/x",
            "ENDPOINT",
        ),
    ] {
        let error = Secret::new(&values).resolve(uri).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        let said = crate::rt::chain(&error);
        assert!(said.contains(word) && !said.contains("hunter2"), "{said}");
    }
    assert!(server.seen().is_empty());
    let open = Secret::new(&[endpoint, ("AZURE_STORAGE_ANONYMOUS", "")]);
    open.resolve("az://models@acct/m/model.bin").await.unwrap();
    let seen = server.seen().remove(0);
    assert_eq!(seen.header("authorization"), None);
    assert!(seen.header("x-ms-version").is_some() && !seen.target.contains('?'), "{}", seen.target);
}
