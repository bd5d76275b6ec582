use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::buffer::{Buffer, Pool, PoolUser};

/// What a permit counts: semaphores count in u32, and 4 GiB of single bytes would be too few.
const UNIT: u64 = 1024;

/// The bytes that may be in memory at once, over all blobs. Whoever waits is served in turn.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    permits: Arc<Semaphore>,
    units: u32,
    pool: Pool,
}

impl Memory {
    /// `range` is the length of the buffers that are worth keeping.
    pub(super) fn new(bytes: u64, range: usize) -> Self {
        let most = u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX);
        let units = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX).clamp(1, most);
        Self { permits: Arc::new(Semaphore::new(units as usize)), units, pool: Pool::new(range) }
    }

    /// A buffer of `len` bytes, when there is room for it. More than the whole budget counts as all of it.
    pub(super) async fn lease(&self, len: usize) -> Lease {
        let permit = self.permit(len, 1).await;
        self.fill(len, permit)
    }

    /// Two buffers of `len` bytes, granted together: whoever holds one and waits for a second could wait for
    /// somebody who does the same.
    pub(super) async fn lease_two(&self, len: usize) -> [Lease; 2] {
        let mut both = self.permit(len, 2).await;
        let half = both.as_mut().and_then(|both| both.split(both.num_permits() / 2));
        [self.fill(len, half), self.fill(len, both)]
    }

    async fn permit(&self, len: usize, times: u32) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from((len as u64).div_ceil(UNIT)).unwrap_or(u32::MAX).max(1);
        let wanted = units.saturating_mul(times).min(self.units);
        // It fails only when the semaphore is closed, which nobody does.
        Arc::clone(&self.permits).acquire_many_owned(wanted).await.ok()
    }

    fn fill(&self, len: usize, permit: Option<OwnedSemaphorePermit>) -> Lease {
        let spare = self.permits.available_permits() as u64 * UNIT;
        Lease { buffer: Some(self.pool.take(len, spare)), pool: self.pool.clone(), permit }
    }

    /// Says that a fetch runs, so that buffers are kept between ranges.
    pub(super) fn user(&self) -> PoolUser {
        self.pool.user()
    }

    #[cfg(test)]
    pub(super) fn is_all_free(&self) -> bool {
        self.permits.available_permits() == self.units as usize && self.pool.idle() == 0
    }
}

/// A buffer and the right to have it. Both go back when it's dropped.
#[derive(Debug)]
pub(super) struct Lease {
    buffer: Option<Buffer>,
    pool: Pool,
    permit: Option<OwnedSemaphorePermit>,
}

impl Lease {
    pub(super) fn bytes(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], Buffer::bytes)
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        self.buffer.as_mut().map_or(&mut [], Buffer::bytes_mut)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // The buffer first: whoever is granted the permit should find it.
        if let Some(buffer) = self.buffer.take() {
            self.pool.give_back(buffer);
        }
        self.permit = None;
    }
}

/// The connections to each server.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    per_origin: usize,
    origins: Arc<Mutex<HashMap<String, Arc<Semaphore>>>>,
}

/// From here on, servers that nobody is connected to are forgotten.
const REMEMBERED: usize = 64;

impl Connections {
    pub(super) fn new(per_origin: usize) -> Self {
        Self { per_origin: per_origin.clamp(1, Semaphore::MAX_PERMITS), origins: Arc::default() }
    }

    /// The right to one more connection to `origin`, for as long as it's held.
    pub(super) async fn one(&self, origin: &str) -> Option<OwnedSemaphorePermit> {
        let semaphore = {
            let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
            if origins.len() >= REMEMBERED {
                // A permit holds its semaphore, and so does whoever waits for one.
                origins.retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
            }
            let new = || Arc::new(Semaphore::new(self.per_origin));
            Arc::clone(origins.entry(origin.to_owned()).or_insert_with(new))
        };
        semaphore.acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_lease_holds_its_memory_until_it_is_dropped() {
        let memory = Memory::new(8192, 4096);
        let first = memory.lease(4096).await;
        let second = memory.lease(4096).await;
        assert!(memory.lease(1).now_or_never().is_none());
        drop(first);
        assert!(memory.lease(4096).now_or_never().is_some());
        drop(second);
    }

    #[tokio::test]
    async fn more_than_everything_is_everything() {
        let memory = Memory::new(8192, 4096);
        let all = memory.lease(1 << 20).await;
        assert_eq!(all.bytes().len(), 1 << 20);
        assert!(memory.lease(1).now_or_never().is_none());
        drop(all);
        let two = memory.lease_two(4096).await;
        assert!(memory.lease(1).now_or_never().is_none());
        drop(two);
        assert!(memory.lease(8192).now_or_never().is_some());
    }

    #[tokio::test]
    async fn idle_buffers_go_when_the_last_fetch_ends() {
        let memory = Memory::new(1 << 20, 4096);
        let (first, second) = (memory.user(), memory.user());
        drop(memory.lease(4096).await);
        drop(first);
        assert!(!memory.is_all_free());
        drop(second);
        assert!(memory.is_all_free());
    }

    #[tokio::test]
    async fn each_server_has_its_own_connections_and_old_ones_are_forgotten() {
        let connections = Connections::new(1);
        let held = connections.one("a:443").await;
        assert!(connections.one("a:443").now_or_never().is_none());
        assert!(connections.one("b:443").now_or_never().is_some());
        for number in 0..200 {
            drop(connections.one(&format!("{number}:443")).await);
        }
        assert!(connections.origins.lock().unwrap().len() <= REMEMBERED + 1);
        assert!(connections.one("a:443").now_or_never().is_none(), "the one in use is remembered");
        drop(held);
        assert!(connections.one("a:443").now_or_never().is_some());
    }
}
