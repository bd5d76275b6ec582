//! A YAML document as a tree in which every node knows its line and column: the parser of the fields works on
//! this, so that one malformed field is one problem at one place and never the end of the whole document.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Location, Options, Spanned};

use super::Place;

/// Deeper than any field of a list (5) and shallow enough for a small stack: an unknown field may nest, too.
const MAX_DEPTH: usize = 24;

/// The most nodes in a document of the permitted size, and the most that its aliases may be worth together.
const MAX_NODES: usize = 50_000;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) place: Option<Place>,
}

/// What YAML's core schema makes of a node. A mapping keeps its order and its repeated keys.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

impl Value {
    /// What it is, for a message.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// A document that isn't YAML, or more than the limits allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct Malformed {
    pub(super) message: String,
    pub(super) place: Option<Place>,
}

/// Reads exactly one document.
pub(super) fn read(text: &str) -> Result<Node, Malformed> {
    serde_saphyr::from_str_with_options::<Spanned<Value>>(text, options())
        .map(Node::from)
        .map_err(|error| malformed(&error))
}

/// Reads a stream of documents, as a manifest for kubectl may be.
pub(super) fn read_all(text: &str) -> Result<Vec<Node>, Malformed> {
    serde_saphyr::from_multiple_with_options::<Spanned<Value>>(text, options())
        .map(|documents| documents.into_iter().map(Node::from).collect())
        .map_err(|error| malformed(&error))
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_reader_input_bytes: Some(super::MAX_BYTES),
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 2 * MAX_NODES,
            max_documents: 64,
            max_anchors: 1024,
            max_aliases: 8192,
            max_merge_keys: 8192,
            max_recorded_anchor_events: MAX_NODES,
            max_recorded_anchor_bytes: 4 * super::MAX_BYTES,
            max_total_scalar_bytes: 2 * super::MAX_BYTES,
            max_total_comment_bytes: super::MAX_BYTES,
            // One selector that every entry names is what aliases are for; the other limits stop the bombs.
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_NODES,
            max_replay_stack_depth: MAX_DEPTH,
        },
        emit_comments: false,
        // A key that is written twice is that entry's problem, not the document's.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        ignore_binary_tag_for_string: true,
        // YAML 1.2: `on`, `yes` and `no` are text.
        strict_booleans: true,
        with_snippet: false,
    }
}

fn malformed(error: &serde_saphyr::Error) -> Malformed {
    use serde_saphyr::Error;
    let error = error.without_snippet();
    let message = match error {
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => beyond_limits(),
        Error::MultipleDocuments { .. } => "it holds more than one YAML document".to_owned(),
        other => {
            // The place is told apart from the message, so it isn't told twice.
            let message = other.to_string();
            let message = message.split(" at line ").next().unwrap_or_default();
            // A budget that is exceeded within an alias comes wrapped.
            let budget = message.starts_with("budget breached") || message.starts_with("recursion limit");
            if budget { beyond_limits() } else { message.chars().take(200).collect() }
        }
    };
    Malformed { message, place: error.location().and_then(place) }
}

fn beyond_limits() -> String {
    "it goes past the limits on nesting, on the number of values, or on aliases".to_owned()
}

fn place(location: Location) -> Option<Place> {
    let (line, column) = (u32::try_from(location.line()).ok()?, u32::try_from(location.column()).ok()?);
    (location != Location::UNKNOWN).then_some(Place { line, column })
}

impl From<Spanned<Value>> for Node {
    fn from(spanned: Spanned<Value>) -> Self {
        Self { value: spanned.value, place: place(spanned.referenced) }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Value, E> {
        Ok(Value::Int(i128::try_from(value).unwrap_or(i128::MAX)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Spanned<Value>>()? {
            list.push(item.into());
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some((key, value)) = pairs.next_entry::<Spanned<Value>, Spanned<Value>>()? {
            map.push((key.into(), value.into()));
        }
        Ok(Value::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place_of(text: &str, path: &[&str]) -> Option<Place> {
        let mut node = &read(text).unwrap();
        for step in path {
            node = match &node.value {
                Value::Map(pairs) => {
                    &pairs.iter().find(|(key, _)| key.value == Value::Text((*step).to_owned())).unwrap().1
                }
                Value::List(items) => &items[step.parse::<usize>().unwrap()],
                other => panic!("{step} in {other:?}"),
            };
        }
        node.place
    }

    #[test]
    fn every_value_knows_its_line_and_column() {
        let text = "a: 1\nb:\n  - x: 1.5\n    y: on\n  - {z: true}\n";
        let at = |line, column| Some(Place { line, column });
        assert_eq!(place_of(text, &["a"]), at(1, 4));
        assert_eq!(place_of(text, &["b", "0", "y"]), at(4, 8));
        assert_eq!(place_of(text, &["b", "1", "z"]), at(5, 9));
        assert_eq!(place_of("{\"a\": [\n1, {\"b\": null}]}", &["a", "1", "b"]), at(2, 10));
    }

    #[test]
    fn an_alias_stands_where_it_is_used() {
        let text = "a: &x {b: 1}\nc: *x\n";
        assert_eq!(place_of(text, &["c"]), Some(Place { line: 2, column: 4 }));
    }

    #[test]
    fn repeated_keys_and_odd_tags_are_not_the_documents_end() {
        let node = read("a: 1\na: 2\nb: !secret x\nc: !!binary not-base64\nd: on\n").unwrap();
        let Value::Map(pairs) = node.value else { panic!() };
        let values: Vec<_> = pairs.into_iter().map(|(_, value)| value.value).collect();
        let text = |text: &str| Value::Text(text.to_owned());
        assert_eq!(values, [Value::Int(1), Value::Int(2), text("x"), text("not-base64"), text("on")]);
    }

    #[test]
    fn bombs_are_refused_quickly_and_without_a_deep_stack() {
        let mut laughs = String::from("x0: &x0 [a, a, a, a, a, a, a, a, a]\n");
        let mut tower = String::from("x0: &x0 [[[[[[[[1]]]]]]]]\n");
        for level in 1..20 {
            let below = level - 1;
            laughs += &format!("x{level}: &x{level} [{}]\n", vec![format!("*x{below}"); 9].join(", "));
            tower += &format!("x{level}: &x{level} [[[[[[[[*x{below}]]]]]]]]\n");
        }
        for bomb in [
            laughs,
            tower,
            "[".repeat(250_000),
            "- ".repeat(125_000),
            "? ".repeat(125_000),
            "{a: ".repeat(60_000),
            format!("[{}]", "1,".repeat(120_000)),
            format!("a: &a [1,2,3,4,5,6,7,8,9]\nb: [{}]", "*a,".repeat(80_000)),
            "&a [".repeat(60_000),
        ] {
            let error = read(&bomb).unwrap_err();
            assert!(
                error.message.contains("limit") || error.message.contains("anchor"),
                "{}: {error}",
                &bomb[..20]
            );
        }
    }

    #[test]
    fn one_document_where_one_is_asked_for() {
        assert_eq!(read("a: 1\n---\nb: 2\n").unwrap_err().message, "it holds more than one YAML document");
        assert_eq!(read_all("a: 1\n---\nb: 2\n").unwrap().len(), 2);
    }
}
