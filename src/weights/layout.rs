//! Where everything in the cache lies. Pure: names in, paths out, all relative to the cache's root.
//!
//! ```text
//! <cache>/
//!   v1/lock                           held (flock) by the one agent that may write; names its pid
//!   v1/blobs/sha256/ab/abcdef…        content, 0444: a file is here only after its digest was right and it was fsynced
//!   v1/revisions/<64 hex>.json        manifest: path → size, sha256; per entry: request, verified, the source's version
//!   v1/partial/<64 hex>/data          a file that is being fetched
//!   v1/partial/<64 hex>/journal       which of its ranges are on the disk; without one, it's swept when it's opened
//!   v1/partial/<id>.found             digests that no source publishes, of files whose set isn't whole yet
//!   v1/scrub.json                     how far the re-reading of all blobs has come
//!   v1/staging/<n>                    trees, manifests and links on their way in or out; swept when it's opened
//!   weights/<id>/<12 hex>/…           one revision: hard links to blobs, in directories of 0755
//!   weights/<id>/current              relative link to `<12 hex>`, switched by rename
//!   hub/models--org--name/            entries of hf:// again, as the Hub's own clients keep them (HF_HUB_CACHE):
//!     snapshots/<commit>/…            hard links to blobs; of one commit, the files of all entries that have it
//!     trees/<commit>.json             all files that the commit has, with their sizes
//!     refs/<revision>                 the commit; written last, removed first
//!     .stoker                         the mark without which the directory isn't ours
//! ```
//!
//! Pods see `weights/` and `hub/` only, and nothing is ever written there in place: trees and links arrive by rename.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::types::{Digest, EntryId, GitOid, HubRepo, PartDigests, RelPath, Revision};

pub(super) const V1: &str = "v1";
pub(super) const LOCK: &str = "lock";
/// In [`V1`].
pub(super) const SCRUB: &str = "scrub.json";
pub(super) const ALL_BLOBS: &str = "v1/blobs";
pub(super) const BLOBS: &str = "v1/blobs/sha256";
pub(super) const REVISIONS: &str = "v1/revisions";
pub(super) const PARTIAL: &str = "v1/partial";
pub(super) const STAGING: &str = "v1/staging";
pub(super) const WEIGHTS: &str = "weights";
/// The same bytes as other clients look for them.
pub(super) const HUB: &str = "hub";
pub(super) const CURRENT: &str = "current";
/// The file's name in a partial's directory.
pub(super) const DATA: &str = "data";
/// What a file of an entry's found digests ends with.
pub(super) const FOUND: &str = ".found";
/// Its journal's.
pub(super) const JOURNAL: &str = "journal";

/// Mode of what pods may look at.
pub(super) const PUBLIC_DIR: u32 = 0o755;
/// Mode of what only the agent looks at.
pub(super) const PRIVATE_DIR: u32 = 0o700;
/// Mode of a blob: everyone reads, nobody writes.
pub(super) const BLOB: u32 = 0o444;
/// Mode of a blob whose bytes were found to be wrong: it doesn't look right any more, also after a restart. Who reads it
/// still can; it's put aside when its label is gone.
pub(super) const SUSPECT: u32 = 0o1444;

/// The directory that a blob's name is in, and the name.
pub(super) fn blob(digest: Digest) -> (PathBuf, String) {
    let name = digest.hex();
    let fan = name.get(..2).unwrap_or("00").to_owned();
    (Path::new(BLOBS).join(fan), name)
}

/// The digest that the file `name` in the directory `fan` of [`BLOBS`] is named after.
pub(super) fn digest_of_blob(fan: &OsStr, name: &str) -> Option<Digest> {
    (is_lower_hex(name, 64) && fan.to_str() == name.get(..2)).then(|| name.parse().ok()).flatten()
}

/// A manifest's name in [`REVISIONS`].
pub(super) fn manifest(revision: Revision) -> String {
    format!("{}.json", revision.hex())
}

/// The revision that a name in [`REVISIONS`] belongs to.
pub(super) fn revision_of_manifest(name: &str) -> Option<Revision> {
    let hex = name.strip_suffix(".json").filter(|hex| is_lower_hex(hex, 64))?;
    serde_json::from_value(serde_json::Value::String(hex.to_owned())).ok()
}

/// The name, among the partials, of the digests that were found for an entry.
pub(super) fn found(id: &EntryId) -> String {
    format!("{id}{FOUND}")
}

/// The directory of everything that an entry shows to pods.
pub(super) fn entry(id: &EntryId) -> PathBuf {
    Path::new(WEIGHTS).join(id.as_str())
}

/// The directory of a Hub's repository.
pub(super) fn hub_repository(repo: &HubRepo) -> PathBuf {
    Path::new(HUB).join(repo.folder())
}

/// Whether this is how a tree under an entry is called: 12 hex digits.
pub(super) fn is_tree_name(name: &str) -> bool {
    is_lower_hex(name, 12)
}

fn is_lower_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Names one file to be fetched: the same bytes get the same key, whichever entry wants them, where that can be
/// known beforehand. It names the partial, and it is what two entries that want one file wait for each other on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PartialKey(String);

impl PartialKey {
    /// For a file whose digest is published.
    pub(super) fn of_digest(digest: Digest) -> Self {
        Self(digest.hex())
    }

    /// For a file of which git's name for its bytes is published.
    pub(super) fn of_git(oid: GitOid) -> Self {
        Self(Digest::of(format!("git\n{oid}").as_bytes()).hex())
    }

    /// For a file of which the digests of its parts are published.
    pub(super) fn of_parts(parts: &PartDigests) -> Self {
        Self(Digest::of(format!("parts\n{}\n{}", parts.size(), parts.composite()).as_bytes()).hex())
    }

    /// For a file without one: what was asked for, and the version that the source named.
    pub(super) fn of_request(fingerprint: Digest, path: &RelPath, size: u64, version: Option<&str>) -> Self {
        let version = version.map_or_else(String::new, |version| format!("={version}"));
        let text = format!("{}\n{path}\n{size}\n{version}", fingerprint.hex());
        Self(Digest::of(text.as_bytes()).hex())
    }

    /// The key that is called `text`.
    pub(super) fn read(text: &str) -> Option<Self> {
        is_lower_hex(text, 64).then(|| Self(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_lies_in_the_directory_of_its_first_two_digits() {
        let digest = Digest::of(b"x");
        let (dir, name) = blob(digest);
        assert_eq!(dir, Path::new("v1/blobs/sha256").join(&digest.hex()[..2]));
        assert_eq!(name, digest.hex());
        let of = |fan: &str, name: &str| digest_of_blob(OsStr::new(fan), name);
        assert_eq!(of(&name[..2], &name), Some(digest));
        for (fan, name) in [("zz", &*name), (&name[..2], &name[..63]), (&name[..2], &name.to_uppercase())] {
            assert_eq!(of(fan, name), None, "{fan}/{name}");
        }
    }

    #[test]
    fn a_manifest_name_gives_its_revision_back() {
        let revision = Revision::of_weights([(&"a".parse().unwrap(), 1, Digest::of(b"a"))]);
        assert_eq!(revision_of_manifest(&manifest(revision)), Some(revision));
        for name in ["", ".json", "x.json", &revision.hex(), &manifest(revision).to_uppercase()] {
            assert_eq!(revision_of_manifest(name), None, "{name}");
        }
    }

    #[test]
    fn only_twelve_hex_digits_are_a_tree() {
        assert!(is_tree_name("0123456789ab"));
        for name in ["current", "0123456789a", "0123456789abc", "0123456789AB", "../../etc/pa"] {
            assert!(!is_tree_name(name), "{name}");
        }
    }

    #[test]
    fn another_version_is_another_partial() {
        let (print, path) = (Digest::of(b"request"), "a".parse().unwrap());
        let key = |version| PartialKey::of_request(print, &path, 5, version);
        assert_eq!(key(Some("e1")), key(Some("e1")));
        assert_ne!(key(Some("e1")), key(Some("e2")));
        assert_ne!(key(Some("")), key(None));
    }
}
