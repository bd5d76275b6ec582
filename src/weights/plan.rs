//! What is to be done with the files that a source lists. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use super::cache::Earlier;
use super::error::WeightsError;
use super::hub::HubPlace;
use super::journal::Origin;
use super::layout::PartialKey;
use super::manifest::{Content, Provenance, Request};
use super::tree::Files;
use crate::list::WeightsGoods;
use crate::source::{HubCommit, RangeSource, RemoteFile};
use crate::types::{Digest, EntryId, Published, RelPath};

/// One file of an entry.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) path: RelPath,
    pub(super) size: u64,
    pub(super) version: Option<String>,
    /// What the source or the list says its bytes are.
    pub(super) published: Option<Published>,
    /// The digest that its bytes have: as published, or as recorded when the same version was fetched before.
    pub(super) known: Option<Digest>,
    /// Whether `known` was found in bytes that were compared with what the source then said of the same version.
    pub(super) was_proved: bool,
    pub(super) key: PartialKey,
    pub(super) bytes: Arc<dyn RangeSource>,
}

impl Wanted {
    /// The digest that arriving bytes must have. A recorded one binds only while the source itself says that the
    /// version is the same; by the length alone nobody can say that.
    pub(super) fn expected(&self) -> Option<Digest> {
        let published = self.published.as_ref().and_then(Published::sha256);
        published.or(self.known.filter(|_| self.version.is_some()))
    }

    /// What arriving bytes must be compared with beside [`expected`](Self::expected).
    pub(super) fn other(&self) -> Option<&Published> {
        self.published.as_ref().filter(|published| published.sha256().is_none())
    }

    /// Whether somebody says, or has said with the bytes, what they are in a way that proves them. Only files that were
    /// compared are shown.
    pub(super) fn is_verified(&self) -> bool {
        self.was_proved || self.told().is_some_and(|published| published.proves())
    }

    /// What is published of its bytes, and where nobody said it in advance, what came with them.
    pub(super) fn told(&self) -> Option<Published> {
        self.published.clone().or_else(|| self.bytes.told())
    }

    /// Whether its SHA-256 is found out here, and holds for its version.
    pub(super) fn is_to_be_found(&self) -> bool {
        self.published.as_ref().and_then(Published::sha256).is_none() && self.version.is_some()
    }

    /// What a journal says it is of; `None` where nothing would tell two versions of it apart, so that nobody can go
    /// on with it.
    pub(super) fn origin(&self, owner: Option<&EntryId>) -> Option<Origin> {
        (self.is_verified() || self.version.is_some()).then(|| Origin {
            key: self.key.clone(),
            size: self.size,
            version: self.version.clone(),
            owner: owner.cloned(),
        })
    }
}

/// Looks the listing over and adds what was recorded earlier.
///
/// A recorded digest stands for a file whose source publishes none as long as its size and version are those of then.
/// Where the source names no version either, its size is all there is to go by.
///
/// # Errors
/// When the files can't all be in one directory, or one has no published digest and `verified_only` is set.
pub(super) fn plan(
    files: Vec<RemoteFile>,
    fingerprint: Digest,
    earlier: Option<&Earlier>,
    verified_only: bool,
) -> Result<Vec<Wanted>, WeightsError> {
    refuse_conflicts(files.iter().map(|file| &file.path))?;
    files
        .into_iter()
        .map(|file| {
            let recorded = earlier.and_then(|earlier| recorded(earlier, &file));
            let was_proved = recorded.is_some_and(|recorded| recorded.was_proved);
            if verified_only && !was_proved && !file.digest.as_ref().is_some_and(Published::proves) {
                return Err(WeightsError::Unverified { path: file.path });
            }
            let sha256 = file.digest.as_ref().and_then(Published::sha256);
            let known = sha256.or(recorded.map(|recorded| recorded.sha256));
            let key = key(&file, fingerprint);
            let RemoteFile { path, size, version, digest: published, bytes } = file;
            Ok(Wanted { path, size, version, published, known, was_proved, key, bytes })
        })
        .collect()
}

/// What the bytes of a file are known by until their SHA-256 is.
pub(super) fn key(file: &RemoteFile, fingerprint: Digest) -> PartialKey {
    match &file.digest {
        Some(Published::Sha256(digest)) => PartialKey::of_digest(*digest),
        Some(Published::Git(oid)) => PartialKey::of_git(*oid),
        Some(Published::Parts(parts)) => PartialKey::of_parts(parts),
        Some(Published::Crc(_)) | None => {
            PartialKey::of_request(fingerprint, &file.path, file.size, file.version.as_deref())
        }
    }
}

/// Whether an earlier run has compared this version of a file with what its source said, which needn't say it again.
pub(super) fn was_proved(earlier: Option<&Earlier>, file: &RemoteFile) -> bool {
    earlier.and_then(|earlier| recorded(earlier, file)).is_some_and(|recorded| recorded.was_proved)
}

#[derive(Debug, Clone, Copy)]
struct Recorded {
    sha256: Digest,
    was_proved: bool,
}

fn recorded(earlier: &Earlier, file: &RemoteFile) -> Option<Recorded> {
    let content = earlier.files.get(&file.path)?;
    let provenance = earlier.request.files.get(&file.path)?;
    // What is published now may not have been then: bytes that were never compared with it are fetched again.
    let was_compared = provenance.verified || !file.digest.as_ref().is_some_and(Published::proves);
    let is_same = content.size == file.size && provenance.version == file.version;
    // It holds for a version that a source names, and that would say the same again.
    let was_proved = provenance.verified && file.version.is_some() && file.bytes.may_tell();
    (was_compared && is_same).then_some(Recorded { sha256: content.sha256, was_proved })
}

fn refuse_conflicts<'a>(paths: impl Iterator<Item = &'a RelPath>) -> Result<(), WeightsError> {
    let mut files = BTreeSet::<&Path>::new();
    for path in paths {
        if !files.insert(path.as_path()) {
            return Err(WeightsError::Invalid { problem: format!("the source lists {path} twice") });
        }
    }
    if files.is_empty() {
        return Err(WeightsError::Invalid { problem: "the source lists no file that is wanted".to_owned() });
    }
    let inside = |path: &&Path| path.ancestors().skip(1).any(|parent| files.contains(parent));
    match files.iter().copied().find(inside) {
        Some(path) => Err(WeightsError::Invalid {
            problem: format!("the source lists {} and something that is a file above it", path.display()),
        }),
        None => Ok(()),
    }
}

/// The same, with the digests that an earlier run found and nothing else has kept.
pub(super) fn recall(wanted: &mut [Wanted], found: &HashMap<PartialKey, Digest>) {
    for file in wanted.iter_mut().filter(|file| file.is_to_be_found()) {
        file.known = file.known.or_else(|| found.get(&file.key).copied());
    }
}

/// The files of the finished set; `digests` has one for each of `wanted`.
pub(super) fn contents(wanted: &[Wanted], digests: &BTreeMap<RelPath, Digest>) -> Files {
    wanted
        .iter()
        .filter_map(|file| {
            let sha256 = *digests.get(&file.path)?;
            Some((file.path.clone(), Content { size: file.size, sha256 }))
        })
        .collect()
}

/// What the manifest keeps of this request.
pub(super) fn request(
    goods: &WeightsGoods,
    wanted: &[Wanted],
    commit: Option<&HubCommit>,
    created: Timestamp,
) -> Request {
    let files = wanted.iter().map(|file| {
        let provenance = Provenance { verified: file.is_verified(), version: file.version.clone() };
        (file.path.clone(), provenance)
    });
    Request {
        fingerprint: goods.fingerprint(),
        source: goods.uri.to_string(),
        created,
        hub: commit.map(HubPlace::of),
        files: files.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::MemorySource;

    fn remote(path: &str, size: u64, version: Option<&str>, digest: Option<Digest>) -> RemoteFile {
        RemoteFile {
            path: path.parse().unwrap(),
            size,
            version: version.map(str::to_owned),
            digest: digest.map(Published::Sha256),
            bytes: Arc::new(MemorySource::new(Vec::new())),
        }
    }

    fn earlier(version: Option<&str>) -> Earlier {
        let path: RelPath = "a".parse().unwrap();
        let content = Content { size: 3, sha256: Digest::of(b"abc") };
        let provenance = Provenance { verified: false, version: version.map(str::to_owned) };
        Earlier {
            files: BTreeMap::from([(path.clone(), content)]),
            request: Request {
                fingerprint: Digest::of(b"request"),
                source: String::new(),
                created: Timestamp::UNIX_EPOCH,
                hub: None,
                files: BTreeMap::from([(path, provenance)]),
            },
        }
    }

    fn known(file: RemoteFile, earlier: &Earlier) -> Option<Digest> {
        plan(vec![file], Digest::of(b"request"), Some(earlier), false).unwrap()[0].known
    }

    #[test]
    fn a_recorded_digest_holds_for_the_same_version_only() {
        let recorded = Some(Digest::of(b"abc"));
        assert_eq!(known(remote("a", 3, Some("e1"), None), &earlier(Some("e1"))), recorded);
        assert_eq!(known(remote("a", 3, None, None), &earlier(None)), recorded);
        assert_eq!(known(remote("a", 3, Some("e2"), None), &earlier(Some("e1"))), None);
        assert_eq!(known(remote("a", 3, None, None), &earlier(Some("e1"))), None);
        assert_eq!(known(remote("a", 4, Some("e1"), None), &earlier(Some("e1"))), None);
        assert_eq!(known(remote("b", 3, Some("e1"), None), &earlier(Some("e1"))), None);
    }

    #[test]
    fn a_published_digest_wins_over_a_recorded_one() {
        let published = Some(Digest::of(b"new"));
        assert_eq!(known(remote("a", 3, Some("e1"), published), &earlier(Some("e1"))), published);
    }

    #[test]
    fn files_that_cannot_lie_side_by_side_are_refused() {
        let listing = |paths: &[&str]| {
            let files = paths.iter().map(|path| remote(path, 0, None, None)).collect();
            plan(files, Digest::of(b""), None, false).map(|_| ())
        };
        assert!(listing(&["a", "b/c", "b.c", "b/d"]).is_ok());
        for paths in [&["a", "a"][..], &["a", "a/b"], &["a/b/c", "a"], &[]] {
            assert!(matches!(listing(paths), Err(WeightsError::Invalid { .. })), "{paths:?}");
        }
    }

    #[test]
    fn verified_only_names_the_file_without_a_digest() {
        let files = vec![remote("a", 0, None, Some(Digest::of(b""))), remote("b", 0, Some("e"), None)];
        let error = plan(files, Digest::of(b""), None, true).unwrap_err();
        assert!(matches!(error, WeightsError::Unverified { path } if path.as_str() == "b"));
    }
}
