//! XML as object stores speak it: their listings and their refusals. Pure.
//!
//! Read event by event and not into types: names may begin and end with spaces, which such readers take off.

use quick_xml::Reader;
use quick_xml::events::{BytesRef, BytesStart, Event};

/// Elements within elements. The services' own documents have five.
const DEEPEST: usize = 16;

/// The code and the message of a refusal, as S3 and Blob Storage write it. The rest of it, which may repeat a signature, is
/// left alone.
pub(super) fn refusal(document: &[u8]) -> Option<(String, String)> {
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
    (!code.is_empty()).then_some((code, message))
}

/// What is met on the way through a document.
pub(super) enum Element<'a> {
    Start(&'a BytesStart<'a>),
    /// With all text that stood in it.
    End(String),
}

/// Shows every element of `document` to `meet`, with the names above it and its own, and gives the name of the first.
pub(super) fn read(
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
