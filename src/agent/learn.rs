//! What the loop makes of outcomes: each changes what is remembered, and nothing is awaited.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::standing::standing;
use super::step::{Outcome, Stays, Warmed};
use super::task::Agent;
use super::world::{Check, Failure, Stuck};
use super::yielding::Lack;
use crate::list::{Entry, Goods};
use crate::node::Reason;
use crate::rt::{Attempts, MetricKind, RetryPolicy};
use crate::types::{EntryId, ErrorKind};
use crate::weights::{Named, Shortage};

/// How long a missing pin is left missing after it was last set: a pin that somebody else keeps taking off isn't
/// fought over.
const MEND_AFTER: Duration = Duration::from_secs(60);

/// With `--once`, what time may mend is tried this often in all before it counts as failed for good.
const ONCE: RetryPolicy = RetryPolicy {
    first: Duration::from_secs(2),
    longest: Duration::from_secs(20),
    retries: Some(4),
    jitter: RetryPolicy::HALF,
};

/// For what could not be taken away: it costs only its name, and somebody must mend it by hand.
const TAKE_AWAY: RetryPolicy = RetryPolicy {
    first: Duration::from_secs(60),
    longest: Duration::from_secs(3600),
    retries: None,
    jitter: RetryPolicy::HALF,
};

impl Agent {
    pub(super) fn learn(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Warmed { entry, warmed } => self.warmed(entry, warmed),
            Outcome::Failed { entry, kind, code, message, shortage } => {
                self.failed(entry, kind, code, message, shortage);
            }
            Outcome::Unpinned(result) => {
                self.world.unpinning = false;
                self.world.stuck_pins = match result {
                    Ok(()) => None,
                    Err(problem) => {
                        Some(again(self.world.stuck_pins.take(), problem, "could not take pins off"))
                    }
                };
            }
            Outcome::Retired { id, result } => self.retired(id, result),
            Outcome::DroppedOld(id, result) => self.dropped_old(&id, result),
            Outcome::RoomFound { newcomer, result } => self.room_found(&newcomer, result),
            Outcome::Measured(result) => self.measured(result),
            Outcome::Shrunk(result) => {
                self.world.shrinking = false;
                if let Err(problem) = result {
                    tracing::error!("cannot give up what no entry needs: {problem}");
                }
            }
            Outcome::CacheMoved(problem) => self.cache_moved(problem),
            Outcome::Scanned(result) => self.scanned(result),
            Outcome::Remembered(result) => self.memory.ended(result, Instant::now()),
        }
    }

    fn retired(&mut self, id: EntryId, result: Result<(), Stays>) {
        self.world.removing.remove(&id);
        self.outdate_scan();
        let stuck = match result {
            Ok(()) => {
                tracing::info!(entry = %id, "removed the names of weights that are no longer listed, or gave way");
                self.world.weights.iter_mut().for_each(|weights| drop(weights.remove(&id)));
                self.world.stuck.remove(&id);
                return;
            }
            // Nothing of it was touched. It is warm again, if it's listed.
            Err(Stays::InUse(user)) => {
                self.world.yielding.to.remove(&id);
                used(self.world.stuck.remove(&id), format!("they are in use: {user}"))
            }
            Err(Stays::Stuck(problem)) => {
                // Where something of it stays, the next scan finds it again.
                self.world.weights.iter_mut().for_each(|weights| drop(weights.remove(&id)));
                again(self.world.stuck.remove(&id), problem, "could not remove names of weights")
            }
        };
        self.world.stuck.insert(id, stuck);
    }

    fn warmed(&mut self, entry: Arc<Entry>, warmed: Warmed) {
        if let (Warmed::Weights { named, .. }, Some(weights)) = (&warmed, &mut self.world.weights)
            && self.world.cache_problem.is_none()
        {
            weights.insert(entry.id.clone(), named.clone());
        }
        let stopping = self.world.jobs.get(&entry.id).is_some_and(|job| job.stopping);
        if !stopping && !standing(&self.world, &entry).satisfied {
            // Started again at once, it would be so again.
            let message = self.why_not_shown(&entry);
            return self.failed(entry, ErrorKind::Local, "NotShown", message, None);
        }
        let now = Instant::now();
        let content = self.world.jobs.remove(&entry.id).and_then(|job| job.content);
        self.world.failures.remove(&entry.id);
        if let Warmed::Image { left_to_containerd, pulled: true, .. } = &warmed {
            self.world.left_to_containerd.remove(&entry.id);
            let reason = left_to_containerd.clone().map(|reason| (entry.id.clone(), reason));
            self.world.left_to_containerd.extend(reason);
        }
        let jitter = 0.9 + fastrand::f64() * 0.2;
        let due = now + self.world.settings.recheck.mul_f64(jitter);
        let check = Check { at: now, due, content, mend_at: now + MEND_AFTER, entry: Arc::clone(&entry) };
        self.world.checks.insert(entry.id.clone(), check);
        let revision = warmed.revision().short();
        // A look at a source that has nothing new is neither a pull nor news.
        if warmed.moved_bytes() {
            self.count(&entry, Ok(()));
            tracing::info!(entry = %entry.id, %revision, "warm");
        } else {
            tracing::debug!(entry = %entry.id, %revision, "warm already");
        }
        if let Warmed::Weights { fetched, .. } = warmed {
            self.metrics.bytes(MetricKind::Weights, fetched);
            self.outdate_scan();
        }
    }

    /// Its job ended well, and yet it isn't there.
    fn why_not_shown(&self, entry: &Entry) -> String {
        match &entry.goods {
            Goods::Image(_) => {
                let problem = self.world.images.as_ref().and_then(|images| images.problem.as_deref());
                let problem =
                    problem.unwrap_or("somebody removed it, perhaps the kubelet for want of disk space");
                format!("it was pulled, but containerd does not show it unpacked: {problem}")
            }
            Goods::Weights(_) => {
                let named = self.world.weights.as_ref().and_then(|weights| weights.get(&entry.id));
                let problem = named.and_then(|named| named.problem.as_deref());
                let problem = problem.unwrap_or("somebody changed it at once");
                format!("all files are there, but the cache does not show them: {problem}")
            }
        }
    }

    fn failed(
        &mut self,
        entry: Arc<Entry>,
        kind: ErrorKind,
        code: &'static str,
        message: String,
        shortage: Option<Shortage>,
    ) {
        let content = self.world.jobs.remove(&entry.id).and_then(|job| job.content);
        if kind == ErrorKind::Cancelled {
            return;
        }
        self.count(&entry, Err(kind));
        let policy = if self.world.settings.once { ONCE } else { RetryPolicy::ENTRY };
        let before = self.world.failures.remove(&entry.id);
        let same = before.filter(|failure| *failure.entry == *entry && failure.content == content);
        let looked_at = same.as_ref().and_then(|failure| failure.lack.as_ref()?.looked_at);
        let mut attempts = same.map_or_else(|| Attempts::new(policy), |failure| failure.attempts);
        // What changed under a fetch is whole again at its next try.
        let kind = if kind == ErrorKind::Changed { ErrorKind::Transient } else { kind };
        let wait = attempts.failed_with(kind, fastrand::f64());
        let hopeless = || self.world.settings.hopeless_retry.mul_f64(0.9 + fastrand::f64() * 0.2);
        let wait_at_all = wait.or_else(|| (!self.world.settings.once).then(hopeless));
        match wait_at_all {
            Some(wait) => {
                self.metrics.retried(kind);
                tracing::warn!(entry = %entry.id, code, retry_in = ?wait, "{message}");
            }
            None => tracing::error!(entry = %entry.id, code, "{message}"),
        }
        let failure = Failure {
            entry: Arc::clone(&entry),
            content,
            attempts,
            retry_at: wait_at_all.map(|wait| Instant::now() + wait),
            reason: Reason::new(code, message),
            for_good: wait.is_none(),
            lack: shortage.map(|Shortage { needed, short, had }| Lack { needed, short, had, looked_at }),
        };
        self.world.failures.insert(entry.id.clone(), failure);
    }

    fn count(&self, entry: &Entry, result: Result<(), ErrorKind>) {
        match entry.goods {
            Goods::Image(_) => self.metrics.image_pulled(result),
            Goods::Weights(_) => self.metrics.weights_fetched(result),
        }
    }

    fn scanned(&mut self, result: Result<BTreeMap<EntryId, Named>, String>) {
        let outdated = self.scanning.take().is_none_or(|scan| scan.outdated);
        match result {
            Ok(names) if !outdated => {
                for (id, named) in &names {
                    let known = self.world.weights.as_ref().and_then(|weights| weights.get(id));
                    if let Some(problem) = &named.problem
                        && known.is_none_or(|known| known.problem.as_ref() != Some(problem))
                        && !self.world.stuck.contains_key(id)
                    {
                        tracing::info!(entry = %id, problem, "weights in the cache are not warm");
                    }
                }
                if self.world.cache_problem.take().is_some() {
                    tracing::info!("the cache's directory is back");
                }
                self.world.stuck.retain(|id, _| names.contains_key(id));
                self.world.weights = Some(names);
            }
            // Again at once: what the jobs did meanwhile must be in it.
            Ok(_) => self.rescan_at = Instant::now(),
            Err(message) => tracing::error!("cannot read the cache: {message}"),
        }
    }

    pub(super) fn outdate_scan(&mut self) {
        if let Some(scan) = &mut self.scanning {
            scan.outdated = true;
        }
    }
}

/// Once more after a growing delay; said only when it's news.
fn again(before: Option<Stuck>, problem: String, what: &str) -> Stuck {
    if before.as_ref().is_none_or(|before| before.problem != problem) {
        tracing::error!("{what}: {problem}");
    }
    let mut attempts = before.map_or_else(|| Attempts::new(TAKE_AWAY), |before| before.attempts);
    let wait = attempts.failed_with(ErrorKind::Local, fastrand::f64()).unwrap_or(TAKE_AWAY.longest);
    Stuck { attempts, retry_at: Instant::now() + wait, problem }
}

/// How often it's looked whether somebody still uses what nobody lists.
const STILL_USED: Duration = Duration::from_secs(30);

/// What somebody uses stays until it's no longer used. Said only when it's news.
fn used(before: Option<Stuck>, problem: String) -> Stuck {
    if before.as_ref().is_none_or(|before| before.problem != problem) {
        tracing::info!("names of weights stay: {problem}");
    }
    let attempts = Attempts::new(TAKE_AWAY);
    Stuck { attempts, retry_at: Instant::now() + STILL_USED, problem }
}
