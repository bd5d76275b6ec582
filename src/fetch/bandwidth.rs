use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// How many bytes a second all fetches may bring together. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Bandwidth(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    bucket: Mutex<Option<Bucket>>,
    changed: Notify,
}

/// What may come at once after a time without bytes: else a cap near the link's own rate would cost some of it.
const BURST: Duration = Duration::from_millis(100);

impl Bandwidth {
    /// From now on so many bytes a second; `None` is no limit. It holds for what is under way too.
    pub fn set(&self, bytes_a_second: Option<NonZeroU64>) {
        *self.bucket() = bytes_a_second.map(|rate| Bucket::new(rate, Instant::now()));
        self.0.changed.notify_waiters();
    }

    /// Waits until so many bytes, which have come, are within the limit. Who doesn't read on meanwhile has the server
    /// send no faster.
    ///
    /// The answer is how long that took.
    pub(super) async fn pass(&self, bytes: u64) -> Duration {
        let changed = self.0.changed.notified();
        let now = Instant::now();
        let wait = self.bucket().as_mut().map_or(Duration::ZERO, |bucket| bucket.take(bytes, now));
        if wait.is_zero() {
            return wait;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            // Under the new limit they have come already.
            () = changed => {}
        }
        now.elapsed()
    }

    fn bucket(&self) -> MutexGuard<'_, Option<Bucket>> {
        self.0.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Pure.
#[derive(Debug)]
struct Bucket {
    /// Bytes a second.
    rate: f64,
    /// When all bytes so far are within the rate.
    clear: Instant,
}

impl Bucket {
    fn new(rate: NonZeroU64, now: Instant) -> Self {
        Self { rate: rate.get() as f64, clear: now }
    }

    /// How long to wait for so many bytes more.
    fn take(&mut self, bytes: u64, now: Instant) -> Duration {
        let time = Duration::try_from_secs_f64(bytes as f64 / self.rate).unwrap_or(Duration::MAX);
        let begun = self.clear.max(now.checked_sub(BURST).unwrap_or(now));
        self.clear = begun.checked_add(time).unwrap_or(begun);
        self.clear.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rate(bytes: u64) -> Option<NonZeroU64> {
        NonZeroU64::new(bytes)
    }

    #[tokio::test(start_paused = true)]
    async fn all_together_are_as_fast_as_the_limit_says() {
        let bandwidth = Bandwidth::default();
        bandwidth.set(rate(1_000_000));
        let begun = Instant::now();
        let lane = || async {
            for _ in 0..100 {
                bandwidth.pass(10_000).await;
            }
        };
        futures::future::join_all((0..4).map(|_| lane())).await;
        let took = begun.elapsed();
        assert!(took > SECOND * 37 / 10 && took < SECOND * 41 / 10, "4 MB at 1 MB/s took {took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nobody_waits_and_a_new_one_holds_at_once() {
        let bandwidth = Bandwidth::default();
        assert!(bandwidth.pass(u64::MAX).now_or_never().is_some());
        bandwidth.set(rate(1));
        let waits = bandwidth.pass(1_000_000);
        tokio::pin!(waits);
        assert!(futures::poll!(&mut waits).is_pending());
        bandwidth.set(None);
        assert!(waits.now_or_never().is_some(), "who waited under the old limit goes on");
        bandwidth.set(rate(1000));
        let begun = Instant::now();
        bandwidth.pass(5000).await;
        assert!(begun.elapsed() >= SECOND * 4);
    }

    proptest! {
        /// Over any stretch no more comes than the rate allows, and a burst.
        #[test]
        fn no_stretch_has_more_than_the_rate(
            bytes in 1_u64..1 << 40,
            takes in prop::collection::vec((0_u64..1 << 20, 0_u64..500), 1..200),
        ) {
            let mut now = Instant::now();
            let begun = now;
            let mut bucket = Bucket::new(rate(bytes).unwrap(), now);
            let mut came = 0;
            for (count, pause) in takes {
                now += bucket.take(count, now);
                came += count;
                let most = bytes as f64 * ((now - begun) + BURST).as_secs_f64() + 1.0;
                prop_assert!(came as f64 <= most * 1.000_001, "{came} in {:?}", now - begun);
                now += Duration::from_millis(pause);
            }
        }
    }
}
