//! What Blob Storage says in XML ("List Blobs", "Status and error codes"). Pure.

use crate::source::cloud::store::{Page, Seen, Words};
use crate::source::xml::{self, Element};

#[derive(Debug, Default)]
struct Blob {
    name: String,
    size: Option<u64>,
    etag: Option<String>,
    encoding: Option<String>,
    sha256: Option<String>,
    is_directory: bool,
    /// Its name isn't XML's, and stands there in another form.
    is_encoded: bool,
}

/// One page of a container.
pub(in crate::source::cloud) fn page(document: &[u8]) -> Result<Page, String> {
    let mut page = Page::default();
    let mut blob = Blob::default();
    let root = xml::read(document, |path, element| {
        match (path, element) {
            (["EnumerationResults", "NextMarker"], Element::End(text)) => {
                page.next = Some(text).filter(|marker| !marker.is_empty());
            }
            (["EnumerationResults", "Blobs", "Blob"], Element::Start(_)) => blob = Blob::default(),
            (["EnumerationResults", "Blobs", "Blob"], Element::End(_)) => {
                page.objects.push(seen(std::mem::take(&mut blob))?);
            }
            (["EnumerationResults", "Blobs", "Blob", "Name"], Element::Start(start)) => {
                blob.is_encoded =
                    start.attributes().with_checks(false).flatten().any(|a| a.key.as_ref() == b"Encoded");
            }
            (["EnumerationResults", "Blobs", "Blob", rest @ ..], Element::End(text)) => blob.set(rest, text),
            _ => {}
        }
        Ok(())
    })?;
    if root != "EnumerationResults" {
        return Err("its answer is no listing".to_owned());
    }
    Ok(page)
}

/// The code and the message of a refusal.
pub(in crate::source::cloud) fn words(document: &[u8]) -> Option<Words> {
    let (code, message) = xml::refusal(document)?;
    Some(Words { code, message })
}

impl Blob {
    fn set(&mut self, path: &[&str], text: String) {
        match path {
            ["Name"] => self.name = text,
            ["Properties", "Content-Length"] => self.size = text.parse().ok(),
            ["Properties", "Etag"] => self.etag = Some(text),
            ["Properties", "Content-Encoding"] => self.encoding = Some(text).filter(|text| !text.is_empty()),
            ["Properties", "ResourceType"] => self.is_directory |= text == "directory",
            // Names of metadata are case-insensitive.
            ["Metadata", name] if name.eq_ignore_ascii_case("sha256") => self.sha256 = Some(text),
            ["Metadata", name] if name.eq_ignore_ascii_case("hdi_isfolder") => {
                self.is_directory |= text.eq_ignore_ascii_case("true");
            }
            _ => {}
        }
    }
}

fn seen(blob: Blob) -> Result<Seen, String> {
    let Blob { name: key, size, etag, encoding, sha256, is_directory, is_encoded } = blob;
    if is_encoded || key.is_empty() {
        return Err(
            "its listing names an object whose name can't be a file's; rename or remove it".to_owned()
        );
    }
    let size = size.or(is_directory.then_some(0)).ok_or("its listing tells no size")?;
    // Here without quotes, in headers with them.
    let etag = etag.as_deref().map(|tag| tag.trim().trim_matches('"')).unwrap_or_default();
    if etag.is_empty() || !etag.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"') {
        return Err("its listing tells no strong ETag".to_owned());
    }
    Ok(Seen { key, size, version: etag.to_owned(), sha256, encoding, is_directory })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn blob(name: &str, more: &str) -> String {
        format!(
            "<Blob><Name>{name}</Name><Properties><Content-Length>5</Content-Length><Etag>0x8D1</Etag>{more}</Properties>\
             <Metadata><Sha256>AB</Sha256></Metadata><OrMetadata /></Blob>"
        )
    }

    fn listing(blobs: &str, next: &str) -> String {
        format!(
            "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults ContainerName=\"c\"><Prefix/>\
             <Blobs>{blobs}</Blobs>{next}</EnumerationResults>"
        )
    }

    fn keys(document: &str) -> Vec<String> {
        page(document.as_bytes()).unwrap().objects.into_iter().map(|seen| seen.key).collect()
    }

    #[test]
    fn a_page_is_read() {
        let document = listing(&blob("m/a.bin", "<Content-Encoding />"), "<NextMarker>2!x</NextMarker>");
        let expected = Seen {
            key: "m/a.bin".to_owned(),
            size: 5,
            version: "0x8D1".to_owned(),
            sha256: Some("AB".to_owned()),
            encoding: None,
            is_directory: false,
        };
        let expected = Page { objects: vec![expected], next: Some("2!x".to_owned()) };
        assert_eq!(page(document.as_bytes()).unwrap(), expected);
        assert_eq!(page(listing("", "<NextMarker />").as_bytes()).unwrap(), Page::default());
    }

    #[test]
    fn names_come_as_they_are() {
        let written =
            [" lead and trail ", "a&amp;b&lt;&#x6A21;&#65;", "<![CDATA[c<d]]>", "m/%41 +.bin", "x\t\u{e9}"];
        let document = listing(&written.map(|name| blob(name, "")).concat(), "");
        assert_eq!(keys(&document), [" lead and trail ", "a&b<模A", "c<d", "m/%41 +.bin", "x\té"]);
    }

    #[test]
    fn directories_are_told() {
        let document = listing(&blob("dir", "<ResourceType>directory</ResourceType>"), "");
        assert!(page(document.as_bytes()).unwrap().objects[0].is_directory);
        let document = listing(
            &blob("dir", "").replace("Sha256>AB", "hdi_isfolder>true").replace("</Sha256", "</hdi_isfolder"),
            "",
        );
        assert!(page(document.as_bytes()).unwrap().objects[0].is_directory);
    }

    #[test]
    fn what_is_no_listing_is_told() {
        let good = listing(&blob("a", ""), "");
        for (document, word) in [
            (good.replace("<Content-Length>5</Content-Length>", ""), "size"),
            (good.replace("<Etag>0x8D1</Etag>", ""), "ETag"),
            (good.replace("0x8D1", "W/\"x\""), "ETag"),
            (good.replace("<Name>", "<Name Encoded=\"true\">"), "name"),
            (good.replace("0x8D1", "&evil;"), "reference"),
            (good[..good.len() - 30].to_owned(), "XML"),
            (good[..good.len() - 30].trim_end_matches(|c| c != '>').to_owned(), "breaks off"),
            ("<!DOCTYPE x [<!ENTITY e 'x'>]><EnumerationResults/>".to_owned(), "document type"),
            ("<html></html>".to_owned(), "no listing"),
            (String::new(), "empty"),
            ("<a>".repeat(100), "deeply"),
        ] {
            let problem = page(document.as_bytes()).unwrap_err();
            assert!(problem.contains(word), "{document}: {problem}");
        }
    }

    #[test]
    fn of_a_refusal_only_the_code_and_the_message_are_read() {
        let refusal = b"\xef\xbb\xbf<?xml version=\"1.0\"?><Error><Code>AuthenticationFailed</Code><Message>Server failed.\nTime:1\
                        </Message><AuthenticationErrorDetail>sig=secret</AuthenticationErrorDetail></Error>";
        let words = words(refusal).unwrap();
        assert_eq!(
            (words.code.as_str(), words.message.as_str()),
            ("AuthenticationFailed", "Server failed.\nTime:1")
        );
        assert_eq!(super::words(b""), None);
        assert_eq!(super::words(b"<html/>"), None);
    }

    proptest! {
        #[test]
        fn no_document_panics(bytes: Vec<u8>, text in "(<|</|>|Blob|Name|&|;|a|/>| |<!\\[CDATA\\[|\\]\\]>){0,40}") {
            let _ = (page(&bytes), words(&bytes), page(text.as_bytes()));
            let _ = page(listing(&text, "").as_bytes());
        }
    }
}
