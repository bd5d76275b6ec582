use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use reqwest::Response;
use url::Url;

use super::Repository;
use crate::source::body::body;
use crate::source::ranged::{self, Unfit};
use crate::source::serves_ranges::ServesRanges;
use crate::source::{RangeBody, RangeSource, SourceError, client};
use crate::types::{ByteRange, ErrorKind, GitOid, RelPath, Secret};

/// One file of a commit. Where the Hub sends us elsewhere for its bytes, the way is remembered: all ranges after the
/// first go there directly, until the place doesn't know us any more. Signed URLs expire.
pub(super) struct Blob {
    repository: Arc<Repository>,
    commit: GitOid,
    path: RelPath,
    size: u64,
    serves_ranges: ServesRanges,
    place: Mutex<Option<Arc<Place>>>,
}

/// Where the Hub sent us.
struct Place {
    /// It may be signed.
    url: Secret<Url>,
    /// It's on the Hub's own host.
    with_token: bool,
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blob").field("of", &self.repository.shown).field("path", &self.path).finish()
    }
}

impl Blob {
    pub(super) fn new(repository: Arc<Repository>, commit: GitOid, path: RelPath, size: u64) -> Self {
        let serves_ranges = ServesRanges::new(true);
        Self { repository, commit, path, size, serves_ranges, place: Mutex::default() }
    }

    async fn fetch(&self, range: ByteRange) -> Result<RangeBody, SourceError> {
        if let Some(place) = self.place() {
            let answer =
                self.repository.ask(place.url.reveal().clone(), place.with_token, Some(range)).await?;
            match self.checked(answer, range) {
                Err(error) if is_lost(&error) => self.forget(&place),
                done => return done,
            }
        }
        let url = self.url();
        let answer = self.repository.ask(url.clone(), true, Some(range)).await?;
        let found = answer.url().clone();
        let body = self.checked(answer, range)?;
        if found != url {
            let with_token = found.origin() == url.origin();
            let place = Place { url: Secret::new(found), with_token };
            *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(place));
        }
        Ok(body)
    }

    /// Where the Hub has it.
    fn url(&self) -> Url {
        let commit = self.commit.hex();
        let repo = self.repository.repo.as_str().split('/');
        let segments = repo.chain(["resolve", &commit]).chain(self.path.as_str().split('/'));
        self.repository.hub.endpoint.below(segments)
    }

    /// The body of a good answer.
    fn checked(&self, answer: Response, range: ByteRange) -> Result<RangeBody, SourceError> {
        let may_be_page = self.path.as_str().ends_with(".html");
        let sent = ranged::check(range, self.size, may_be_page, answer.status(), answer.headers());
        let origin = client::origin(answer.url());
        let cut = match sent {
            Ok(sent) => self.serves_ranges.cut(sent, range, self.size, &origin)?,
            // A branch can be listed anew; of a commit that was named there is only one.
            Err(Unfit::Refused) if self.is_pinned_by_us() && self.repository.has_lost_commit(&answer) => {
                return Err(SourceError::Changed { what: self.repository.shown.clone() });
            }
            Err(Unfit::Refused) => return Err(self.repository.refused(&answer)),
            Err(Unfit::Nonsense(problem)) => return Err(self.protocol(&problem)),
            Err(Unfit::OtherSize) => {
                return Err(self.protocol(&format!("it's not {} bytes long, as its tree says", self.size)));
            }
        };
        Ok(body(Box::pin(answer.bytes_stream()), cut, self.repository.hub.stall, &origin))
    }

    fn is_pinned_by_us(&self) -> bool {
        self.repository.revision.as_str() != self.commit.hex()
    }

    fn protocol(&self, problem: &str) -> SourceError {
        self.repository.protocol(format!("{}: {problem}", self.path))
    }

    fn place(&self) -> Option<Arc<Place>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets `place`, unless a newer one is known already.
    fn forget(&self, place: &Arc<Place>) {
        let mut known = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref().is_some_and(|known| Arc::ptr_eq(known, place)) {
            *known = None;
        }
    }
}

/// Whether the way must be asked for anew: its signature is over, or the object is gone. (S3 answers 400 to some
/// expired signatures.)
fn is_lost(error: &SourceError) -> bool {
    matches!(error.kind(), ErrorKind::Denied | ErrorKind::NotFound | ErrorKind::Invalid)
}

impl RangeSource for Blob {
    fn get(&self, range: ByteRange) -> BoxFuture<'_, Result<RangeBody, SourceError>> {
        self.fetch(range).boxed()
    }

    fn origin(&self) -> &str {
        &self.repository.origin
    }

    fn serves_ranges(&self) -> bool {
        self.serves_ranges.get()
    }
}
