use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::HeaderValue;
use http::header::RANGE;
use tokio::sync::MutexGuard;

use super::endpoint::{Answer, Endpoint};
use super::repository::{Hosts, Repository, Want};
use super::wire::{Stop, Words};
use crate::source::body::body;
use crate::source::ranged::{self, Unfit};
use crate::source::serves_ranges::ServesRanges;
use crate::source::{RangeBody, RangeSource, SourceError};
use crate::types::{ByteRange, Digest, ErrorKind};

/// A layer's blob. The first range finds the host that has it, and where that one sends us; all others then go
/// there directly, until the place doesn't know us any more: signed URLs expire.
pub(super) struct Blob {
    repository: Repository,
    hosts: Hosts,
    digest: Digest,
    size: u64,
    origin: String,
    serves_ranges: ServesRanges,
    place: Mutex<Option<Arc<Place>>>,
    /// Held while the place is looked for, so that many ranges at once look only once.
    search: tokio::sync::Mutex<()>,
    searches_failed: AtomicU64,
}

/// Where the bytes come from.
struct Place {
    /// The host that knows the way, by its place in the list.
    host: usize,
    stop: Stop,
    /// Whether it sent us elsewhere.
    is_redirected: bool,
}

/// Turns of one request: at a place that was known, at one that another range found, and a search of its own.
const TURNS: usize = 3;

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blob").field("repository", &self.repository).field("digest", &self.digest).finish()
    }
}

impl Blob {
    pub(super) fn new(repository: Repository, (digest, size): (Digest, u64), hosts: Hosts) -> Self {
        Self {
            origin: repository.origin(hosts),
            repository,
            hosts,
            digest,
            size,
            serves_ranges: ServesRanges::new(true),
            place: Mutex::default(),
            search: tokio::sync::Mutex::default(),
            searches_failed: AtomicU64::new(0),
        }
    }

    async fn fetch(&self, range: ByteRange) -> Result<RangeBody, SourceError> {
        let mut failed = Vec::new();
        for turn in 1..=TURNS {
            let search = match self.place() {
                Some(_) => None,
                None => self.wait_for_search().await,
            };
            let Some(place) = self.place() else {
                let found = self.find(range, failed).await;
                if found.is_err() {
                    self.searches_failed.fetch_add(1, Relaxed);
                }
                return found;
            };
            drop(search);
            let error = match self.read_at(&place, range).await {
                Ok(body) => return Ok(body),
                Err(error) => error,
            };
            self.repository.note(place.host, &error);
            let is_lost = place.is_lost(&error);
            let has_other = self.hosts == Hosts::All && self.repository.has_other(place.host);
            if is_lost || has_other || !matches!(error.kind(), ErrorKind::Throttled { .. }) {
                self.forget(&place);
            }
            if turn == TURNS || !(is_lost || has_other) {
                return Err(error);
            }
            if !is_lost {
                failed = vec![(place.host, error)];
            }
        }
        Err(SourceError::Protocol {
            what: self.origin.clone(),
            problem: "its places change too fast".to_owned(),
        })
    }

    /// Waits until it's this one's turn to look; without the turn where another's search failed meanwhile, since
    /// all would then fail one after the other.
    async fn wait_for_search(&self) -> Option<MutexGuard<'_, ()>> {
        let failed = self.searches_failed.load(Relaxed);
        let turn = self.search.lock().await;
        (self.searches_failed.load(Relaxed) == failed).then_some(turn)
    }

    /// Asks the hosts in turn, and remembers the place of the first good answer.
    async fn find(
        &self,
        range: ByteRange,
        failed: Vec<(usize, SourceError)>,
    ) -> Result<RangeBody, SourceError> {
        let order = match self.hosts {
            Hosts::All => self.repository.order(Want::Pull, failed.first().map(|(host, _)| *host)),
            Hosts::Last => self.repository.order(Want::Pull, None).into_iter().max().into_iter().collect(),
        };
        self.repository
            .walk(order, failed, |host, endpoint| async move {
                let stop = endpoint.place("blobs", &self.digest.to_string());
                let asked = stop.url.clone();
                let answer = endpoint.ask(stop, &words(range)).await?;
                let (body, stop) = self.checked(&endpoint, answer, range).await?;
                let place = Place { host, is_redirected: stop.url != asked, stop };
                *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(place));
                Ok(body)
            })
            .await
    }

    async fn read_at(&self, place: &Place, range: ByteRange) -> Result<RangeBody, SourceError> {
        let endpoint = self.repository.endpoint(place.host).await?;
        let answer = endpoint.ask(place.stop.clone(), &words(range)).await?;
        Ok(self.checked(&endpoint, answer, range).await?.0)
    }

    /// The body of a good answer, and where it came from.
    async fn checked(
        &self,
        endpoint: &Endpoint,
        answer: Answer,
        range: ByteRange,
    ) -> Result<(RangeBody, Stop), SourceError> {
        let (status, headers) = (answer.response.status(), answer.response.headers());
        let sent = match ranged::check(range, self.size, false, status, headers) {
            Ok(sent) => sent,
            Err(Unfit::Refused) => return Err(endpoint.refusal(answer).await),
            Err(Unfit::Nonsense(problem)) => return Err(answer.stop.protocol(problem)),
            Err(Unfit::OtherSize) => {
                let problem = format!("it's not {} bytes long, as its manifest says", self.size);
                return Err(answer.stop.protocol(problem));
            }
        };
        let Answer { response, stop } = answer;
        let origin = stop.origin();
        let cut = self.serves_ranges.cut(sent, range, self.size, &origin)?;
        let bytes = Box::pin(response.bytes_stream());
        Ok((body(bytes, cut, self.repository.stall(), &origin), stop))
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

impl Place {
    /// Whether the way there must be asked for anew: its signature is over, or the object is gone. (S3 answers 400
    /// to some expired signatures.)
    fn is_lost(&self, error: &SourceError) -> bool {
        let kind = error.kind();
        self.is_redirected && matches!(kind, ErrorKind::Denied | ErrorKind::NotFound | ErrorKind::Invalid)
    }
}

fn words(range: ByteRange) -> Words {
    let mut words = Words::get();
    if let Ok(value) = HeaderValue::from_str(&range.to_string()) {
        words.headers.insert(RANGE, value);
    }
    words
}

impl RangeSource for Blob {
    fn get(&self, range: ByteRange) -> BoxFuture<'_, Result<RangeBody, SourceError>> {
        self.fetch(range).boxed()
    }

    fn origin(&self) -> &str {
        &self.origin
    }

    fn serves_ranges(&self) -> bool {
        self.serves_ranges.get()
    }

    /// The registry itself, whatever its mirrors say.
    fn elsewhere(&self) -> Option<Arc<dyn RangeSource>> {
        let is_mirrored = self.hosts == Hosts::All && self.repository.has_mirrors();
        is_mirrored.then(|| {
            let blob = Self::new(self.repository.clone(), (self.digest, self.size), Hosts::Last);
            Arc::new(blob) as Arc<dyn RangeSource>
        })
    }
}
