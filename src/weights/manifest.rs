use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::error::{CacheError, OpError};
use super::hub::HubPlace;
use super::ops::Dir;
use super::{layout, small_file};
use crate::types::{Digest, EntryId, RelPath, Revision};

const FORMAT: u32 = 1;
/// A manifest of a million files would be smaller.
const CAP: u64 = 512 << 20;

/// What a revision consists of, and for which entries it was fetched from where. The first part is what the
/// revision's hash is over; the second may differ from entry to entry, since one set of bytes can come from
/// several places.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Manifest {
    format: u32,
    pub(super) files: BTreeMap<RelPath, Content>,
    pub(super) entries: BTreeMap<EntryId, Request>,
}

/// The bytes of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Content {
    pub(super) size: u64,
    pub(super) sha256: Digest,
}

/// How one entry came by them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Request {
    /// Of what the list asked for.
    pub(super) fingerprint: Digest,
    /// For people; never with a signature.
    pub(super) source: String,
    pub(super) created: Timestamp,
    /// Where it is in `hub/`, if it came from a Hub.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) hub: Option<HubPlace>,
    pub(super) files: BTreeMap<RelPath, Provenance>,
}

/// What is known of one file's origin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Provenance {
    /// Whether its digest was compared with a published one; false: recorded only.
    pub(super) verified: bool,
    /// The source's own name for the version (etag, generation, commit).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) version: Option<String>,
}

/// A manifest as it's written, behind its revision and its size in words.
type Written = (String, Vec<u8>);

/// A manifest of these bytes, written anew, and once more from that, which should be the same: for those who try any
/// bytes as one. The error says why it isn't one.
pub(crate) fn manifest_again(bytes: &[u8]) -> Result<(Written, Result<Written, String>), String> {
    let written = |manifest: Manifest| {
        let bytes = serde_json::to_vec(&manifest).map_err(|error| error.to_string())?;
        Ok((format!("{} of {} bytes", manifest.revision(), manifest.bytes()), bytes))
    };
    let first = Manifest::decode(bytes).and_then(written)?;
    let again = Manifest::decode(&first.1).and_then(written);
    Ok((first, again))
}

impl Request {
    /// Whether every file was compared with a published digest.
    pub(super) fn verified(&self) -> bool {
        self.files.values().all(|file| file.verified)
    }
}

impl Manifest {
    /// For files that no entry has asked for yet.
    pub(super) fn new(files: BTreeMap<RelPath, Content>) -> Self {
        Self { format: FORMAT, files, entries: BTreeMap::new() }
    }

    pub(super) fn revision(&self) -> Revision {
        Revision::of_weights(self.files.iter().map(|(path, content)| (path, content.size, content.sha256)))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.files.values().map(|content| content.size).fold(0, u64::saturating_add)
    }

    /// The error says what is wrong with it.
    fn decode(bytes: &[u8]) -> Result<Self, String> {
        match serde_json::from_slice::<Self>(bytes) {
            Ok(manifest) if manifest.format != FORMAT => {
                Err(format!("format {} is not known", manifest.format))
            }
            Ok(manifest) => Ok(manifest),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The manifest of a revision, or `None` where there is none that can be trusted (a log line says why).
    pub(super) fn read(root: &Dir, revision: Revision) -> Result<Option<Self>, OpError> {
        let name = layout::manifest(revision);
        let Some(dir) = root.find(layout::REVISIONS)? else { return Ok(None) };
        let Some(bytes) = dir.read_file(&name, CAP)? else { return Ok(None) };
        let problem = match Self::decode(&bytes) {
            Ok(manifest) if manifest.revision() != revision => {
                "its files are those of another revision".to_owned()
            }
            Ok(manifest) => return Ok(Some(manifest)),
            Err(problem) => problem,
        };
        tracing::warn!(%revision, problem, "a manifest is not used");
        Ok(None)
    }

    /// Writes it where it belongs, in place of an older one, durably.
    pub(super) fn write(&self, root: &Dir, staging: &Dir, staged: &str) -> Result<(), CacheError> {
        let dir = root.open(layout::REVISIONS)?;
        let name = layout::manifest(self.revision());
        let path = dir.path().join(&name);
        let bytes = serde_json::to_vec_pretty(self).map_err(|cause| CacheError::Manifest { path, cause })?;
        Ok(small_file::put(&dir, &name, &bytes, staging, staged)?)
    }

    /// All revisions that have a manifest, by name alone.
    pub(super) fn revisions(root: &Dir) -> Result<Vec<Revision>, OpError> {
        let Some(dir) = root.find(layout::REVISIONS)? else { return Ok(Vec::new()) };
        let names = dir.list()?;
        Ok(names.iter().filter_map(|name| layout::revision_of_manifest(name.to_str()?)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let path: RelPath = "a/b".parse().unwrap();
        let content = Content { size: 3, sha256: Digest::of(b"abc") };
        let mut manifest = Manifest::new(BTreeMap::from([(path.clone(), content)]));
        let provenance = Provenance { verified: false, version: Some("\"e1\"".to_owned()) };
        manifest.entries.insert(
            "llama".parse().unwrap(),
            Request {
                fingerprint: Digest::of(b"request"),
                source: "s3://bucket/a/".to_owned(),
                created: "2026-11-24T12:00:00Z".parse().unwrap(),
                hub: None,
                files: BTreeMap::from([(path, provenance)]),
            },
        );
        manifest
    }

    fn cache() -> (tempfile::TempDir, Dir) {
        let home = tempfile::tempdir().unwrap();
        let root = Dir::open_root(home.path()).unwrap();
        root.make(layout::REVISIONS, 0o755).unwrap();
        root.make(layout::STAGING, 0o755).unwrap();
        (home, root)
    }

    #[test]
    fn what_is_written_is_read_again() {
        let (_home, root) = cache();
        let manifest = manifest();
        manifest.write(&root, &root.open(layout::STAGING).unwrap(), "1").unwrap();
        assert_eq!(Manifest::read(&root, manifest.revision()).unwrap(), Some(manifest.clone()));
        assert_eq!(Manifest::revisions(&root).unwrap(), [manifest.revision()]);
        assert!(root.open(layout::STAGING).unwrap().list().unwrap().is_empty());
    }

    #[test]
    fn the_format_is_fixed() {
        insta::assert_json_snapshot!(manifest(), @r#"
        {
          "format": 1,
          "files": {
            "a/b": {
              "size": 3,
              "sha256": "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
            }
          },
          "entries": {
            "llama": {
              "fingerprint": "sha256:1f58b9145b24d108d7ac38887338b3ea3229833b9c1e418250343f907bfd1047",
              "source": "s3://bucket/a/",
              "created": "2026-11-24T12:00:00Z",
              "files": {
                "a/b": {
                  "verified": false,
                  "version": "\"e1\""
                }
              }
            }
          }
        }
        "#);
    }

    #[test]
    fn a_torn_foreign_or_newer_manifest_is_not_used() {
        let (home, root) = cache();
        let manifest = manifest();
        let path = home.path().join(layout::REVISIONS).join(layout::manifest(manifest.revision()));
        let whole = serde_json::to_string(&manifest).unwrap();
        let texts = [
            whole[..whole.len() / 2].to_owned(),
            String::new(),
            whole.replace("\"format\":1", "\"format\":2"),
            whole.replace("\"size\":3", "\"size\":4"),
            whole.replace("a/b", "../b"),
        ];
        for text in texts {
            std::fs::write(&path, &text).unwrap();
            assert_eq!(Manifest::read(&root, manifest.revision()).unwrap(), None, "{text}");
        }
        std::fs::write(&path, whole).unwrap();
        assert!(Manifest::read(&root, manifest.revision()).unwrap().is_some());
    }
}
