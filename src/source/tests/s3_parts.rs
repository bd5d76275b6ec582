//! What S3 says of the parts of an object: all of it, or nothing.

use base64::Engine as _;

use super::http::{config, goods};
use super::server::{Answer, Request, Server};
use crate::source::{SourceConfig, SourceError, Sources};
use crate::types::{Digest, PartDigests, Published};

const PARTS: [&[u8]; 3] = [b"0123456789", b"abcdefghij", b"klmnop"];

fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn digests() -> PartDigests {
    PartDigests::new(PARTS.map(|part| (part.len() as u64, Digest::of(part)))).unwrap()
}

/// A HEAD's answer: the checksum of the parts' checksums.
fn head(request: &Request) -> Answer {
    let composite = base64(digests().composite().as_bytes());
    Answer::of(request, &PARTS.concat(), "v1-3")
        .header("x-amz-checksum-sha256", format!("{composite}-3"))
        .header("x-amz-checksum-type", "COMPOSITE")
}

/// The part of this number, counted from 0, and which is the next one.
fn page(number: usize) -> Answer {
    let (part, last) = (PARTS[number], number + 1 == PARTS.len());
    let (size, sha256) = (part.len(), base64(Digest::of(part).as_bytes()));
    Answer::new(200).header("ETag", "\"v1-3\"").body(format!(
        "<GetObjectAttributesResponse><ETag>v1-3</ETag><ObjectParts><IsTruncated>{}</IsTruncated>\
         <NextPartNumberMarker>{}</NextPartNumberMarker><Part><PartNumber>{}</PartNumber><Size>{size}</Size>\
         <ChecksumSHA256>{sha256}</ChecksumSHA256></Part></ObjectParts></GetObjectAttributesResponse>",
        !last,
        number + 1,
        number + 1
    ))
}

/// What is published of the one object of a server that answers so where its attributes are asked for.
async fn published(
    attributes: impl Fn(&Request) -> Answer + Send + Sync + 'static,
) -> (Result<Option<Published>, SourceError>, Vec<Request>) {
    let server = Server::start(move |request| {
        if request.target.contains("attributes") { attributes(request) } else { head(request) }
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("s3");
    std::fs::create_dir(&secret).unwrap();
    for (key, value) in [
        ("AWS_ENDPOINT_URL", server.url("")),
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "hunter2".to_owned()),
        ("AWS_REQUEST_PAYER", "requester".to_owned()),
    ] {
        std::fs::write(secret.join(key), value).unwrap();
    }
    let credentials_dir = Some(dir.path().to_owned());
    let sources = Sources::new(SourceConfig { credentials_dir, ..config() }).unwrap();
    let listing = sources.resolve(&goods("s3://bucket/x", false), Some("s3")).await;
    (listing.map(|listing| listing.files[0].digest.clone()), server.seen())
}

#[tokio::test]
async fn parts_are_read_page_by_page_and_paid_for_like_the_rest() {
    let (found, seen) = published(|request| {
        page(request.header("x-amz-part-number-marker").map_or(0, |number| number.parse().unwrap()))
    })
    .await;
    assert_eq!(found.unwrap(), Some(Published::Parts(digests())));
    assert_eq!(seen.len(), 4, "a HEAD and three pages");
    assert!(seen.iter().all(|request| request.header("x-amz-request-payer") == Some("requester")));
}

#[tokio::test]
async fn parts_that_are_not_told_are_no_failure_and_nothing_is_taken_for_them() {
    let refused = |status: u16| move |_: &Request| Answer::new(status);
    for status in [403, 404, 501] {
        assert_eq!(published(refused(status)).await.0.unwrap(), None, "{status}");
    }
    let object = |request: &Request| Answer::of(request, &PARTS.concat(), "v1-3");
    assert_eq!(published(object).await.0.unwrap(), None, "the object itself");
    let circle = |_: &Request| page(0);
    let (found, seen) = published(circle).await;
    assert_eq!(found.unwrap(), None, "always the same page");
    assert!(seen.len() < 5, "{}", seen.len());
    let bare = "<GetObjectAttributesResponse><ETag>v1-3</ETag></GetObjectAttributesResponse>";
    assert_eq!(published(move |_: &Request| Answer::new(200).body(bare)).await.0.unwrap(), None);
}

#[tokio::test]
async fn parts_of_another_version_are_a_change() {
    let other = "<GetObjectAttributesResponse><ETag>v2-3</ETag></GetObjectAttributesResponse>";
    let (found, _) =
        published(move |_: &Request| Answer::new(200).header("ETag", "\"v2-3\"").body(other)).await;
    assert!(matches!(found, Err(SourceError::Changed { .. })), "{found:?}");
}
