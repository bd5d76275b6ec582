//! The JSON index: which files are behind a URL that says `index: true`.
//!
//! ```json
//! {"files": [
//!   {"path": "model-00001-of-00002.safetensors", "size": 4976698672, "sha256": "…64 hex digits…"},
//!   {"path": "unet/config.json", "size": 1234, "url": "../base/config.json"}
//! ]}
//! ```
//!
//! The list of files may also stand alone, without the object around it. `path` (where the file will be in the tree)
//! and `size` (in bytes) are needed; `sha256` should be there. A file is at `path` beside the index, or at `url`,
//! which is relative to the index's own URL or an absolute one on the same server. Other fields are ignored.

use serde::Deserialize;
use url::Url;

use crate::types::{Digest, RelPath};

/// Bytes that an index may have.
pub(super) const LONGEST: usize = 8 << 20;

/// Files that a set of weights may have.
pub(super) const MOST_FILES: usize = 100_000;

/// One file of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Indexed {
    pub(super) path: RelPath,
    pub(super) size: u64,
    pub(super) digest: Option<Digest>,
    pub(super) url: Url,
}

#[derive(Deserialize)]
struct Document {
    files: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    path: RelPath,
    size: u64,
    #[serde(default)]
    sha256: Option<Digest>,
    #[serde(default)]
    url: Option<String>,
}

/// Reads the index that was found at `base`. The error says what is wrong with it.
pub(super) fn parse(document: &[u8], base: &Url) -> Result<Vec<Indexed>, String> {
    let is_bare = document.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let lines: Result<Vec<Line>, serde_json::Error> = if is_bare {
        serde_json::from_slice(document)
    } else {
        serde_json::from_slice(document).map(|document: Document| document.files)
    };
    let lines = lines.map_err(|error| format!("not an index: {error}"))?;
    if lines.len() > MOST_FILES {
        return Err(format!("it names more than {MOST_FILES} files"));
    }
    lines.into_iter().map(|line| indexed(line, base)).collect()
}

/// Each file of an index at `base`, and where its bytes are: for those who try any bytes as one.
pub(crate) fn index_at(document: &[u8], base: &Url) -> Result<Vec<(RelPath, Url)>, String> {
    let files = parse(document, base)?;
    Ok(files.into_iter().map(|file| (file.path, file.url)).collect())
}

fn indexed(line: Line, base: &Url) -> Result<Indexed, String> {
    let Line { path, size, sha256: digest, url } = line;
    let url = match url {
        Some(url) => named(&url, base).map_err(|problem| format!("the url of {path}: {problem}"))?,
        None => beside(&path, base).ok_or_else(|| "its own URL can't have anything beside it".to_owned())?,
    };
    Ok(Indexed { path, size, digest, url })
}

/// The file at `path` beside the index: its last part is replaced, its query is not passed on.
fn beside(path: &RelPath, base: &Url) -> Option<Url> {
    let mut url = base.clone();
    url.set_query(None);
    url.path_segments_mut().ok()?.pop().extend(path.as_str().split('/'));
    Some(url)
}

/// A URL that the index names. Only on its own server: whoever writes an index can't send this node elsewhere, nor
/// the credentials.
fn named(url: &str, base: &Url) -> Result<Url, String> {
    let mut url = base.join(url).map_err(|error| error.to_string())?;
    if url.origin() != base.origin() || !url.origin().is_tuple() {
        return Err("it's on another server than the index".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it holds a user name or a password".to_owned());
    }
    url.set_fragment(None);
    if url == *base {
        return Err("it's the index itself".to_owned());
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn base() -> Url {
        Url::parse("https://host:8443/models/llama/index.json?sig=abc").unwrap()
    }

    fn urls(document: &str) -> Result<Vec<String>, String> {
        let files = parse(document.as_bytes(), &base())?;
        Ok(files.into_iter().map(|file| file.url.to_string()).collect())
    }

    #[test]
    fn both_shapes_are_read() {
        let hex = Digest::of(b"x").hex();
        let line = format!(r#"{{"path":"a/b.bin","size":3,"sha256":"{hex}","etag":"whatever"}}"#);
        let expected = Indexed {
            path: "a/b.bin".parse().unwrap(),
            size: 3,
            digest: Some(Digest::of(b"x")),
            url: Url::parse("https://host:8443/models/llama/a/b.bin").unwrap(),
        };
        for document in [format!(r#" {{"files":[{line}]}}"#), format!("\n[{line}]")] {
            assert_eq!(parse(document.as_bytes(), &base()), Ok(vec![expected.clone()]));
        }
    }

    #[test]
    fn every_path_becomes_one_url() {
        let found = urls(r#"[{"path":"a b/50%#?ü.bin","size":1},{"path":"%2e%2e/x","size":1}]"#).unwrap();
        assert_eq!(found[0], "https://host:8443/models/llama/a%20b/50%25%23%3F%C3%BC.bin");
        assert_eq!(found[1], "https://host:8443/models/llama/%252e%252e/x");
    }

    #[test]
    fn urls_stay_on_the_server() {
        let at = |url: &str| urls(&format!(r#"[{{"path":"x","size":1,"url":"{url}"}}]"#));
        assert_eq!(at("../blobs/1?v=2#f").unwrap(), ["https://host:8443/models/blobs/1?v=2"]);
        assert_eq!(at("https://host:8443/b").unwrap(), ["https://host:8443/b"]);
        for url in [
            "https://other/b",
            "https://host/b",
            "http://host:8443/b",
            "//other/b",
            "https://u:p@host:8443/b",
            "file:///etc/passwd",
            "data:,x",
            "",
            "#x",
        ] {
            assert!(at(url).is_err(), "{url}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (document, word) in [
            ("", "not an index"),
            ("<html>", "not an index"),
            (r#"{"file":[]}"#, "files"),
            (r#"[{"size":1}]"#, "path"),
            (r#"[{"path":"../x","size":1}]"#, "../x"),
            (r#"[{"path":"x","size":-1}]"#, "-1"),
            (r#"[{"path":"x","size":1,"sha256":"abc"}]"#, "abc"),
        ] {
            let error = urls(document).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes, &base());
        }

        #[test]
        fn every_file_stays_on_the_server(path in "\\PC{0,20}", url in "(https?:)?/{0,3}\\PC{0,20}") {
            let document = serde_json::json!([{"path": path, "size": 1}, {"path": "x", "size": 1, "url": url}]);
            let both = parse(document.to_string().as_bytes(), &base()).unwrap_or_default();
            for file in both {
                prop_assert_eq!(file.url.origin(), base().origin());
            }
        }
    }
}
