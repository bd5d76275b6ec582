use std::sync::Arc;

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
    /// `kept` is the least length of a buffer that is worth keeping.
    pub(super) fn new(bytes: u64, kept: u64) -> Self {
        let most = u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX);
        let units = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX).clamp(1, most);
        let kept = usize::try_from(kept).unwrap_or(usize::MAX);
        let pool = Pool::new(u64::from(units) * UNIT, kept);
        Self { permits: Arc::new(Semaphore::new(units as usize)), units, pool }
    }

    /// The right to `bytes` of memory, when there is room for all of them: whoever holds some and waits for more
    /// could wait for somebody who does the same. More than the whole budget counts as all of it.
    pub(super) async fn grant(&self, bytes: u64) -> Grant {
        let wanted = units(bytes).min(self.units);
        // It fails only when the semaphore is closed, which nobody does.
        let permit = Arc::clone(&self.permits).acquire_many_owned(wanted).await.ok();
        Grant { pool: self.pool.clone(), permit }
    }

    /// Says that a fetch runs, so that buffers are kept between ranges.
    pub(super) fn user(&self) -> PoolUser {
        self.pool.user()
    }

    /// How many fetches run.
    pub(super) fn users(&self) -> u64 {
        self.pool.users() as u64
    }

    #[cfg(test)]
    pub(super) fn is_all_free(&self) -> bool {
        self.permits.available_permits() == self.units as usize && self.pool.idle() == 0
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).max(1)
}

/// The right to some memory. What isn't used of it goes back when it's dropped.
#[derive(Debug)]
pub(super) struct Grant {
    pool: Pool,
    permit: Option<OwnedSemaphorePermit>,
}

impl Grant {
    /// A buffer of `len` bytes, which takes its part of the right with it.
    pub(super) fn part(&mut self, len: usize) -> Lease {
        let permit = self.permit.as_mut().and_then(|permit| {
            let wanted = units(len as u64) as usize;
            permit.split(wanted.min(permit.num_permits()))
        });
        Lease { buffer: Some(self.pool.take(len)), pool: self.pool.clone(), permit }
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

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn memory_is_held_until_all_of_it_is_dropped() {
        let memory = Memory::new(8192, 4096);
        let mut first = memory.grant(4096).await;
        let second = memory.grant(4096).await;
        assert!(memory.grant(1).now_or_never().is_none());
        let part = first.part(2048);
        drop(first);
        assert!(memory.grant(2048).now_or_never().is_some());
        assert!(memory.grant(2049).now_or_never().is_none());
        drop(part);
        assert!(memory.grant(4096).now_or_never().is_some());
        drop(second);
    }

    #[tokio::test]
    async fn more_than_everything_is_everything() {
        let memory = Memory::new(8192, 4096);
        let mut all = memory.grant(1 << 20).await;
        let (first, second) = (all.part(1 << 19), all.part(1 << 19));
        assert_eq!((first.bytes().len(), second.bytes().len()), (1 << 19, 1 << 19));
        assert!(memory.grant(1).now_or_never().is_none());
        drop((all, first, second));
        assert!(memory.grant(8192).now_or_never().is_some());
    }

    #[tokio::test]
    async fn idle_buffers_stay_although_all_memory_is_granted() {
        let memory = Memory::new(16_384, 4096);
        let _user = memory.user();
        let (mut first, mut second) = (memory.grant(8192).await, memory.grant(8192).await);
        drop((first.part(4096), second.part(4096)));
        assert_eq!(memory.pool.idle(), 2);
        let _part = first.part(4096);
        assert_eq!(memory.pool.idle(), 1, "one is used again, and the other waits for its turn");
    }

    #[tokio::test]
    async fn idle_buffers_go_when_the_last_fetch_ends() {
        let memory = Memory::new(1 << 20, 4096);
        let (first, second) = (memory.user(), memory.user());
        drop(memory.grant(4096).await.part(4096));
        drop(first);
        assert!(!memory.is_all_free());
        drop(second);
        assert!(memory.is_all_free());
    }
}
