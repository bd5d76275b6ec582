//! A document's text in, entries and problems out. Nothing here stops at the first problem.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::document::{API_VERSION, KIND};
use super::fields::{Fields, Problems, Unknown, not};
use super::parse_entry::parse_entry;
use super::tree::{self, Value};
use super::{AllowList, Entry, Place, Problem, Severity};
use crate::types::EntryId;

/// The largest document that is read, in bytes.
pub const MAX_BYTES: usize = 256 * 1024;

/// More entries than any fleet has goods: a document with more is a mistake of whatever writes it.
pub const MAX_ENTRIES: usize = 4096;

pub(super) const LIST_FIELDS: &[&str] = &["apiVersion", "kind", "validUntil", "paused", "entries"];

/// What a document says, as far as it can be read.
#[derive(Debug, Clone, PartialEq)]
pub struct ParsedList {
    /// The fields around the entries; `None` when the document as a whole can't be used: the last good one stays in
    /// force, entry by entry.
    pub head: Option<ListHead>,
    /// In the document's order; also of a document that can't be used, as far as they can be read.
    pub entries: Vec<ParsedEntry>,
    /// What is wrong outside the entries.
    pub problems: Vec<Problem>,
}

/// The fields around the entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListHead {
    /// Past it nothing new is started.
    pub valid_until: Option<Timestamp>,
    /// Start nothing, drop nothing.
    pub paused: bool,
}

/// One entry, as far as it can be read.
#[derive(Debug, Clone, PartialEq)]
pub struct ParsedEntry {
    /// Its position in the list, from 1.
    pub position: usize,
    /// Where its id stands, or else the entry.
    pub place: Option<Place>,
    /// Its id, if that can be read.
    pub id: Option<EntryId>,
    /// Whether its `required` can be read and is true.
    pub required: bool,
    /// The entry, if nothing is wrong with it.
    pub entry: Option<Arc<Entry>>,
    /// What is wrong with it, or ignored in it.
    pub problems: Vec<Problem>,
}

impl ParsedList {
    /// Every problem, those of the document and those of its entries, in the order of their lines.
    #[must_use]
    pub fn all_problems(&self) -> Vec<&Problem> {
        let of_entries = self.entries.iter().flat_map(|entry| &entry.problems);
        let mut all: Vec<&Problem> = self.problems.iter().chain(of_entries).collect();
        all.sort_by_key(|problem| problem.place);
        all
    }
}

/// Reads a document. YAML, and so JSON, of at most [`MAX_BYTES`] bytes.
#[must_use]
pub fn parse(text: &[u8], allow: &AllowList) -> ParsedList {
    let mut problems = Problems::default();
    let (head, entries) = match read(text, &mut problems) {
        Some(document) => parse_document(&document, allow, &mut problems),
        None => (None, Vec::new()),
    };
    ParsedList { head, entries, problems: problems.found }
}

fn read(text: &[u8], problems: &mut Problems) -> Option<tree::Node> {
    if text.len() > MAX_BYTES {
        let message = format!("the document is larger than {} KiB", MAX_BYTES / 1024);
        problems.error(None, None, message, "list fewer entries, or share selectors with YAML aliases");
        return None;
    }
    let text = match std::str::from_utf8(text) {
        Ok(text) => text,
        Err(error) => {
            let before = text.get(..error.valid_up_to()).unwrap_or_default();
            let lines = before.split(|byte| *byte == b'\n').count();
            let column = before.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
            let column = String::from_utf8_lossy(column).chars().count() + 1;
            let place = u32::try_from(lines).ok().zip(u32::try_from(column).ok());
            let place = place.map(|(line, column)| Place { line, column });
            problems.error(place, None, "the document is not UTF-8", "save it as UTF-8");
            return None;
        }
    };
    match tree::read(text) {
        Ok(document) => Some(document),
        Err(error) => {
            let message = format!("the document can't be read as YAML: {error}");
            problems.error(
                error.place,
                None,
                message,
                "mend the YAML there; until then the last good list is kept",
            );
            None
        }
    }
}

fn parse_document(
    document: &tree::Node,
    allow: &AllowList,
    problems: &mut Problems,
) -> (Option<ListHead>, Vec<ParsedEntry>) {
    let Value::Map(pairs) = &document.value else {
        let message = match document.value {
            Value::Null => "the document is empty".to_owned(),
            ref other => not(other, "a PrefetchList"),
        };
        problems.error(
            document.place,
            None,
            message,
            "to empty the list, write entries: [] in a PrefetchList",
        );
        return (None, Vec::new());
    };
    let fields = Fields::of(pairs, document.place, "", LIST_FIELDS, Unknown::Warns, problems);
    for (name, only) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        let fix = format!("write {name}: {only}");
        match fields.node(name).map(|node| (node, &node.value)) {
            Some((_, Value::Text(text))) if text == only => {}
            Some((node, Value::Text(text))) if text == "ConfigMap" => {
                let fix =
                    "write the list itself; in a ConfigMap's manifest it stands under data, as list.yaml";
                problems.error(node.place, name.to_owned(), "it is a ConfigMap, not a PrefetchList", fix);
            }
            Some((node, Value::Text(text))) => {
                let text: String = text.chars().take(60).collect();
                problems.error(node.place, name.to_owned(), format!("it is {text:?}, not {only:?}"), fix);
            }
            Some((node, other)) => problems.error(node.place, name.to_owned(), not(other, "text"), fix),
            None => problems.error(fields.place, name.to_owned(), "it is missing", fix),
        }
    }
    let valid_until = fields.time("validUntil", problems);
    let paused = fields.flag("paused", problems).unwrap_or(false);
    let entries = parse_entries(&fields, allow, problems);
    let head = (!problems.any_error()).then_some(ListHead { valid_until, paused });
    (head, entries)
}

fn parse_entries(fields: &Fields<'_>, allow: &AllowList, problems: &mut Problems) -> Vec<ParsedEntry> {
    let field = || "entries".to_owned();
    let Some(node) = fields.node("entries") else {
        problems.error(fields.place, field(), "it is missing", "to empty the list, write entries: []");
        return Vec::new();
    };
    let Value::List(items) = &node.value else {
        let fix = "to empty the list, write entries: []; else one \"- id: …\" for each entry";
        problems.error(node.place, field(), not(&node.value, "a list"), fix);
        return Vec::new();
    };
    if items.len() > MAX_ENTRIES {
        let message = format!("it has {} entries; at most {MAX_ENTRIES} are read", items.len());
        problems.error(node.place, field(), message, "list only what nodes will need soon");
        return Vec::new();
    }
    let mut entries: Vec<ParsedEntry> =
        items.iter().zip(1..).map(|(item, position)| parse_entry(item, position, allow)).collect();
    refuse_duplicates(&mut entries);
    entries
}

/// An id that is given twice names neither: which of them was meant can't be told, so both are bad.
fn refuse_duplicates(entries: &mut [ParsedEntry]) {
    let mut positions: BTreeMap<EntryId, Vec<usize>> = BTreeMap::new();
    for entry in entries.iter() {
        if let Some(id) = &entry.id {
            positions.entry(id.clone()).or_default().push(entry.position);
        }
    }
    for entry in entries {
        let Some((id, same)) = entry.id.as_ref().and_then(|id| positions.get_key_value(id)) else { continue };
        if same.len() < 2 {
            continue;
        }
        let others: Vec<String> = same
            .iter()
            .filter(|position| **position != entry.position)
            .take(5)
            .map(|position| format!("#{position}"))
            .collect();
        entry.problems.push(Problem {
            place: entry.place,
            entry: Some(super::EntryName::Id(id.clone())),
            field: Some("id".to_owned()),
            message: format!("entry {} has the same id; none of them is taken", others.join(", ")),
            fix: "give each entry an id of its own".to_owned(),
            severity: Severity::Error,
        });
        entry.entry = None;
    }
}
