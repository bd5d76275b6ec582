use std::sync::Arc;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::cache::Cache;
use super::claims::Reserve;
use super::error::WeightsError;
use super::gather::Gather;
use super::marks::Pace;
use super::plan::{self, Wanted};
use super::transfer::{self, blocking};
use super::{asked, batch};
use crate::fetch::{Engine, Urgency};
use crate::list::WeightsGoods;
use crate::source::{Listing, RemoteFile, Sources};
use crate::types::{EntryId, Progress, Revision};

/// Makes entries' files warm in a cache.
#[derive(Clone)]
pub struct Warmer {
    pub(super) cache: Arc<Cache>,
    pub(super) engine: Engine,
    sources: Sources,
    verified_only: bool,
    pub(super) reserve: Reserve,
    pub(super) pace: Pace,
}

/// Files that are warm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WarmWeights {
    /// Which revision.
    pub revision: Revision,
    /// Whether every file was compared with a published digest; false: recorded only.
    pub verified: bool,
    /// Bytes that this call fetched; 0 when all was there.
    pub fetched_bytes: u64,
    /// How many files there are.
    pub files: usize,
}

impl Warmer {
    /// `verified_only`: files whose source publishes no digest are refused.
    #[must_use]
    pub fn new(cache: Arc<Cache>, engine: Engine, sources: Sources, verified_only: bool) -> Self {
        Self { cache, engine, sources, verified_only, reserve: Reserve::default(), pace: Pace::default() }
    }

    /// The same with another reserve.
    #[must_use]
    pub fn with_reserve(self, reserve: Reserve) -> Self {
        Self { reserve, ..self }
    }

    /// The same with another pace of its journals.
    #[cfg(test)]
    pub(super) fn with_pace(self, pace: Pace) -> Self {
        Self { pace, ..self }
    }

    /// The same for an entry that matters so much beside others.
    #[must_use]
    pub fn with_urgency(&self, urgency: Urgency) -> Self {
        Self { engine: self.engine.with_urgency(urgency), ..self.clone() }
    }

    /// Asks the source which files there are, fetches what is missing and makes the result what the entry's
    /// `current` means: durable, and from one moment to the next. What is there already isn't fetched; what is
    /// there and broken is mended. Files that change at the source while they are read are listed anew. What an earlier
    /// call, or process, fetched of a file is gone on with; what it fetched of files that the entry no longer has is
    /// thrown away.
    ///
    /// `progress` counts what this call has to fetch. When `stop` is cancelled it returns soon, after all writes
    /// have ended. Dropping the future is safe: at most a switch that had begun is finished, and what is on
    /// blocking threads ends by itself.
    ///
    /// # Errors
    /// See [`WeightsError`]. The entry's former `current` is as it was.
    pub async fn ensure(
        &self,
        id: &EntryId,
        goods: &WeightsGoods,
        credentials: Option<&str>,
        progress: &Progress,
        stop: &CancellationToken,
    ) -> Result<WarmWeights, WeightsError> {
        let mut listings = 0;
        loop {
            listings += 1;
            let listing = transfer::list(&self.sources, goods, credentials, stop).await?;
            let outcome = self.ensure_files(id, goods, listing, progress, stop).await;
            if !transfer::list_again(&outcome, listings) {
                return outcome;
            }
        }
    }

    /// The same for files that have been listed.
    pub(super) async fn ensure_files(
        &self,
        id: &EntryId,
        goods: &WeightsGoods,
        listing: impl Into<Listing>,
        progress: &Progress,
        stop: &CancellationToken,
    ) -> Result<WarmWeights, WeightsError> {
        let Listing { mut files, commit } = listing.into();
        let fingerprint = goods.fingerprint();
        let (cache, of) = (self.cache.clone(), id.clone());
        let earlier = blocking(move || cache.earlier(&of, fingerprint)).await??;
        let (cache, of) = (self.cache.clone(), id.clone());
        let (found, before) = blocking(move || {
            let found = cache.found(&of)?;
            let before = found.read();
            Ok::<_, WeightsError>((Arc::new(found), before))
        })
        .await??;
        // A small file's source says with its bytes what they are: one of an earlier run isn't fetched to hear that.
        let must_be_known = |file: &RemoteFile| {
            let is_small = batch::fits(file.size, self.pace, &self.engine);
            let was_fetched = before.contains_key(&plan::key(file, fingerprint));
            (!is_small || was_fetched || self.verified_only) && !plan::was_proved(earlier.as_ref(), file)
        };
        asked::ask(&mut files, must_be_known, stop).await?;
        let mut wanted = plan::plan(files, fingerprint, earlier.as_ref(), self.verified_only)?;
        plan::recall(&mut wanted, &before);
        let verified = wanted.iter().all(Wanted::is_verified);

        let (cache, of) = (self.cache.clone(), id.clone());
        let wants = wanted.iter().map(|file| file.key.clone()).collect();
        let named = move || {
            cache.forget_partials(&of, &wants)?;
            cache.named(&of)
        };
        let current = blocking(named).await??.and_then(|named| named.current);
        if let Some(current) = current {
            let same = revision_of(&wanted) == Some(current.revision);
            let same = same && current.fingerprint == fingerprint && current.verified == verified;
            let (cache, of, from) = (self.cache.clone(), id.clone(), commit.clone());
            if same && blocking(move || cache.is_from(&of, current.revision, from.as_deref())).await?? {
                if !before.is_empty() {
                    blocking(move || found.forget()).await??;
                }
                let (revision, files) = (current.revision, wanted.len());
                return Ok(WarmWeights { revision, verified, fetched_bytes: 0, files });
            }
        }

        // Nothing of it is given up for another entry before it's shown.
        let held = self.cache.hold(wanted.iter().filter_map(|file| file.known));
        let gather = Gather { warmer: self, id, found: &found, held: &held };
        let (digests, fetched_bytes) = gather.all(&wanted, progress, stop).await?;
        let verified = wanted.iter().all(Wanted::is_verified);
        let contents = plan::contents(&wanted, &digests);
        let revision =
            Revision::of_weights(contents.iter().map(|(path, file)| (path, file.size, file.sha256)));
        let files = contents.len();
        let request = plan::request(goods, &wanted, commit.as_deref(), Timestamp::now());
        let (cache, of, gone) = (self.cache.clone(), id.clone(), stop.child_token());
        let _gone_when_dropped = gone.clone().drop_guard();
        let keeping = Arc::clone(&held);
        let show = move || {
            let shown = cache.show(&of, contents, request, commit.as_deref(), &gone);
            drop(keeping);
            shown?;
            Ok::<_, WeightsError>(found.forget()?)
        };
        blocking(show).await??;
        Ok(WarmWeights { revision, verified, fetched_bytes, files })
    }
}

/// The revision that these files make, if every digest is known.
fn revision_of(wanted: &[Wanted]) -> Option<Revision> {
    let files: Option<Vec<_>> =
        wanted.iter().map(|file| Some((&file.path, file.size, file.known?))).collect();
    Some(Revision::of_weights(files?))
}
