use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A path below some root that can't leave it: `/` between parts, no empty part, no `.` or `..`, no control
/// character, each part at most 255 bytes, 1024 in all. Names in an index or a listing become file names
/// only through this type.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RelPath(Arc<str>);

/// A path that a cache won't hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a safe relative path: {0:?}")]
pub struct InvalidRelPath(String);

impl RelPath {
    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path for the file system, still relative.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(&*self.0)
    }
}

impl FromStr for RelPath {
    type Err = InvalidRelPath;

    fn from_str(text: &str) -> Result<Self, InvalidRelPath> {
        let part_is_safe =
            |part: &str| !matches!(part, "" | "." | "..") && part.len() <= 255 && !part.contains('\\');
        let valid =
            text.len() <= 1024 && text.split('/').all(part_is_safe) && !text.chars().any(char::is_control);
        if valid { Ok(Self(text.into())) } else { Err(InvalidRelPath(text.chars().take(100).collect())) }
    }
}

impl TryFrom<String> for RelPath {
    type Error = InvalidRelPath;

    fn try_from(text: String) -> Result<Self, InvalidRelPath> {
        text.parse()
    }
}

impl From<RelPath> for String {
    fn from(path: RelPath) -> Self {
        path.0.to_string()
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_pass() {
        for text in ["model.safetensors", "unet/model-00001-of-00002.safetensors", ".gitattributes", "a/...b"]
        {
            assert_eq!(text.parse::<RelPath>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn what_could_leave_the_root_or_split_a_line_is_refused() {
        let long = "x".repeat(256);
        for text in [
            "",
            "/",
            "/etc/passwd",
            "..",
            "a/../b",
            "./a",
            "a//b",
            "a/",
            "a\0b",
            "a\nb",
            "a\tb",
            "a\\b",
            &long,
        ] {
            assert!(text.parse::<RelPath>().is_err(), "{text:?}");
        }
    }
}
