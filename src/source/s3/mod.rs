//! `s3://`: one object, or all under a prefix, from AWS or from anything that speaks its protocol.

use std::sync::Arc;

use aws_sdk_s3::Client;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::types::{ChecksumMode, Object, RequestPayer};

use self::checksum::{Sums, Told};
use self::object::S3Object;
use self::signed::Signed;
use super::index::MOST_FILES;
use super::patience::patiently;
use super::selection::Selection;
use super::shown::shown;
use super::{RemoteFile, SourceConfig, SourceError};
use crate::types::{Published, RelPath};

mod canned;
mod checksum;
mod clients;
mod failure;
mod identity;
mod keys;
mod object;
mod parts;
mod payer;
mod signed;
mod ways;

pub(crate) use canned::{s3_listing, s3_listing_runtime, s3_refusal};
pub(super) use clients::Clients;

/// The bucket of one entry, asked with its credentials.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    client: Client,
    name: String,
    /// `host:port`.
    origin: String,
    /// Said with every request, where whoever asks pays.
    payer: Option<RequestPayer>,
    /// How objects are got past the SDK, where they can be.
    signed: Option<Signed>,
    config: SourceConfig,
}

/// What a HEAD or a listing tells of an object.
struct Seen {
    key: String,
    path: RelPath,
    size: u64,
    etag: Option<String>,
    /// Whether the server may have a checksum of it that it doesn't list.
    may_tell: bool,
}

/// What a HEAD tells.
struct Head {
    size: u64,
    etag: Option<String>,
    told: Option<Published>,
}

impl Bucket {
    /// The files under `key`: a prefix when it's empty or ends in `/`, else one object.
    pub(super) async fn files(
        &self,
        key: &str,
        selection: &Selection<'_>,
    ) -> Result<Vec<RemoteFile>, SourceError> {
        if !key.is_empty() && !key.ends_with('/') {
            let name = key.rsplit('/').next().unwrap_or(key);
            let path: RelPath =
                name.parse().map_err(|_| self.invalid(key, "its last part is no file name".to_owned()))?;
            selection.check_names([&path])?;
            if !selection.wants(&path) {
                return Ok(Vec::new());
            }
            let Head { size, etag, told } = self.head(key).await?;
            let seen = Seen { key: key.to_owned(), path, size, etag, may_tell: false };
            return Ok(vec![RemoteFile { digest: told, ..self.file(seen) }]);
        }
        let listed = self.list(key).await?;
        selection.check_names(listed.iter().map(|seen| &seen.path))?;
        let wanted = listed.into_iter().filter(|seen| selection.wants(&seen.path));
        let untold = |seen: Seen| {
            let may_tell = seen.may_tell && selection.digest(&seen.path).is_none();
            Seen { may_tell, ..seen }
        };
        Ok(wanted.map(|seen| self.file(untold(seen))).collect())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Seen>, SourceError> {
        let mut found = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let page = patiently(|| self.page(prefix, next.clone())).await?;
            for object in page.contents() {
                found.extend(self.seen(prefix, object)?);
                if found.len() > MOST_FILES {
                    return Err(self.invalid(prefix, format!("it holds more than {MOST_FILES} objects")));
                }
            }
            match page.next_continuation_token {
                Some(token) if page.is_truncated == Some(true) && next.as_ref() != Some(&token) => {
                    next = Some(token);
                }
                _ if page.is_truncated == Some(true) => {
                    return Err(self.protocol(prefix, "its listing breaks off"));
                }
                _ => return Ok(found),
            }
        }
    }

    /// One page of what is under a prefix: the first, or that which `next` leads to.
    async fn page(&self, prefix: &str, next: Option<String>) -> Result<ListObjectsV2Output, SourceError> {
        let request = self.client.list_objects_v2().bucket(&self.name).prefix(prefix);
        let request = request.set_continuation_token(next).set_request_payer(self.payer.clone());
        self.answered(prefix, request.send()).await
    }

    /// A listed object, or nothing where it only stands for a directory.
    fn seen(&self, prefix: &str, object: &Object) -> Result<Option<Seen>, SourceError> {
        let (Some(key), Some(size)) = (object.key(), object.size().and_then(|size| u64::try_from(size).ok()))
        else {
            return Err(self.protocol(prefix, "its listing names no key, or no size"));
        };
        if size == 0 && key.ends_with('/') {
            return Ok(None);
        }
        let path = key.strip_prefix(prefix).and_then(|rest| rest.parse().ok());
        let path = path.ok_or_else(|| {
            self.invalid(
                key,
                "its name can't be a file's; rename the object, or list it on its own".to_owned(),
            )
        })?;
        let algorithms = object.checksum_algorithm();
        let may_tell = algorithms.is_empty() || algorithms.iter().any(checksum::is_compared);
        let etag = object.e_tag().and_then(strong_etag);
        Ok(Some(Seen { key: key.to_owned(), path, size, etag, may_tell }))
    }

    async fn head(&self, key: &str) -> Result<Head, SourceError> {
        let head = patiently(|| async {
            let request = self.client.head_object().bucket(&self.name).key(key);
            let request = request.set_request_payer(self.payer.clone());
            self.answered(key, request.checksum_mode(ChecksumMode::Enabled).send()).await
        })
        .await?;
        let Some(size) = head.content_length().and_then(|size| u64::try_from(size).ok()) else {
            return Err(self.protocol(key, "it tells no size"));
        };
        let etag = head.e_tag().and_then(strong_etag);
        let told = match checksum::told(&Sums::of_head(&head)) {
            Told::Nothing => None,
            Told::Whole(published) => Some(published),
            Told::OfParts(composite) => self.of_parts(key, size, etag.as_deref(), &composite).await?,
        };
        Ok(Head { size, etag, told })
    }

    fn file(&self, seen: Seen) -> RemoteFile {
        let Seen { key, path, size, etag, may_tell } = seen;
        let bytes = Arc::new(S3Object::new(self.clone(), key, size, etag.clone(), may_tell));
        RemoteFile { path, size, version: etag, digest: None, bytes }
    }

    /// The bucket and the key for people.
    fn shown(&self, key: &str) -> String {
        format!("s3://{}/{}", self.name, shown(key))
    }

    fn invalid(&self, key: &str, problem: String) -> SourceError {
        SourceError::Invalid { what: self.shown(key), problem }
    }

    fn protocol(&self, key: &str, problem: &str) -> SourceError {
        SourceError::Protocol { what: self.shown(key), problem: problem.to_owned() }
    }
}

/// An ETag without its quotes, which some servers leave out, or `None` where it's a weak one.
fn strong_etag(tag: &str) -> Option<String> {
    let tag = tag.trim();
    let bare = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or(tag);
    let is_tag = !bare.is_empty() && bare.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
    (is_tag && !tag.starts_with("W/")).then(|| bare.to_owned())
}
