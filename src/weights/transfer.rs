use std::sync::Arc;

use futures::{StreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use super::batch;
use super::blob::Mismatch;
use super::error::WeightsError;
use super::incoming::Incoming;
use super::plan::Wanted;
use crate::fetch::{Engine, FetchError, Whole};
use crate::list::WeightsGoods;
use crate::source::{Listing, RangeSource, Sources};
use crate::types::{Digest, ErrorKind, Hasher, Progress, Published, RelPath};

/// How often a file may come with wrong bytes before it's the source's fault and not the way's.
const STRIKES: u32 = 3;

/// Makes a place for a file's bytes, with those that an earlier run left; called once a try, on a blocking thread.
pub(super) type Place = Arc<dyn Fn() -> Result<Incoming, WeightsError> + Send + Sync>;

/// A file whose bytes are all there, and right as far as anybody knows.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) incoming: Incoming,
    pub(super) digest: Digest,
    /// Bytes that travelled in the try that did it.
    pub(super) bytes: u64,
}

/// A file that is where it belongs: its path, its digest, and the bytes that travelled for it.
pub(super) type Done = (RelPath, Digest, u64);

/// What one job fetches with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Transfer<'a> {
    pub(super) engine: &'a Engine,
    pub(super) progress: &'a Progress,
    pub(super) stop: &'a CancellationToken,
}

impl Transfer<'_> {
    /// Fetches what is missing of one file and compares it with what is known of its bytes, if anything is. What comes
    /// with other bytes is thrown away and all of it fetched again, three times in all, and past a registry's mirrors where
    /// it came by one. What is stopped, or fails, stays for the next run, unless the source has another version now.
    pub(super) async fn fetch(&self, wanted: &Wanted, place: Place) -> Result<Fetched, WeightsError> {
        let mut tries = 0;
        let mut source = wanted.bytes.clone();
        loop {
            let make = place.clone();
            let incoming = blocking(move || make()).await??;
            if let Some(Published::Crc(crc)) = &wanted.published {
                incoming.sum_as(crc.kind());
            }
            let blob = source.clone();
            let (sink, kept) = (incoming.sink(), incoming.kept().clone());
            let bytes = wanted.size.saturating_sub(kept.bytes());
            let engine = self.engine;
            let fetched = engine.fetch_rest(blob, wanted.size, sink, kept, self.progress, self.stop).await;
            let digest = match fetched {
                Ok(found) => found,
                Err(cause) => {
                    let outdated = cause.kind() == ErrorKind::Changed;
                    blocking(move || if outdated { incoming.discard() } else { incoming.leave() }).await?;
                    return Err(lost(wanted, cause));
                }
            };
            tries += 1;
            let (incoming, wrong) = compared(incoming, wanted, digest).await?;
            let Some(wrong) = wrong else { return Ok(Fetched { incoming, digest, bytes }) };
            // Freeing a large file's blocks takes a while.
            blocking(move || incoming.discard()).await?;
            self.strike(wanted, wrong, tries)?;
            source = source.elsewhere().unwrap_or(source);
        }
    }

    /// Fetches a small file into memory and compares it there, as often, with what is known of it and what its source has
    /// told with its bytes; `keep` gets the right bytes, on a blocking thread.
    pub(super) async fn fetch_small<T: Send + 'static>(
        &self,
        wanted: &Wanted,
        keep: impl Fn(&Whole, Digest) -> Result<T, WeightsError> + Clone + Send + 'static,
    ) -> Result<T, WeightsError> {
        let mut tries = 0;
        let mut source = wanted.bytes.clone();
        loop {
            let (blob, size) = (source.clone(), wanted.size);
            let whole = self.engine.fetch_whole(blob, size, self.progress, self.stop).await;
            let whole = whole.map_err(|cause| lost(wanted, cause))?;
            tries += 1;
            self.hear(wanted, &source).await?;
            let told = wanted.told();
            let expected = told.as_ref().and_then(Published::sha256).or(wanted.expected());
            let (keep, other) = (keep.clone(), told.filter(|told| told.sha256().is_none()));
            let kept = blocking(move || {
                let mut hasher = Hasher::new();
                whole.parts().for_each(|part| hasher.update(part));
                let found = hasher.finish();
                let wrong = expected.and_then(|expected| Mismatch::of(&expected, &found));
                match wrong.or_else(|| other.and_then(|other| batch::mismatch(&whole, &other, size))) {
                    Some(wrong) => Ok(Err(wrong)),
                    None => keep(&whole, found).map(Ok),
                }
            });
            match kept.await?? {
                Ok(kept) => return Ok(kept),
                Err(wrong) => self.strike(wanted, wrong, tries)?,
            }
            source = source.elsewhere().unwrap_or(source);
        }
    }

    /// Asks what the bytes of a file are where its source may tell, and hasn't in advance or with the bytes.
    pub(super) async fn hear(
        &self,
        wanted: &Wanted,
        source: &Arc<dyn RangeSource>,
    ) -> Result<(), WeightsError> {
        if wanted.published.is_some() || !source.may_tell() {
            return Ok(());
        }
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(WeightsError::Stopped),
            asked = source.ask() => match asked {
                Ok(_) => Ok(()),
                Err(cause) => Err(lost(wanted, FetchError::Source(cause))),
            }
        }
    }

    /// A file came with wrong bytes, once more.
    fn strike(
        &self,
        wanted: &Wanted,
        Mismatch { expected, found }: Mismatch,
        tries: u32,
    ) -> Result<(), WeightsError> {
        self.progress.take_back(wanted.size);
        tracing::warn!(path = %wanted.path, %expected, %found, tries, "a file came with wrong bytes");
        if tries == STRIKES {
            return Err(WeightsError::Corrupt { path: wanted.path.clone(), expected, found, tries });
        }
        Ok(())
    }
}

fn lost(wanted: &Wanted, cause: FetchError) -> WeightsError {
    match cause {
        FetchError::Cancelled => WeightsError::Stopped,
        cause => WeightsError::Fetch { path: wanted.path.clone(), cause },
    }
}

/// Where a file's bytes aren't what they should be.
type Wrong = Option<Mismatch>;

/// Compares the bytes that came, of which `found` is the SHA-256, with all that is known of them.
async fn compared(
    incoming: Incoming,
    wanted: &Wanted,
    found: Digest,
) -> Result<(Incoming, Wrong), WeightsError> {
    if let Some(expected) = wanted.expected().filter(|expected| *expected != found) {
        let wrong = Mismatch { expected: expected.to_string(), found: found.to_string() };
        return Ok((incoming, Some(wrong)));
    }
    let Some(published) = wanted.other().cloned() else { return Ok((incoming, None)) };
    let size = wanted.size;
    let compare = move || incoming.mismatch(&published, size).map(|wrong| (incoming, wrong));
    Ok(blocking(compare).await??)
}

/// Which files there are, now.
pub(super) async fn list(
    sources: &Sources,
    goods: &WeightsGoods,
    credentials: Option<&str>,
    stop: &CancellationToken,
) -> Result<Listing, WeightsError> {
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(WeightsError::Stopped),
        listed = sources.resolve(goods, credentials) => {
            listed.map_err(|cause| WeightsError::Resolve {
                from: goods.uri.to_string(),
                credentials: credentials.map(str::to_owned),
                cause,
            })
        }
    }
}

/// How often a source's files may change while they are read before the caller hears of it.
const LISTINGS: u32 = 3;

/// Whether the files are to be listed once more, after so many times: a version that was replaced while it was read
/// is gone, and only a new listing tells which one there is now.
pub(super) fn list_again<T>(outcome: &Result<T, WeightsError>, listings: u32) -> bool {
    listings < LISTINGS && outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::Changed)
}

/// Runs `work` where it may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, WeightsError> {
    tokio::task::spawn_blocking(work).await.map_err(WeightsError::Worker)
}

/// Runs the jobs, so many at once. The first that fails stops the others, and is the result once all have ended.
pub(super) async fn all<T, F>(
    jobs: Vec<F>,
    at_once: usize,
    stop: &CancellationToken,
) -> Result<Vec<T>, WeightsError>
where
    F: Future<Output = Result<T, WeightsError>>,
{
    let mut done = Vec::with_capacity(jobs.len());
    let mut first = None;
    let mut jobs = stream::iter(jobs).buffer_unordered(at_once.max(1));
    while let Some(outcome) = jobs.next().await {
        match outcome {
            Ok(it) => done.push(it),
            Err(error) => {
                stop.cancel();
                // The others end as stopped because of the first; their word counts less.
                first.get_or_insert(error);
            }
        }
    }
    match first {
        Some(error) => Err(error),
        None => Ok(done),
    }
}

/// What came of jobs that ran side by side and stopped each other: what both did, or the failure that was first.
pub(super) fn both(
    one: Result<Vec<Done>, WeightsError>,
    other: Result<Vec<Done>, WeightsError>,
) -> Result<Vec<Done>, WeightsError> {
    match (one, other) {
        (Ok(mut one), Ok(other)) => {
            one.extend(other);
            Ok(one)
        }
        (Err(WeightsError::Stopped), Err(error)) | (Err(error), _) | (Ok(_), Err(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::SourceError;

    #[test]
    fn only_a_changed_source_is_listed_again_and_not_for_ever() {
        let failed = |cause| {
            let path = "a".parse().expect("a path");
            Err::<(), _>(WeightsError::Fetch { path, cause: FetchError::Source(cause) })
        };
        let changed = failed(SourceError::Changed { what: "a".to_owned() });
        assert!(list_again(&changed, 1) && list_again(&changed, 2) && !list_again(&changed, 3));
        let gone = failed(SourceError::Status { what: "a".to_owned(), status: 404, retry_after: None });
        assert!(!list_again(&gone, 1) && !list_again(&Ok(()), 1));
    }

    #[tokio::test]
    async fn the_first_failure_is_the_result_and_stops_the_others() {
        let stop = CancellationToken::new();
        let job = |n: u32| {
            let stop = stop.clone();
            async move {
                if n == 1 {
                    return Err(WeightsError::Invalid { problem: "the first".to_owned() });
                }
                stop.cancelled().await;
                Err::<(), _>(WeightsError::Stopped)
            }
        };
        let error = all((0..9).map(job).collect(), 3, &stop).await.unwrap_err();
        assert_eq!(error.to_string(), "the first");
    }
}
