use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The name of an entry, which becomes the name part of a node label: 1 to 63 characters of
/// `[A-Za-z0-9._-]`, alphanumeric at both ends (Kubernetes, "Labels and Selectors", syntax).
///
/// It is also a directory name in the cache, so it can't be `.` or `..` or hold a `/`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EntryId(Arc<str>);

/// Text that can't be an entry's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an id: {0:?} (use 1 to 63 characters of A-Z a-z 0-9 . _ - with a letter or digit at both ends)")]
pub struct InvalidEntryId(String);

impl EntryId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EntryId {
    type Err = InvalidEntryId;

    fn from_str(text: &str) -> Result<Self, InvalidEntryId> {
        let bytes = text.as_bytes();
        let ends = bytes.first().zip(bytes.last());
        let valid = bytes.len() <= 63
            && ends.is_some_and(|(a, z)| a.is_ascii_alphanumeric() && z.is_ascii_alphanumeric())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(b));
        if valid { Ok(Self(text.into())) } else { Err(InvalidEntryId(text.chars().take(80).collect())) }
    }
}

impl TryFrom<String> for EntryId {
    type Error = InvalidEntryId;

    fn try_from(text: String) -> Result<Self, InvalidEntryId> {
        text.parse()
    }
}

impl From<EntryId> for String {
    fn from(id: EntryId) -> Self {
        id.0.to_string()
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_names_are_ids() {
        for text in ["a", "vllm", "Llama-3.1_70B", &"x".repeat(63)] {
            assert_eq!(text.parse::<EntryId>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn what_a_label_or_a_directory_cannot_be_called_is_refused() {
        for text in ["", ".", "..", "-a", "a-", "a/b", "a b", "ä", &"x".repeat(64), "a\0b"] {
            assert!(text.parse::<EntryId>().is_err(), "{text:?}");
        }
    }
}
