use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use super::fields::{Fields, Problems, Unknown, not, quoting};
use super::parse::ParsedEntry;
use super::rules::{
    DEFAULT_PRIORITY, MAX_PATTERNS, MAX_PRIORITY, is_credentials_name, is_fraction, is_label_key,
    is_label_value,
};
use super::tree::{Node, Value};
use super::{AllowList, Entry, EntryName, Goods, ImageGoods, NodeSelector, WeightsGoods};
use crate::types::{Digest, EntryId, Globs, ImageRef, RelPath, WeightsUri};

pub(super) const ENTRY_FIELDS: &[&str] = &[
    "id",
    "image",
    "weights",
    "index",
    "include",
    "exclude",
    "sha256",
    "required",
    "priority",
    "pin",
    "neededBy",
    "expiresAt",
    "nodes",
    "credentials",
];

pub(super) const NODES_FIELDS: &[&str] = &["matchLabels", "fraction"];

/// Reads one entry: every field is looked at, whatever is wrong with the others.
pub(super) fn parse_entry(node: &Node, position: usize, allow: &AllowList) -> ParsedEntry {
    let mut problems = Problems::of(Some(EntryName::Position(position)));
    let Value::Map(pairs) = &node.value else {
        let fix = "write a mapping with id and image or weights";
        problems.error(node.place, None, not(&node.value, "an entry"), fix);
        let problems = problems.found;
        return ParsedEntry { position, place: node.place, id: None, required: false, entry: None, problems };
    };
    let id = read_id(pairs);
    if let Some(id) = &id {
        problems.entry = Some(EntryName::Id(id.clone()));
    }
    let fields = Fields::of(pairs, node.place, "", ENTRY_FIELDS, Unknown::Warns, &mut problems);
    let place = fields.node("id").map_or(node.place, |id| id.place);
    if id.is_none() {
        explain_id(&fields, &mut problems);
    }
    let required = fields.flag("required", &mut problems).unwrap_or(false);
    let goods = goods(&fields, allow, &mut problems);
    let priority = priority(&fields, &mut problems);
    let needed_by = fields.time("neededBy", &mut problems);
    let expires_at = fields.time("expiresAt", &mut problems);
    if let Some((needed, expires)) = needed_by.zip(expires_at)
        && needed >= expires
    {
        let place = fields.node("expiresAt").and_then(|node| node.place);
        let fix = "let it expire after it is needed";
        problems.warning(place, "expiresAt".to_owned(), "the entry expires before it is needed", fix);
    }
    let nodes = nodes(&fields, &mut problems);
    let credentials = credentials(&fields, &mut problems);
    let entry = if problems.any_error() {
        None
    } else {
        id.clone().zip(goods).map(|(id, goods)| {
            Arc::new(Entry { id, goods, required, priority, needed_by, expires_at, nodes, credentials })
        })
    };
    ParsedEntry { position, place, id, required, entry, problems: problems.found }
}

/// The id, if there is exactly one that can be read. Of two, neither can be believed.
fn read_id(pairs: &[(Node, Node)]) -> Option<EntryId> {
    let is_id = |key: &Node| matches!(&key.value, Value::Text(text) if text == "id");
    let mut ids = pairs.iter().filter(|(key, _)| is_id(key)).map(|(_, value)| &value.value);
    match (ids.next(), ids.next()) {
        (Some(Value::Text(text)), None) => text.parse().ok(),
        _ => None,
    }
}

fn explain_id(fields: &Fields<'_>, problems: &mut Problems) {
    let field = || "id".to_owned();
    match fields.node("id").map(|node| (node.place, &node.value)) {
        None => problems.error(fields.place, field(), "it is missing", "give the entry an id"),
        Some((place, Value::Text(text))) => {
            if let Err(error) = text.parse::<EntryId>() {
                let (message, fix) = said(&error.to_string());
                problems.error(place, field(), message, fix);
            }
        }
        Some((place, other)) => problems.error(place, field(), not(other, "text"), quoting(other)),
    }
}

fn goods(fields: &Fields<'_>, allow: &AllowList, problems: &mut Problems) -> Option<Goods> {
    match (fields.given("image"), fields.given("weights")) {
        (Some(_), None) => {
            refuse_foreign(fields, &["index", "include", "exclude", "sha256"], "weights", problems);
            image(fields, allow, problems).map(Goods::Image)
        }
        (None, Some(_)) => {
            refuse_foreign(fields, &["pin"], "images", problems);
            weights(fields, allow, problems).map(Goods::Weights)
        }
        (None, None) => {
            let fix = "give it either image: or weights:";
            problems.error(fields.place, None, "it has neither image nor weights", fix);
            None
        }
        (Some(_), Some(weights)) => {
            let fix = "make two entries of it, each with its own id";
            problems.error(weights.place, "weights".to_owned(), "it has both image and weights", fix);
            None
        }
    }
}

fn refuse_foreign(fields: &Fields<'_>, names: &[&str], kind: &str, problems: &mut Problems) {
    for name in names {
        if let Some(node) = fields.given(name) {
            problems.error(
                node.place,
                (*name).to_owned(),
                format!("this field is for {kind} only"),
                "remove it",
            );
        }
    }
}

fn image(fields: &Fields<'_>, allow: &AllowList, problems: &mut Problems) -> Option<ImageGoods> {
    let pin = fields.flag("pin", problems).unwrap_or(true);
    let text = fields.text("image", problems)?;
    let place = fields.node("image").and_then(|node| node.place);
    let field = || "image".to_owned();
    // What stands before an @ that isn't a digest's may be a password: such a text isn't repeated.
    if text.contains("://") || text.replacen("@sha256:", "", 1).contains('@') {
        let fix = "write it as in a pod's spec: registry/name:tag or registry/name@sha256:…";
        problems.error(place, field(), "it is not an image reference: it has a scheme, or an odd @", fix);
        return None;
    }
    let reference = match text.parse::<ImageRef>() {
        Ok(reference) => reference,
        Err(error) => {
            let fix = "write it as in a pod's spec: registry/name:tag or registry/name@sha256:…";
            problems.error(place, field(), error.to_string(), fix);
            return None;
        }
    };
    if let Err(refused) = allow.image(&reference) {
        problems.error(place, field(), refused.to_string(), refused.fix());
        return None;
    }
    Some(ImageGoods { reference, pin })
}

fn weights(fields: &Fields<'_>, allow: &AllowList, problems: &mut Problems) -> Option<WeightsGoods> {
    let index = fields.flag("index", problems).unwrap_or(false);
    let globs = globs(fields, problems);
    let sha256 = digests(fields, problems);
    let text = fields.text("weights", problems)?;
    let place = fields.node("weights").and_then(|node| node.place);
    let field = || "weights".to_owned();
    let uri = match text.parse::<WeightsUri>() {
        Ok(uri) => uri,
        Err(error) => {
            let (message, fix) = said(&error.to_string());
            let fix =
                if fix.is_empty() { "write e.g. hf://org/name@commit or s3://bucket/prefix/" } else { &fix };
            problems.error(place, field(), message, fix);
            return None;
        }
    };
    if let Err(refused) = allow.weights(&uri) {
        problems.error(place, field(), refused.to_string(), refused.fix());
        return None;
    }
    if index && !matches!(uri, WeightsUri::Http(_)) {
        let place = fields.node("index").and_then(|node| node.place);
        let message = format!("{}:// lists its files itself and has no index", uri.scheme());
        problems.error(
            place,
            "index".to_owned(),
            message,
            "remove it, or name an index on an https:// server",
        );
        return None;
    }
    Some(WeightsGoods { uri, index, globs: globs?, sha256 })
}

/// Where both lists together fail, each is tried alone, so that the right field is blamed.
fn globs(fields: &Fields<'_>, problems: &mut Problems) -> Option<Globs> {
    let (include, exclude) = (fields.texts("include", problems), fields.texts("exclude", problems));
    if include.len().max(exclude.len()) <= MAX_PATTERNS
        && let Ok(globs) = Globs::new(&include, &exclude)
    {
        return Some(globs);
    }
    for (name, patterns) in [("include", &include), ("exclude", &exclude)] {
        if patterns.len() > MAX_PATTERNS {
            let place = fields.node(name).and_then(|node| node.place);
            let message = format!("it has {} patterns; at most {MAX_PATTERNS} are read", patterns.len());
            problems.error(
                place,
                name.to_owned(),
                message,
                "name a folder (\"folder/\") or an ending (\"*.bin\")",
            );
        } else if let Err(error) = Globs::new(patterns, &[]) {
            let place = fields.node(name).and_then(|node| node.place);
            let (message, fix) = said(&error.to_string());
            problems.error(place, name.to_owned(), message, fix);
        }
    }
    None
}

fn digests(fields: &Fields<'_>, problems: &mut Problems) -> BTreeMap<RelPath, Digest> {
    let mut digests = BTreeMap::new();
    let field = || "sha256".to_owned();
    let Some(node) = fields.given("sha256") else { return digests };
    let Value::Map(pairs) = &node.value else {
        let fix = "write sha256: {\"path/in/the/tree\": \"64 hex digits\"}";
        problems.error(node.place, field(), not(&node.value, "a mapping"), fix);
        return digests;
    };
    for (key, value) in pairs {
        let path = parse_text::<RelPath>(key, &field(), problems);
        let digest = parse_text::<Digest>(value, &field(), problems);
        if let Some((path, digest)) = path.zip(digest)
            && digests.insert(path, digest).is_some()
        {
            problems.error(key.place, field(), "the path is written twice", "keep one digest for each path");
        }
    }
    digests
}

fn parse_text<T: FromStr<Err: std::fmt::Display>>(
    node: &Node,
    field: &str,
    problems: &mut Problems,
) -> Option<T> {
    let Value::Text(text) = &node.value else {
        problems.error(node.place, field.to_owned(), not(&node.value, "text"), quoting(&node.value));
        return None;
    };
    match text.parse() {
        Ok(value) => Some(value),
        Err(error) => {
            let (message, fix) = said(&error.to_string());
            let fix = if fix.is_empty() {
                "write a relative path, with / between its parts".to_owned()
            } else {
                fix
            };
            problems.error(node.place, field.to_owned(), message, fix);
            None
        }
    }
}

fn priority(fields: &Fields<'_>, problems: &mut Problems) -> u16 {
    let Some(node) = fields.given("priority") else { return DEFAULT_PRIORITY };
    let fix = format!("write a whole number from 0 to {MAX_PRIORITY}, without quotes");
    let message = match node.value {
        Value::Int(number) => match u16::try_from(number) {
            Ok(number) if number <= MAX_PRIORITY => return number,
            _ => format!("{number} is out of range"),
        },
        Value::Float(_) => "it is not a whole number".to_owned(),
        ref other => not(other, "a number"),
    };
    problems.error(node.place, "priority".to_owned(), message, fix);
    DEFAULT_PRIORITY
}

fn credentials(fields: &Fields<'_>, problems: &mut Problems) -> Option<String> {
    let name = fields.text("credentials", problems)?;
    if is_credentials_name(name) {
        return Some(name.to_owned());
    }
    // Never repeated: somebody may have written the secret itself.
    let place = fields.node("credentials").and_then(|node| node.place);
    let fix = "write the name of a Secret that is mounted into the agent, never a secret itself";
    problems.error(place, "credentials".to_owned(), "it is not the name of a Secret", fix);
    None
}

/// An empty selector would be every node, and is refused: what was to be selected got lost somewhere.
fn nodes(fields: &Fields<'_>, problems: &mut Problems) -> Option<NodeSelector> {
    let node = fields.node("nodes")?;
    let fix = "write nodes: {matchLabels: {KEY: VALUE}, fraction: 0.25}, or remove nodes to mean every node";
    let Value::Map(pairs) = &node.value else {
        problems.error(node.place, "nodes".to_owned(), not(&node.value, "a mapping"), fix);
        return None;
    };
    if pairs.is_empty() {
        problems.error(node.place, "nodes".to_owned(), "it selects nothing and could mean every node", fix);
        return None;
    }
    let inner = Fields::of(pairs, node.place, "nodes.", NODES_FIELDS, Unknown::Fails, problems);
    let match_labels = match_labels(&inner, problems);
    let fraction = fraction(&inner, problems);
    Some(NodeSelector { match_labels, fraction })
}

fn match_labels(nodes: &Fields<'_>, problems: &mut Problems) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let field = || "nodes.matchLabels".to_owned();
    let Some(node) = nodes.node("matchLabels") else { return labels };
    let fix = "write matchLabels: {KEY: VALUE}, or remove it";
    let Value::Map(pairs) = &node.value else {
        problems.error(node.place, field(), not(&node.value, "a mapping"), fix);
        return labels;
    };
    if pairs.is_empty() {
        problems.error(node.place, field(), "it selects nothing and could mean every node", fix);
    }
    for (key, value) in pairs {
        let (Value::Text(name), Value::Text(wanted)) = (&key.value, &value.value) else {
            let odd = if matches!(key.value, Value::Text(_)) { value } else { key };
            problems.error(odd.place, field(), not(&odd.value, "text"), quoting(&odd.value));
            continue;
        };
        if !is_label_key(name) || !is_label_value(wanted) {
            let shown: String = format!("{name}: {wanted}").chars().take(200).collect();
            let message = format!("{shown:?} can't be a node's label");
            let fix = "write a label as kubectl get node --show-labels shows it";
            problems.error(key.place, field(), message, fix);
        } else if labels.insert(name.clone(), wanted.clone()).is_some() {
            problems.error(key.place, field(), "the label is written twice", "keep one value for each label");
        }
    }
    labels
}

fn fraction(nodes: &Fields<'_>, problems: &mut Problems) -> Option<f64> {
    let node = nodes.node("fraction")?;
    let number = match node.value {
        Value::Float(number) => Some(number),
        // Only 0 and 1 are near the range, and both are exact.
        Value::Int(number) => Some(if number == 1 { 1.0 } else { 0.0 }),
        _ => None,
    };
    let message = match number {
        Some(number) if is_fraction(number) => return Some(number),
        Some(_) => "it is not more than 0 and at most 1".to_owned(),
        None => not(&node.value, "a number"),
    };
    let fix = "write e.g. 0.25 for a quarter of the nodes, or remove it to mean all of them";
    problems.error(node.place, nodes.name("fraction"), message, fix);
    None
}

/// Splits "what is wrong (what to write)", as the types' errors say it, into its two halves.
fn said(error: &str) -> (String, String) {
    match error.strip_suffix(')').and_then(|text| text.rsplit_once(" (")) {
        Some((message, fix)) => (message.to_owned(), fix.to_owned()),
        None => (error.to_owned(), String::new()),
    }
}
