use std::collections::BTreeMap;

use serde::Serialize;

use crate::source::HubCommit;
use crate::types::{Digest, GitOid, RelPath};

/// The version that huggingface_hub reads (`_tree_cache.py`); it passes over a file of any other.
const FORMAT: u32 = 1;

#[derive(Serialize)]
struct TreeFile<'a> {
    format_version: u32,
    files: BTreeMap<&'a RelPath, Line<'a>>,
}

#[derive(Serialize)]
struct Line<'a> {
    size: u64,
    blob_id: GitOid,
    #[serde(skip_serializing_if = "Option::is_none")]
    lfs_sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lfs_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    xet_hash: Option<&'a str>,
}

/// The bytes of `trees/<commit>.json`: all files of the commit, also those that nobody here wants.
pub(super) fn bytes(commit: &HubCommit) -> Result<Vec<u8>, serde_json::Error> {
    let files = commit.tree.iter().map(|(path, file)| {
        let line = Line {
            size: file.size,
            blob_id: file.oid,
            lfs_sha256: file.lfs.as_ref().map(Digest::hex),
            lfs_size: file.lfs.map(|_| file.size),
            xet_hash: file.xet.as_deref(),
        };
        (path, line)
    });
    serde_json::to_vec(&TreeFile { format_version: FORMAT, files: files.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::HubFile;

    #[test]
    fn the_format_is_the_clients() {
        let oid: GitOid = "bd9dbf5aae1a3862dd1526723246b20206e5fc37".parse().unwrap();
        let small = HubFile { size: 16, oid, lfs: None, xet: None };
        let large = HubFile { size: 9, oid, lfs: Some(Digest::of(b"x")), xet: Some("0f".repeat(32)) };
        let commit = HubCommit {
            repo: "a/b".parse().unwrap(),
            revision: "main".parse().unwrap(),
            commit: oid,
            tree: [("config.json", small), ("model", large)]
                .map(|(path, file)| (path.parse().unwrap(), file))
                .into(),
        };
        let json: serde_json::Value = serde_json::from_slice(&bytes(&commit).unwrap()).unwrap();
        insta::assert_json_snapshot!(json, @r#"
        {
          "files": {
            "config.json": {
              "blob_id": "bd9dbf5aae1a3862dd1526723246b20206e5fc37",
              "size": 16
            },
            "model": {
              "blob_id": "bd9dbf5aae1a3862dd1526723246b20206e5fc37",
              "lfs_sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881",
              "lfs_size": 9,
              "size": 9,
              "xet_hash": "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f"
            }
          },
          "format_version": 1
        }
        "#);
    }
}
