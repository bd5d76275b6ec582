//! A commit's tree, as the Hub's API tells it in pages (`GET /api/models/{repo}/tree/{commit}?recursive=true`). Pure.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use http::HeaderMap;
use http::header::LINK;
use serde::Deserialize;
use url::Url;

use super::HubFile;
use crate::source::index::MOST_FILES;
use crate::types::{Digest, GitOid, RelPath};

/// Bytes that one page may have. The Hub puts 1,000 lines of some hundred bytes on one.
pub(super) const LONGEST_PAGE: usize = 8 << 20;

/// Pages of one tree; as many as hold [`MOST_FILES`], and their directories, ten times over.
const MOST_PAGES: usize = 2000;

/// The characters of a problem that are passed on: the answer may be anybody's.
const LONGEST_PROBLEM: usize = 200;

/// What has been told of a tree so far.
#[derive(Debug, Default)]
pub(super) struct Tree {
    files: BTreeMap<RelPath, HubFile>,
    pages: usize,
    asked: std::collections::BTreeSet<String>,
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    size: Option<u64>,
    oid: Option<String>,
    lfs: Option<Lfs>,
    #[serde(rename = "xetHash")]
    xet: Option<String>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

impl Tree {
    /// Takes a page in. The error says what is wrong with it.
    pub(super) fn add(&mut self, page: &[u8]) -> Result<(), String> {
        self.pages += 1;
        if self.pages > MOST_PAGES {
            return Err(format!("its tree has more than {MOST_PAGES} pages"));
        }
        let lines: Vec<Line> = serde_json::from_slice(page)
            .map_err(|error| shortened(&format!("its tree can't be understood: {error}")))?;
        for line in lines.into_iter().filter(|line| line.kind == "file") {
            let (path, file) = file(line)?;
            if self.files.len() == MOST_FILES {
                return Err(format!("it has more than {MOST_FILES} files"));
            }
            match self.files.entry(path) {
                Entry::Vacant(place) => drop(place.insert(file)),
                Entry::Occupied(taken) => return Err(format!("its tree names {} twice", taken.key())),
            }
        }
        Ok(())
    }

    /// Where the next page is, if the answer's `headers` say that there is one. Only the query of what they say
    /// counts: whatever a server answers, the next request goes to the same place of the same server.
    pub(super) fn next(&mut self, first: &Url, headers: &HeaderMap) -> Result<Option<Url>, String> {
        let links = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
        let Some(target) = links.filter_map(next_link).next() else { return Ok(None) };
        let query = first.join(target).ok().and_then(|url| url.query().map(str::to_owned));
        let query =
            query.filter(|query| query.len() <= 4096).ok_or("the place of its next page can't be read")?;
        let mut next = first.clone();
        next.set_query(Some(&query));
        if next == *first || !self.asked.insert(query) {
            return Err("the pages of its tree go round in a circle".to_owned());
        }
        Ok(Some(next))
    }

    pub(super) fn files(self) -> BTreeMap<RelPath, HubFile> {
        self.files
    }
}

/// The files on one page, for those who try any bytes as one.
pub(crate) fn hub_tree_page(page: &[u8]) -> Result<BTreeMap<RelPath, HubFile>, String> {
    let mut tree = Tree::default();
    tree.add(page)?;
    Ok(tree.files())
}

fn shortened(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(LONGEST_PROBLEM).collect()
}

fn file(line: Line) -> Result<(RelPath, HubFile), String> {
    let path: RelPath =
        line.path.parse().map_err(|error| format!("its tree holds a name that no file can have: {error}"))?;
    let lacks = |what: &str| format!("its tree tells no {what} of {path}");
    let oid: GitOid = line.oid.and_then(|oid| oid.parse().ok()).ok_or_else(|| lacks("git object"))?;
    let size = line.size.ok_or_else(|| lacks("size"))?;
    let lfs = match line.lfs {
        None => None,
        Some(lfs) if lfs.size != size => {
            return Err(format!("its tree tells two sizes of {path}: {size} and {}", lfs.size));
        }
        Some(lfs) => Some(lfs.oid.parse::<Digest>().map_err(|_| lacks("SHA-256"))?),
    };
    let is_hash = |text: &String| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    Ok((path, HubFile { size, oid, lfs, xet: line.xet.filter(is_hash) }))
}

/// The target of the link to the next page (RFC 8288).
fn next_link(value: &str) -> Option<&str> {
    let mut rest = value;
    while let Some((_, after)) = rest.split_once('<') {
        let (target, after) = after.split_once('>')?;
        let (parameters, others) = after.split_at(after.find('<').unwrap_or(after.len()));
        if parameters.split(';').any(is_next) {
            return Some(target);
        }
        rest = others;
    }
    None
}

fn is_next(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else { return false };
    let value = value.trim().trim_end_matches(',').trim().trim_matches('"');
    name.trim().eq_ignore_ascii_case("rel") && value.split_whitespace().any(|word| word == "next")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const OID: &str = "bd9dbf5aae1a3862dd1526723246b20206e5fc37";

    fn read(page: &serde_json::Value) -> Result<BTreeMap<RelPath, HubFile>, String> {
        let mut tree = Tree::default();
        tree.add(page.to_string().as_bytes())?;
        Ok(tree.files())
    }

    fn line(path: &str) -> serde_json::Value {
        json!({"type": "file", "path": path, "size": 3, "oid": OID})
    }

    #[test]
    fn files_are_read_and_directories_passed_over() {
        let (digest, xet) = (Digest::of(b"x"), "0f".repeat(32));
        let files = read(&json!([
            {"type": "directory", "path": "onnx", "size": 0, "oid": "0123"},
            {"type": "file", "path": "config.json", "size": 3, "oid": OID, "extra": 1},
            {"type": "file", "path": "onnx/model", "size": 9, "oid": OID, "xetHash": xet,
             "lfs": {"oid": digest.hex(), "size": 9, "pointerSize": 134}},
        ]))
        .unwrap();
        let oid: GitOid = OID.parse().unwrap();
        let small = HubFile { size: 3, oid, lfs: None, xet: None };
        let large = HubFile { size: 9, oid, lfs: Some(digest), xet: Some(xet) };
        let expected = [("config.json", small), ("onnx/model", large)];
        assert_eq!(files, expected.map(|(path, file)| (path.parse().unwrap(), file)).into());
    }

    #[test]
    fn what_is_wrong_is_said_in_one_line() {
        let mut lie = line("a");
        lie["lfs"] = json!({"oid": Digest::of(b"").hex(), "size": 4});
        let mut short = line("a");
        short["oid"] = json!("0123");
        for (page, word) in [
            (json!({"error": "x"}), "can't be understood"),
            (json!([line("../a")]), "../a"),
            (json!([line("a\nb")]), "no file can have"),
            (json!([line("a"), line("a")]), "twice"),
            (json!([lie]), "two sizes"),
            (json!([short]), "git object"),
            (json!([{"type": "file", "path": "a", "oid": OID}]), "no size"),
            (json!([{"type": "file", "path": "a", "oid": OID, "size": -1}]), "can't be understood"),
            (json!("x".repeat(100_000)), "can't be understood"),
        ] {
            let problem = read(&page).unwrap_err();
            assert!(problem.contains(word) && problem.len() < 400 && !problem.contains('\n'), "{problem}");
        }
    }

    fn link(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(LINK, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn the_next_page_is_always_at_the_same_place() {
        let first = Url::parse("https://hub/api/models/a/b/tree/c?recursive=true").unwrap();
        let mut tree = Tree::default();
        let mut next =
            |value: &str| tree.next(&first, &link(value)).map(|url| url.map(|url| url.to_string()));
        let at = |query: &str| Ok(Some(format!("https://hub/api/models/a/b/tree/c?{query}")));
        assert_eq!(next("<https://hub/api/models/a/b/tree/c?cursor=1>; rel=\"next\""), at("cursor=1"));
        assert_eq!(next("<https://evil/steal?cursor=2>; rel=next"), at("cursor=2"));
        assert_eq!(next("</x?p=0>; rel=\"prev\", <?cursor=3>; title=x; REL=\"last next\""), at("cursor=3"));
        assert_eq!(next("<https://hub/x?cursor=4>; rel=\"prev\""), Ok(None));
        assert!(next("<https://hub/x>; rel=\"next\"").unwrap_err().contains("next page"));
        assert!(next("<?cursor=3>; rel=\"next\"").unwrap_err().contains("circle"));
        assert!(next("<?recursive=true>; rel=\"next\"").unwrap_err().contains("circle"));
        assert_eq!(Tree::default().next(&first, &HeaderMap::new()), Ok(None));
    }

    #[test]
    fn pages_without_an_end_are_ended() {
        let mut tree = Tree::default();
        let ended = (0..=MOST_PAGES).find_map(|_| tree.add(b"[]").err());
        assert!(ended.unwrap().contains("pages"));
    }

    proptest! {
        #[test]
        fn no_answer_panics(page in prop::collection::vec(any::<u8>(), 0..200), value in "[ -~]{0,80}") {
            let first = Url::parse("https://hub/tree?recursive=true").unwrap();
            let mut tree = Tree::default();
            let _ = tree.add(&page);
            if let Ok(Some(next)) = tree.next(&first, &link(&value)) {
                prop_assert_eq!((next.origin(), next.path()), (first.origin(), first.path()));
            }
        }
    }
}
