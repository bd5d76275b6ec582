//! The newest document and the last list make the next list. Pure; this is where "one bad entry never stops the
//! others" and "unreadable is not empty" are kept.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::parse::{MAX_ENTRIES, ParsedEntry, ParsedList, parse};
use super::{AllowList, Entry, Goods, List, Listed, Problem, Severity};
use crate::types::{Digest, EntryId};

/// How many problems of one entry, or of the document, are kept for the status.
const MAX_SENTENCES: usize = 16;

/// Takes over what the document says well; what it says badly keeps its last good version. A document that can't be
/// used as a whole changes nothing but the errors.
#[must_use]
pub fn merge(previous: Option<&List>, text: &[u8], allow: &AllowList) -> List {
    let parsed = parse(text, allow);
    let content = Some(Digest::of(text));
    let (errors, warnings) = sentences(&parsed);
    let Some(head) = parsed.head else {
        return List { errors, warnings, content, ..kept(previous, allow) };
    };
    let last: HashMap<&EntryId, &Listed> =
        previous.into_iter().flat_map(|list| &list.entries).map(|listed| (listed.id(), listed)).collect();
    // Of several entries with one id, any may be the required one.
    let required: HashSet<&EntryId> =
        parsed.entries.iter().filter(|entry| entry.required).filter_map(|entry| entry.id.as_ref()).collect();
    let mut seen = HashSet::new();
    let mut entries = Vec::with_capacity(parsed.entries.len());
    for entry in &parsed.entries {
        let Some(id) = &entry.id else { continue };
        if !seen.insert(id) {
            continue;
        }
        entries.push(match (&entry.entry, last.get(id).and_then(|last| good(last, allow))) {
            (Some(entry), _) => Listed::Good(Arc::clone(entry)),
            (None, Some(last)) => Listed::LastGood { entry: last, errors: errors_in(entry) },
            (None, None) => {
                Listed::Bad { id: id.clone(), required: required.contains(id), errors: errors_in(entry) }
            }
        });
    }
    let removals_held = parsed.entries.iter().any(|entry| entry.id.is_none());
    if removals_held {
        let missing = previous.into_iter().flat_map(|list| &list.entries);
        let missing = missing.filter(|listed| !seen.contains(listed.id()));
        // A list whose ids change while this lasts must not make it grow for ever: what left it last is kept.
        let room = MAX_ENTRIES.saturating_sub(entries.len());
        entries.extend(missing.take(room).map(|listed| unaccounted(listed, allow)));
    }
    List {
        valid_until: head.valid_until,
        paused: head.paused,
        entries,
        removals_held,
        errors,
        warnings,
        known: true,
        current: true,
        content,
    }
}

/// The list when there is no document to read: the file or the ConfigMap is gone, or can't be read. `error` is a
/// sentence that says so, and what to do.
#[must_use]
pub fn without_document(previous: Option<&List>, error: String, allow: &AllowList) -> List {
    List { errors: vec![error], ..kept(previous, allow) }
}

/// The list with every entry that `allow` refuses turned bad: the flags may have changed since it was stored.
#[must_use]
pub fn recheck(list: &List, allow: &AllowList) -> List {
    let entries = list.entries.iter().map(|listed| allowed(listed, allow)).collect();
    List { entries, ..list.clone() }
}

fn kept(previous: Option<&List>, allow: &AllowList) -> List {
    let unknown = || List { known: false, ..List::empty() };
    let last = previous.map_or_else(unknown, |list| recheck(list, allow));
    List { removals_held: true, current: true, ..last }
}

/// Problems outside the entries, and those of entries whose id can't be read: these have no other place to be told.
/// Warnings of every entry.
fn sentences(parsed: &ParsedList) -> (Vec<String>, Vec<String>) {
    let nameless = parsed.entries.iter().filter(|entry| entry.id.is_none());
    let errors = parsed.problems.iter().chain(nameless.flat_map(|entry| &entry.problems));
    let errors = errors.filter(|problem| problem.severity == Severity::Error).map(Problem::sentence);
    let all = parsed.all_problems();
    let warnings = all.iter().filter(|problem| problem.severity == Severity::Warning);
    (bounded(errors), bounded(warnings.map(|problem| problem.sentence())))
}

fn errors_in(entry: &ParsedEntry) -> Vec<String> {
    let errors = entry.problems.iter().filter(|problem| problem.severity == Severity::Error);
    bounded(errors.map(Problem::sentence_in_entry))
}

/// The version to go on with, unless it's no longer allowed.
fn good(listed: &Listed, allow: &AllowList) -> Option<Arc<Entry>> {
    listed.entry().filter(|entry| refusal(entry, allow).is_none()).cloned()
}

/// The first sentences, and how many more there are: a status must not grow with what is wrong.
fn bounded(sentences: impl Iterator<Item = String>) -> Vec<String> {
    let mut sentences = sentences.fuse();
    let mut first: Vec<String> = sentences.by_ref().take(MAX_SENTENCES).collect();
    let more = sentences.count();
    if more > 0 {
        first.push(format!("and {more} more; stoker check shows all of them"));
    }
    first
}

/// An entry that the newest document doesn't name, while one of its ids can't be read: it may be that one.
fn unaccounted(listed: &Listed, allow: &AllowList) -> Listed {
    let errors =
        vec!["kept: it is not in the list, but an entry there has an id that can't be read".to_owned()];
    match allowed(listed, allow) {
        Listed::Good(entry) | Listed::LastGood { entry, .. } => Listed::LastGood { entry, errors },
        Listed::Bad { id, required, .. } => Listed::Bad { id, required, errors },
    }
}

fn allowed(listed: &Listed, allow: &AllowList) -> Listed {
    match listed.entry().and_then(|entry| refusal(entry, allow).map(|refusal| (entry, refusal))) {
        Some((entry, refusal)) => {
            Listed::Bad { id: entry.id.clone(), required: entry.required, errors: vec![refusal] }
        }
        None => listed.clone(),
    }
}

fn refusal(entry: &Entry, allow: &AllowList) -> Option<String> {
    let (field, verdict) = match &entry.goods {
        Goods::Image(image) => ("image", allow.image(&image.reference)),
        Goods::Weights(weights) => ("weights", allow.weights(&weights.uri)),
    };
    verdict.err().map(|refused| format!("field {field:?}: {refused}; {}", refused.fix()))
}
