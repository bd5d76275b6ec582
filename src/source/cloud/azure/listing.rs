//! What Blob Storage says in XML ("List Blobs", "Status and error codes"). Pure.
//!
//! Read event by event and not into types: names may begin and end with spaces, which such readers take off.

use quick_xml::Reader;
use quick_xml::events::{BytesRef, BytesStart, Event};

use crate::source::cloud::store::{Page, Seen, Words};

/// Elements within elements. The service's own documents have five.
const DEEPEST: usize = 16;

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
    let root = read(document, |path, element| {
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

/// The code and the message of a refusal. The rest of it, which may repeat a signature, is left alone.
pub(in crate::source::cloud) fn words(document: &[u8]) -> Option<Words> {
    let (mut code, mut message) = (String::new(), String::new());
    // What was read before a mistake is good enough.
    let _ = read(document, |path, element| {
        match (path, element) {
            (["Error", "Code"], Element::End(text)) => code = text,
            (["Error", "Message"], Element::End(text)) => message = text,
            _ => {}
        }
        Ok(())
    });
    (!code.is_empty()).then_some(Words { code, message })
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

/// What is met on the way through a document.
enum Element<'a> {
    Start(&'a BytesStart<'a>),
    /// With all text that stood in it.
    End(String),
}

/// Shows every element of `document` to `meet`, with the names above it and its own, and gives the name of the first.
fn read(
    document: &[u8],
    mut meet: impl FnMut(&[&str], Element<'_>) -> Result<(), String>,
) -> Result<String, String> {
    let bad = |_| "its answer is no XML that can be read".to_owned();
    let text = std::str::from_utf8(document).map_err(|_| "its answer is no UTF-8".to_owned())?;
    let mut reader = Reader::from_str(text.trim_start_matches('\u{feff}'));
    reader.config_mut().expand_empty_elements = true;
    let mut root = None;
    // The open elements, each with its text so far.
    let mut open: Vec<(String, String)> = Vec::new();
    loop {
        match reader.read_event().map_err(bad)? {
            Event::Start(start) => {
                let name = String::from_utf8_lossy(start.name().as_ref()).into_owned();
                root.get_or_insert_with(|| name.clone());
                open.push((name, String::new()));
                if open.len() > DEEPEST {
                    return Err("its answer is nested too deeply".to_owned());
                }
                meet(&names(&open), Element::Start(&start))?;
            }
            Event::End(_) => {
                let text = open.last_mut().map(|(_, text)| std::mem::take(text)).unwrap_or_default();
                meet(&names(&open), Element::End(text))?;
                open.pop();
            }
            Event::Text(text) => append(&mut open, &text.decode().map_err(|error| bad(error.into()))?),
            Event::CData(text) => append(&mut open, &text.decode().map_err(|error| bad(error.into()))?),
            Event::GeneralRef(reference) => {
                append(&mut open, &resolved(&reference).ok_or("its answer holds an unknown reference")?);
            }
            Event::DocType(_) => return Err("its answer defines a document type".to_owned()),
            Event::Eof if open.is_empty() => return root.ok_or_else(|| "its answer is empty".to_owned()),
            Event::Eof => return Err("its answer breaks off".to_owned()),
            Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
        }
    }
}

fn names(open: &[(String, String)]) -> Vec<&str> {
    open.iter().map(|(name, _)| name.as_str()).collect()
}

fn append(open: &mut [(String, String)], more: &str) {
    if let Some((_, text)) = open.last_mut() {
        text.push_str(more);
    }
}

/// What a reference stands for: a character by its number, or one of XML's own five.
fn resolved(reference: &BytesRef<'_>) -> Option<String> {
    if let Some(letter) = reference.resolve_char_ref().ok()? {
        return Some(letter.to_string());
    }
    quick_xml::escape::resolve_predefined_entity(&reference.decode().ok()?).map(str::to_owned)
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
