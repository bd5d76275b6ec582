use std::fmt;
use std::str::FromStr;

use k8s_openapi::api::core::v1::ConfigMap;

/// The key of the list where none is named.
const KEY: &str = "list.yaml";

/// Where the list is in the cluster: one key of one ConfigMap. Written `NAMESPACE/NAME`, or `NAMESPACE/NAME/KEY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigMapRef {
    namespace: String,
    name: String,
    key: String,
}

/// What isn't a [`ConfigMapRef`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum InvalidConfigMapRef {
    #[error("{0:?} is not NAMESPACE/NAME or NAMESPACE/NAME/KEY; write e.g. stoker-system/stoker-list")]
    Form(String),
    #[error(
        "{0:?} can't be a namespace: those are at most 63 lower-case letters, digits and -, with a letter or digit at \
         both ends"
    )]
    Namespace(String),
    #[error(
        "{0:?} can't be a ConfigMap's name: those are at most 253 lower-case letters, digits, - and ., each part \
         between dots with a letter or digit at both ends"
    )]
    Name(String),
    #[error(
        "{0:?} can't be a key of a ConfigMap: those are at most 253 letters, digits, -, _ and ., and don't begin with .."
    )]
    Key(String),
}

impl ConfigMapRef {
    /// The ConfigMap's namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The ConfigMap's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key in its `data`.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl FromStr for ConfigMapRef {
    type Err = InvalidConfigMapRef;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split('/').collect();
        let (namespace, name, key) = match parts[..] {
            [namespace, name] => (namespace, name, KEY),
            [namespace, name, key] => (namespace, name, key),
            _ => return Err(InvalidConfigMapRef::Form(text.to_owned())),
        };
        if namespace.len() > 63 || !is_label(namespace) {
            return Err(InvalidConfigMapRef::Namespace(namespace.to_owned()));
        }
        if name.len() > 253 || !name.split('.').all(is_label) {
            return Err(InvalidConfigMapRef::Name(name.to_owned()));
        }
        if !is_key(key) {
            return Err(InvalidConfigMapRef::Key(key.to_owned()));
        }
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned(), key: key.to_owned() })
    }
}

impl fmt::Display for ConfigMapRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)?;
        if self.key == KEY { Ok(()) } else { write!(f, "/{}", self.key) }
    }
}

/// A part of a DNS name as RFC 1123 has it, in lower case, of any length: what Kubernetes makes names of.
fn is_label(text: &str) -> bool {
    let is_alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().is_some_and(is_alphanumeric)
        && bytes.last().is_some_and(is_alphanumeric)
        && bytes.iter().all(|byte| is_alphanumeric(byte) || *byte == b'-')
}

/// As `IsConfigMapKey` of apimachinery.
fn is_key(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let length = 1..=253;
    length.contains(&text.len()) && text.bytes().all(is_allowed) && text != "." && !text.starts_with("..")
}

/// What a ConfigMap has to say about the list.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sight {
    Document(String),
    /// No document, for this reason, which names the next step.
    Nothing(String),
}

impl Sight {
    /// What is in `map`, if there is one.
    pub(super) fn of(map: Option<ConfigMap>, source: &ConfigMapRef) -> Self {
        let Some(map) = map else {
            return Self::Nothing("there is no such ConfigMap; create it".to_owned());
        };
        let key = source.key();
        let mut data = map.data.unwrap_or_default();
        if let Some(document) = data.remove(key) {
            return Self::Document(document);
        }
        let binary = map.binary_data.unwrap_or_default();
        Self::Nothing(if binary.contains_key(key) {
            format!("its key {key:?} is under binaryData; put the list under data, as UTF-8 text")
        } else if data.is_empty() {
            format!("it has no key {key:?}; put the list there")
        } else {
            let keys: Vec<&str> = data.keys().take(8).map(String::as_str).collect();
            format!("it has no key {key:?} (it has {}); put the list there", keys.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::ByteString;

    use super::*;

    #[test]
    fn a_reference_reads_and_writes() {
        for text in ["stoker-system/stoker-list", "a/b.c-1.d", "a/b/lists.yml", "a/b/.hidden_Key-1"] {
            assert_eq!(text.parse::<ConfigMapRef>().unwrap().to_string(), text);
        }
        let source: ConfigMapRef = "n/l/list.yaml".parse().unwrap();
        assert_eq!((source.namespace(), source.name(), source.key()), ("n", "l", "list.yaml"));
        assert_eq!(source.to_string(), "n/l");
    }

    #[test]
    fn what_kubernetes_would_refuse_is_refused() {
        type Wrong = fn(String) -> InvalidConfigMapRef;
        let cases: [(&str, Wrong); 4] = [
            (" a a/b/c/d ", InvalidConfigMapRef::Form),
            ("/l A/l n.s/l -n/l n-/l", InvalidConfigMapRef::Namespace),
            ("n/ n/L n/a..b n/a.-b n/a_b n/-a", InvalidConfigMapRef::Name),
            ("n/l/ n/l/. n/l/..data n/l/a:b", InvalidConfigMapRef::Key),
        ];
        for (texts, wrong) in cases {
            for text in texts.split(' ') {
                let error = text.parse::<ConfigMapRef>().unwrap_err();
                let same = std::mem::discriminant(&error) == std::mem::discriminant(&wrong(String::new()));
                assert!(same, "{text:?}: {error}");
            }
        }
        for (text, fits) in [("a".repeat(63), true), ("a".repeat(64), false)] {
            assert_eq!(format!("{text}/l").parse::<ConfigMapRef>().is_ok(), fits);
        }
        for (text, fits) in [("a".repeat(253), true), ("a".repeat(254), false)] {
            assert_eq!(format!("n/{text}").parse::<ConfigMapRef>().is_ok(), fits);
            assert_eq!(format!("n/l/{text}").parse::<ConfigMapRef>().is_ok(), fits);
        }
    }

    #[test]
    fn what_a_config_map_lacks_is_said() {
        let source: ConfigMapRef = "n/l".parse().unwrap();
        let map = |data: &[(&str, &str)], binary: &[&str]| {
            let data = data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            let binary = binary.iter().map(|key| ((*key).to_owned(), ByteString(Vec::new())));
            Some(ConfigMap {
                data: Some(data.collect()).filter(|data: &BTreeMap<_, _>| !data.is_empty()),
                binary_data: Some(binary.collect()),
                ..ConfigMap::default()
            })
        };
        let reason = |map| match Sight::of(map, &source) {
            Sight::Nothing(reason) => reason,
            Sight::Document(text) => panic!("{text}"),
        };
        assert_eq!(Sight::of(map(&[("list.yaml", "x")], &[]), &source), Sight::Document("x".to_owned()));
        assert_eq!(Sight::of(map(&[("list.yaml", "")], &[]), &source), Sight::Document(String::new()));
        assert!(reason(None).contains("create it"));
        assert!(reason(map(&[], &[])).contains("no key \"list.yaml\"; put"));
        assert!(reason(map(&[("a", ""), ("b", "")], &[])).contains("it has a, b"));
        assert!(reason(map(&[], &["list.yaml"])).contains("put the list under data"));
    }
}
