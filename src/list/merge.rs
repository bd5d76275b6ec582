//! The newest document and the last list make the next list. Pure; this is where "one bad entry never stops the
//! others" and "unreadable is not empty" are kept.

use std::collections::HashSet;
use std::sync::Arc;

use super::parse::{ParsedEntry, ParsedList, parse};
use super::{AllowList, Entry, Goods, List, Listed, Problem, Severity};
use crate::types::{Digest, EntryId};

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
    let mut seen = HashSet::new();
    let mut entries = Vec::with_capacity(parsed.entries.len());
    for entry in &parsed.entries {
        let Some(id) = &entry.id else { continue };
        if seen.insert(id.clone()) {
            entries.push(listed(id, &parsed.entries, entry, previous, allow));
        }
    }
    let removals_held = parsed.entries.iter().any(|entry| entry.id.is_none());
    if removals_held {
        let missing = previous.into_iter().flat_map(|list| &list.entries);
        let missing = missing.filter(|listed| !seen.contains(listed.id()));
        entries.extend(missing.map(|listed| unaccounted(listed, allow)));
    }
    List {
        valid_until: head.valid_until,
        paused: head.paused,
        entries,
        removals_held,
        errors,
        warnings,
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
    let last = previous.map_or_else(List::empty, |list| recheck(list, allow));
    List { removals_held: true, ..last }
}

/// Problems outside the entries, and those of entries whose id can't be read: these have no other place to be told.
/// Warnings of every entry.
fn sentences(parsed: &ParsedList) -> (Vec<String>, Vec<String>) {
    let nameless = parsed.entries.iter().filter(|entry| entry.id.is_none());
    let errors = parsed.problems.iter().chain(nameless.flat_map(|entry| &entry.problems));
    let errors = errors.filter(|problem| problem.severity == Severity::Error).map(Problem::sentence);
    let all = parsed.all_problems();
    let warnings = all.iter().filter(|problem| problem.severity == Severity::Warning);
    (errors.collect(), warnings.map(|problem| problem.sentence()).collect())
}

fn listed(
    id: &EntryId,
    entries: &[ParsedEntry],
    parsed: &ParsedEntry,
    previous: Option<&List>,
    allow: &AllowList,
) -> Listed {
    if let Some(entry) = &parsed.entry {
        return Listed::Good(Arc::clone(entry));
    }
    let errors = parsed.problems.iter().filter(|problem| problem.severity == Severity::Error);
    let errors: Vec<String> = errors.map(Problem::sentence_in_entry).collect();
    match last_good(id, previous, allow) {
        Some(entry) => Listed::LastGood { entry, errors },
        None => {
            // Of several entries with this id, any may be the required one.
            let mut same = entries.iter().filter(|entry| entry.id.as_ref() == Some(id));
            Listed::Bad { id: id.clone(), required: same.any(|entry| entry.required), errors }
        }
    }
}

fn last_good(id: &EntryId, previous: Option<&List>, allow: &AllowList) -> Option<Arc<Entry>> {
    let listed = previous?.entries.iter().find(|listed| listed.id() == id)?;
    listed.entry().filter(|entry| refusal(entry, allow).is_none()).cloned()
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
