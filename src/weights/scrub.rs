//! The slow re-reading of all blobs: disks forget, and nobody notices before a pod does.
//!
//! It reads past the page cache, in the idle class, and so many bytes a second at most. A blob whose bytes are wrong is
//! only marked: what shows it is no longer warm, so its label goes, and the entry's next job puts the blob aside and
//! fetches it again.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::blob;
use super::cache::Cache;
use super::error::{CacheError, OpError};
use super::layout;
use super::ops;
use super::reading::{Read, Reading};
use crate::rt::chain;
use crate::types::Digest;

/// How it's done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubSettings {
    /// No faster than this.
    pub bytes_per_second: u64,
    /// From the beginning of one round to that of the next.
    pub every: Duration,
}

/// How much is read again at most after the agent has died.
const KEEP_EVERY: u64 = 256 << 20;

/// Looks so often whether a round is due, since the clock may be set.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// A disk that fails in other ways than by wrong bytes is left alone for so long.
const AFTER_A_FAILURE: Duration = Duration::from_secs(600);

/// How far a round has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Round {
    began: Timestamp,
    /// The last blob that was read; blobs are read in the order of their names.
    after: Option<Digest>,
    ended: bool,
}

impl Round {
    fn begin() -> Self {
        Self { began: Timestamp::now(), after: None, ended: false }
    }

    /// How long until the next one begins. A clock that was set back doesn't put it off for ever.
    fn next_in(&self, every: Duration, now: Timestamp) -> Duration {
        let passed = Duration::try_from(now.duration_since(self.began));
        passed.map_or(Duration::ZERO, |passed| every.saturating_sub(passed))
    }
}

/// Reads all blobs again and again until `stop`, round after round, also over restarts.
pub async fn scrub(cache: Arc<Cache>, settings: ScrubSettings, stop: CancellationToken) {
    let mut scrub =
        Scrub { round: cache.last_round().unwrap_or_else(Round::begin), cache, settings, unkept: 0 };
    let _ = stop.run_until_cancelled_owned(scrub.run()).await;
}

struct Scrub {
    cache: Arc<Cache>,
    settings: ScrubSettings,
    round: Round,
    /// Bytes read since the round was last kept.
    unkept: u64,
}

impl Scrub {
    async fn run(&mut self) {
        loop {
            if let Err(problem) = self.step().await {
                tracing::warn!(problem, "blobs can't be read again just now");
                tokio::time::sleep(AFTER_A_FAILURE).await;
            }
        }
    }

    /// Reads one blob, or waits for the next round.
    async fn step(&mut self) -> Result<(), String> {
        if self.round.ended {
            let wait = self.round.next_in(self.settings.every, Timestamp::now());
            if !wait.is_zero() {
                tokio::time::sleep(wait.min(LONGEST_WAIT)).await;
                return Ok(());
            }
            self.round = Round::begin();
        }
        let (cache, after) = (Arc::clone(&self.cache), self.round.after);
        match blocking(move || cache.blob_after(after)).await? {
            Some(digest) => {
                self.read(digest).await?;
                self.round.after = Some(digest);
            }
            None => self.round.ended = true,
        }
        if self.round.ended || self.unkept >= KEEP_EVERY {
            let (cache, round) = (Arc::clone(&self.cache), self.round.clone());
            blocking(move || cache.keep_round(&round)).await?;
            self.unkept = 0;
        }
        Ok(())
    }

    /// Reads a blob to its end. Wrong bytes are read a second time: memory forgets, too.
    async fn read(&mut self, digest: Digest) -> Result<(), String> {
        for is_last in [false, true] {
            let mut reading = Reading::begin(digest);
            let found = loop {
                let cache = Arc::clone(&self.cache);
                let (back, read) = blocking(move || {
                    let read = reading.go_on(&cache);
                    Ok::<_, CacheError>((reading, read))
                })
                .await?;
                reading = back;
                match read {
                    Ok(Read::Some(bytes)) => self.pace(bytes).await,
                    Ok(Read::Gone) => return Ok(()),
                    Ok(Read::All(found)) => break Ok(found),
                    Err(error) => break Err(error),
                }
            };
            match found {
                Ok(found) if found == digest => return Ok(()),
                found if is_last => {
                    let problem = found
                        .map_or_else(|error| chain(&error), |found| format!("they are those of {found}"));
                    tracing::error!(%digest, problem, "the bytes of a blob are wrong; it will be fetched again");
                    let cache = Arc::clone(&self.cache);
                    return blocking(move || cache.suspect(digest)).await;
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn pace(&mut self, bytes: u64) {
        self.unkept = self.unkept.saturating_add(bytes);
        let seconds = bytes as f64 / self.settings.bytes_per_second.max(1) as f64;
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    }
}

async fn blocking<T: Send + 'static, E: std::error::Error + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| chain(&error)),
        Err(error) => Err(error.to_string()),
    }
}

impl Cache {
    /// The blob that comes after this one, in the order of their names.
    fn blob_after(&self, after: Option<Digest>) -> Result<Option<Digest>, OpError> {
        let Some(blobs) = self.root.find(layout::BLOBS)? else { return Ok(None) };
        let after = after.map(|digest| digest.hex()).unwrap_or_default();
        for fan in blobs.list()? {
            let is_past = fan.to_str().is_none_or(|fan| after.get(..2).is_some_and(|at| fan < at));
            let Some(dir) = (!is_past).then(|| blobs.find(&fan)).transpose()?.flatten() else { continue };
            for name in dir.list()? {
                let Some(name) = name.to_str().filter(|name| **name > *after) else { continue };
                if let Some(digest) = layout::digest_of_blob(&fan, name) {
                    return Ok(Some(digest));
                }
            }
        }
        Ok(None)
    }

    fn suspect(&self, digest: Digest) -> Result<(), OpError> {
        let _reading = self.reading();
        blob::suspect(&self.root, digest)
    }

    /// What can't be read is a round that begins anew.
    fn last_round(&self) -> Option<Round> {
        let v1 = self.root.open(layout::V1).ok()?;
        serde_json::from_slice(&v1.read_file(layout::SCRUB, 4096).ok()??).ok()
    }

    fn keep_round(&self, round: &Round) -> Result<(), CacheError> {
        let v1 = self.root.open(layout::V1)?;
        let path = v1.path().join(layout::SCRUB);
        let bytes =
            serde_json::to_vec(round).map_err(|cause| CacheError::Manifest { path: path.clone(), cause })?;
        let staged = self.staged_name();
        let file = self.staging.create_file(&staged, 0o644)?;
        let written = ops::write_all_at(&file, &bytes, 0)
            .and_then(|()| ops::sync(&file))
            .map_err(|cause| OpError::new("write", &path, cause))
            .and_then(|()| v1.rename_from(&self.staging, &staged, layout::SCRUB));
        Ok(written.inspect_err(|_| drop(self.staging.unlink(&staged)))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_round_comes_in_time_whatever_the_clock_does() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let round = Round { began: at(1000), after: None, ended: true };
        let every = Duration::from_secs(100);
        assert_eq!(round.next_in(every, at(1030)), Duration::from_secs(70));
        assert_eq!(round.next_in(every, at(1100)), Duration::ZERO);
        assert_eq!(round.next_in(every, at(5)), Duration::ZERO, "it was set back");
    }
}
