use std::sync::Arc;

use super::names::fits_a_url;
use super::object::CloudObject;
use super::store::{Seen, Store};
use super::wire::Wire;
use crate::source::index::MOST_FILES;
use crate::source::selection::Selection;
use crate::source::{RemoteFile, SourceError};
use crate::types::RelPath;

/// Pages of one listing. A thousand objects are on a full one, but a store may send emptier ones.
const MOST_PAGES: usize = 10_000;

/// Bytes of one page: a thousand names of 1 KiB with 8 KiB of metadata each, in XML.
const LONGEST_PAGE: usize = 16 << 20;

/// Bytes of what is said about one object.
const LONGEST_ABOUT: usize = 1 << 20;

/// The bucket or container of one entry, asked with its credentials.
#[derive(Debug, Clone)]
pub(in crate::source) struct Bucket {
    pub(super) wire: Wire,
    pub(super) store: Arc<dyn Store>,
}

/// Where a listed object comes to lie, or nothing where it only stands for a directory.
pub(super) fn place(prefix: &str, seen: &Seen) -> Result<Option<RelPath>, &'static str> {
    if seen.is_directory || (seen.size == 0 && seen.key.ends_with('/')) {
        return Ok(None);
    }
    let path = seen.key.strip_prefix(prefix).and_then(|rest| rest.parse().ok());
    path.map(Some).ok_or("its name can't be a file's; rename the object, or list the others on their own")
}

impl Bucket {
    pub(super) fn new(wire: Wire, store: Arc<dyn Store>) -> Self {
        Self { wire, store }
    }

    /// The files under `key`: a prefix when it's empty or ends in `/`, else one object.
    pub(in crate::source) async fn files(
        &self,
        key: &str,
        selection: &Selection<'_>,
    ) -> Result<Vec<RemoteFile>, SourceError> {
        if !fits_a_url(key) {
            return Err(self.invalid(key, "no part of its name may be . or ..; rename it"));
        }
        if key.is_empty() || key.ends_with('/') {
            let listed = self.list(key).await?;
            selection.check_names(listed.iter().map(|(path, _)| path))?;
            let wanted = listed.into_iter().filter(|(path, _)| selection.wants(path));
            return wanted.map(|(path, seen)| self.file(path, seen)).collect();
        }
        let name = key.rsplit('/').next().unwrap_or(key);
        let path: RelPath = name.parse().map_err(|_| self.invalid(key, "its last part is no file name"))?;
        selection.check_names([&path])?;
        if !selection.wants(&path) {
            return Ok(Vec::new());
        }
        let seen = self.about(key).await?;
        Ok(vec![self.file(path, seen)?])
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(RelPath, Seen)>, SourceError> {
        let mut found = Vec::new();
        let mut next: Option<String> = None;
        for _ in 0..MOST_PAGES {
            let request = || self.store.page(prefix, next.as_deref());
            let document = self.wire.document(&self.store, prefix, LONGEST_PAGE, request).await?;
            let page = self.store.read_page(&document.bytes);
            let page = page.map_err(|problem| self.protocol(prefix, problem))?;
            for seen in page.objects {
                found.extend(self.listed(prefix, seen)?);
            }
            if found.len() > MOST_FILES {
                return Err(self.invalid(prefix, format!("it holds more than {MOST_FILES} objects")));
            }
            match page.next {
                None => return Ok(found),
                same if same == next => break,
                more => next = more,
            }
        }
        Err(self.protocol(prefix, "its listing has no end"))
    }

    fn listed(&self, prefix: &str, seen: Seen) -> Result<Option<(RelPath, Seen)>, SourceError> {
        match place(prefix, &seen) {
            Ok(path) => Ok(path.map(|path| (path, seen))),
            Err(problem) => Err(self.invalid(&seen.key, problem)),
        }
    }

    async fn about(&self, key: &str) -> Result<Seen, SourceError> {
        let document = self.wire.document(&self.store, key, LONGEST_ABOUT, || self.store.about(key)).await?;
        let seen = self.store.read_about(key, &document.headers, &document.bytes);
        let seen = seen.map_err(|problem| self.protocol(key, problem))?;
        if seen.is_directory {
            return Err(self.invalid(key, "it's a directory; write a / at its end for all that is in it"));
        }
        Ok(seen)
    }

    fn file(&self, path: RelPath, seen: Seen) -> Result<RemoteFile, SourceError> {
        let identity = |coding: &String| coding.trim().eq_ignore_ascii_case("identity");
        if seen.encoding.as_ref().is_some_and(|coding| !coding.trim().is_empty() && !identity(coding)) {
            let problem = "it's stored with a Content-Encoding, so that servers and clients disagree on its bytes; \
                           upload it again without one";
            return Err(self.invalid(&seen.key, problem));
        }
        let digest = seen.digest().map_err(|problem| self.invalid(&seen.key, problem))?;
        let Seen { key, size, version, .. } = seen;
        let bytes = Arc::new(CloudObject::new(self.clone(), key, size, version.clone()));
        Ok(RemoteFile { path, size, version: Some(version), digest: digest.map(Into::into), bytes })
    }

    pub(super) fn protocol(&self, key: &str, problem: impl Into<String>) -> SourceError {
        SourceError::Protocol { what: self.store.shown(key), problem: problem.into() }
    }

    fn invalid(&self, key: &str, problem: impl Into<String>) -> SourceError {
        SourceError::Invalid { what: self.store.shown(key), problem: problem.into() }
    }
}
