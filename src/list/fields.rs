use jiff::Timestamp;

use super::tree::{Node, Value};
use super::{EntryName, Place, Problem, Severity};

/// Collects what is wrong with one entry, or with the document around the entries.
#[derive(Debug, Default)]
pub(super) struct Problems {
    pub(super) entry: Option<EntryName>,
    pub(super) found: Vec<Problem>,
}

/// What an unknown field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unknown {
    /// A newer version's, or a slip: ignored, and said.
    Warns,
    /// An error, because ignoring it could widen what the entry is for.
    Fails,
}

/// The fields of one mapping, each read by its name.
#[derive(Debug)]
pub(super) struct Fields<'t> {
    /// What stands before the fields' names in a problem: `""` or `"nodes."`.
    prefix: &'static str,
    /// Where the mapping begins.
    pub(super) place: Option<Place>,
    known: Vec<(&'static str, &'t Node)>,
}

impl Problems {
    pub(super) fn of(entry: Option<EntryName>) -> Self {
        Self { entry, found: Vec::new() }
    }

    pub(super) fn error(
        &mut self,
        place: Option<Place>,
        field: impl Into<Option<String>>,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.push(Severity::Error, place, field.into(), message.into(), fix.into());
    }

    pub(super) fn warning(
        &mut self,
        place: Option<Place>,
        field: impl Into<Option<String>>,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.push(Severity::Warning, place, field.into(), message.into(), fix.into());
    }

    fn push(
        &mut self,
        severity: Severity,
        place: Option<Place>,
        field: Option<String>,
        message: String,
        fix: String,
    ) {
        let entry = self.entry.clone();
        self.found.push(Problem { place, entry, field, message, fix, severity });
    }

    pub(super) fn any_error(&self) -> bool {
        self.found.iter().any(|problem| problem.severity == Severity::Error)
    }
}

impl<'t> Fields<'t> {
    /// Sorts the mapping's keys into known, unknown and repeated ones.
    pub(super) fn of(
        pairs: &'t [(Node, Node)],
        place: Option<Place>,
        prefix: &'static str,
        names: &[&'static str],
        unknown: Unknown,
        problems: &mut Problems,
    ) -> Self {
        let mut known: Vec<(&'static str, &'t Node)> = Vec::with_capacity(pairs.len().min(names.len()));
        for (key, value) in pairs {
            let text = match &key.value {
                Value::Text(text) => text.as_str(),
                _ => "",
            };
            let Some(name) = names.iter().copied().find(|name| *name == text) else {
                let field = if text.is_empty() { key.value.kind() } else { text };
                let field: String = prefix.chars().chain(field.chars().take(80)).collect();
                let fix = match nearest(text, names) {
                    Some(name) => format!("did you mean {name:?}?"),
                    None => "remove it".to_owned(),
                };
                match unknown {
                    Unknown::Warns => {
                        problems.warning(key.place, field, "this field is not known and is ignored", fix);
                    }
                    Unknown::Fails => problems.error(key.place, field, "this field is not known", fix),
                }
                continue;
            };
            if known.iter().any(|(seen, _)| *seen == name) {
                problems.error(
                    key.place,
                    format!("{prefix}{name}"),
                    "it is written twice",
                    "keep one of them",
                );
                continue;
            }
            known.push((name, value));
        }
        Self { prefix, place, known }
    }

    /// The field's full name, for a problem.
    pub(super) fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The field, whatever it holds.
    pub(super) fn node(&self, name: &str) -> Option<&'t Node> {
        self.known.iter().find(|(known, _)| *known == name).map(|(_, node)| *node)
    }

    /// The field, if it holds something: for an optional field, `null` is the same as leaving it out.
    pub(super) fn given(&self, name: &str) -> Option<&'t Node> {
        self.node(name).filter(|node| node.value != Value::Null)
    }

    pub(super) fn text(&self, name: &str, problems: &mut Problems) -> Option<&'t str> {
        let node = self.given(name)?;
        match &node.value {
            Value::Text(text) => Some(text),
            other => {
                problems.error(node.place, self.name(name), not(other, "text"), quoting(other));
                None
            }
        }
    }

    pub(super) fn flag(&self, name: &str, problems: &mut Problems) -> Option<bool> {
        let node = self.given(name)?;
        match &node.value {
            Value::Bool(value) => Some(*value),
            other => {
                let message = not(other, "true or false");
                problems.error(node.place, self.name(name), message, "write true or false, without quotes");
                None
            }
        }
    }

    pub(super) fn time(&self, name: &str, problems: &mut Problems) -> Option<Timestamp> {
        let node = self.given(name)?;
        let fix = "write a time as in RFC 3339, with its zone: 2026-11-24T12:00:00Z";
        match &node.value {
            Value::Text(text) => match text.parse() {
                Ok(time) => Some(time),
                Err(_) => {
                    problems.error(node.place, self.name(name), "it can't be read as a time", fix);
                    None
                }
            },
            other => {
                problems.error(node.place, self.name(name), not(other, "a time"), fix);
                None
            }
        }
    }

    /// A list of texts; empty where it isn't given.
    pub(super) fn texts(&self, name: &str, problems: &mut Problems) -> Vec<String> {
        let Some(node) = self.given(name) else { return Vec::new() };
        let Value::List(items) = &node.value else {
            let fix = format!("write {name}: [\"…\", \"…\"]");
            problems.error(node.place, self.name(name), not(&node.value, "a list"), fix);
            return Vec::new();
        };
        let mut texts = Vec::with_capacity(items.len());
        for item in items {
            match &item.value {
                Value::Text(text) => texts.push(text.clone()),
                other => problems.error(item.place, self.name(name), not(other, "text"), quoting(other)),
            }
        }
        texts
    }
}

/// `it is a number, not text`
pub(super) fn not(found: &Value, wanted: &str) -> String {
    format!("it is {}, not {wanted}", found.kind())
}

/// How to make text of a scalar that YAML reads as something else.
pub(super) fn quoting(found: &Value) -> &'static str {
    match found {
        Value::Bool(_) | Value::Int(_) | Value::Float(_) => "put the value in quotes",
        Value::Null => "give it a value, or remove the field",
        Value::Text(_) | Value::List(_) | Value::Map(_) => "write one text",
    }
}

/// The name that was probably meant: equal but for case, `-` and `_`, or at most two letters away.
fn nearest<'n>(text: &str, names: &[&'n str]) -> Option<&'n str> {
    if text.len() > 40 {
        return None;
    }
    let plain = |text: &str| text.to_ascii_lowercase().replace(['-', '_'], "");
    let distance = |name: &&&str| edits(&plain(text), &plain(name));
    let closest = names.iter().min_by_key(|name| distance(name))?;
    // Two edits make a three-letter word of any other.
    (distance(&closest) <= 2.min(closest.len() / 2)).then_some(*closest)
}

/// Levenshtein's distance.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (done, letter) in from.chars().enumerate() {
        let mut diagonal = done;
        let mut left = done + 1;
        for (cell, wanted) in row.iter_mut().skip(1).zip(&to) {
            let replaced = diagonal + usize::from(letter != *wanted);
            diagonal = *cell;
            left = replaced.min(left + 1).min(diagonal + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = done + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_recognised() {
        let names = ["id", "image", "neededBy", "matchLabels", "fraction", "pin"];
        assert_eq!(nearest("needed_by", &names), Some("neededBy"));
        assert_eq!(nearest("matchLabel", &names), Some("matchLabels"));
        assert_eq!(nearest("fracton", &names), Some("fraction"));
        assert_eq!(nearest("imgae", &names), Some("image"));
        assert_eq!(nearest("pull", &names), None);
        assert_eq!(nearest("foo", &names), None);
        assert_eq!(nearest("", &names), None);
    }

    #[test]
    fn distances_are_levenshteins() {
        for (from, to, distance) in [("", "abc", 3), ("kitten", "sitting", 3), ("same", "same", 0)] {
            assert_eq!(edits(from, to), distance, "{from} {to}");
        }
    }
}
