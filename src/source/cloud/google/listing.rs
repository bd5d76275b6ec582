//! What the JSON API says about objects. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::source::cloud::store::{Page, Seen, Words};

/// All that is read of a listing.
pub(super) const FIELDS: &str = "nextPageToken,items(name,size,generation,contentEncoding,metadata/sha256)";

/// The same of one object.
pub(super) const OBJECT_FIELDS: &str = "name,size,generation,contentEncoding,metadata/sha256";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listing {
    #[serde(default)]
    items: Vec<Object>,
    #[serde(default)]
    next_page_token: Option<String>,
}

/// Numbers of 64 bits are strings in this API.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    name: String,
    size: String,
    generation: String,
    #[serde(default)]
    content_encoding: Option<String>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Refusal {
    error: RefusalError,
}

#[derive(Deserialize)]
struct RefusalError {
    #[serde(default)]
    message: String,
    #[serde(default)]
    errors: Vec<Reason>,
}

#[derive(Deserialize)]
struct Reason {
    #[serde(default)]
    reason: String,
}

pub(in crate::source::cloud) fn page(document: &[u8]) -> Result<Page, String> {
    let listing: Listing = read(document)?;
    let objects = listing.items.into_iter().map(seen).collect::<Result<_, _>>()?;
    Ok(Page { objects, next: listing.next_page_token.filter(|token| !token.is_empty()) })
}

pub(in crate::source::cloud) fn object(document: &[u8]) -> Result<Seen, String> {
    seen(read(document)?)
}

/// The reason and the message of a refusal. One of a download is a line of plain text.
pub(in crate::source::cloud) fn words(document: &[u8]) -> Option<Words> {
    if let Ok(Refusal { error }) = serde_json::from_slice(document) {
        let code = error.errors.into_iter().next().map(|first| first.reason).unwrap_or_default();
        return Some(Words { code, message: error.message });
    }
    let text = std::str::from_utf8(document).ok()?.trim();
    let is_plain = !text.is_empty() && !text.starts_with(['<', '{', '[']);
    is_plain.then(|| Words { code: String::new(), message: text.to_owned() })
}

/// The position of a mistake is enough: what stands there may be anything.
fn read<'a, T: Deserialize<'a>>(document: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(document).map_err(|error| {
        format!("its answer can't be read (line {}, column {})", error.line(), error.column())
    })
}

fn seen(object: Object) -> Result<Seen, String> {
    let Object { name, size, generation, content_encoding, mut metadata } = object;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let size = size.parse().map_err(|_| "its answer tells no size".to_owned())?;
    if !is_number(&generation) {
        return Err("its answer tells no generation".to_owned());
    }
    Ok(Seen {
        key: name,
        size,
        version: generation,
        sha256: metadata.remove("sha256"),
        encoding: content_encoding,
        is_directory: false,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OBJECT: &str = r#"{"name":"m/a b%41.bin","size":"5","generation":"1700000000000001",
        "metadata":{"sha256":"ABC"},"etag":"x"}"#;

    #[test]
    fn a_page_is_read() {
        let listing = format!(r#"{{"kind":"storage#objects","items":[{OBJECT}],"nextPageToken":"t"}}"#);
        let page = page(listing.as_bytes()).unwrap();
        let expected = Seen {
            key: "m/a b%41.bin".to_owned(),
            size: 5,
            version: "1700000000000001".to_owned(),
            sha256: Some("ABC".to_owned()),
            encoding: None,
            is_directory: false,
        };
        assert_eq!(page, Page { objects: vec![expected.clone()], next: Some("t".to_owned()) });
        assert_eq!(object(OBJECT.as_bytes()).unwrap(), expected);
        assert_eq!(super::page(b"{}").unwrap(), Page::default());
    }

    #[test]
    fn what_lacks_a_size_or_a_version_is_refused() {
        for (from, to) in
            [("\"5\"", "\"-5\""), ("\"5\"", "\"x\""), ("1700000000000001", "1 or 2"), ("name", "x")]
        {
            assert!(object(OBJECT.replace(from, to).as_bytes()).is_err(), "{to}");
        }
    }

    #[test]
    fn refusals_are_read_in_both_shapes() {
        let json = br#"{"error":{"code":403,"message":"No access.","errors":[{"reason":"forbidden"}]}}"#;
        let words =
            |code: &str, message: &str| Some(Words { code: code.to_owned(), message: message.to_owned() });
        assert_eq!(super::words(json), words("forbidden", "No access."));
        assert_eq!(super::words(b"No such object: b/o\n"), words("", "No such object: b/o"));
        assert_eq!(super::words(b"<html>"), None);
        assert_eq!(super::words(b""), None);
    }

    proptest! {
        #[test]
        fn no_document_panics(bytes: Vec<u8>) {
            let _ = (page(&bytes), object(&bytes), words(&bytes));
        }
    }
}
