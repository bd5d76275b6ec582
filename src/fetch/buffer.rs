use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::ALIGNMENT;

/// Bytes that start at a multiple of [`ALIGNMENT`], so that a sink can write them past the page cache.
#[derive(Debug)]
pub(super) struct Buffer {
    /// Longer than wanted, so that an aligned start lies in it. Never grows, so it never moves.
    storage: Box<[u8]>,
    start: usize,
    len: usize,
}

impl Buffer {
    fn new(len: usize) -> Self {
        let storage = vec![0; len + ALIGNMENT].into_boxed_slice();
        // `align_offset` may give up with usize::MAX, on paper; an unaligned buffer is then still a buffer.
        let start = storage.as_ptr().align_offset(ALIGNMENT);
        Self { start: if start > ALIGNMENT { 0 } else { start }, storage, len }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.storage[self.start..self.start + self.len]
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.storage[self.start..self.start + self.len]
    }
}

/// Long buffers, kept for the next one of the same length: fresh pages cost a page fault every 4 KiB.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    kept: usize,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Buffer>,
    /// While nobody uses the pool, nothing is kept.
    users: usize,
}

impl Pool {
    /// `kept` is the least length that is worth keeping.
    pub(super) fn new(kept: usize) -> Self {
        Self { kept, state: Arc::default() }
    }

    /// A buffer of `len` bytes with anything in it. Idle ones are let go until they take no more than `spare`
    /// bytes: what is idle and what is in use never exceed the budget together.
    pub(super) fn take(&self, len: usize, spare: u64) -> Buffer {
        let mut state = self.state();
        let idle = &mut state.idle;
        let kept = idle.iter().rposition(|buffer| buffer.len == len).map(|at| idle.swap_remove(at));
        let mut bytes: u64 = idle.iter().map(|buffer| buffer.len as u64).sum();
        let mut freed = Vec::new();
        while bytes > spare
            && let Some(buffer) = idle.pop()
        {
            bytes -= buffer.len as u64;
            freed.push(buffer);
        }
        // Unmapping takes a while; nobody should wait for it.
        drop(state);
        drop(freed);
        kept.unwrap_or_else(|| Buffer::new(len))
    }

    pub(super) fn give_back(&self, buffer: Buffer) {
        let mut state = self.state();
        if buffer.len >= self.kept && state.users > 0 {
            state.idle.push(buffer);
        }
    }

    /// Says that a fetch runs. When the last one ends, what is idle is let go.
    pub(super) fn user(&self) -> PoolUser {
        self.state().users += 1;
        PoolUser(self.clone())
    }

    /// How many run.
    pub(super) fn users(&self) -> usize {
        self.state().users
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.state().idle.len()
    }
}

/// One running fetch.
#[derive(Debug)]
pub(super) struct PoolUser(Pool);

impl Drop for PoolUser {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.users = state.users.saturating_sub(1);
        let freed = if state.users == 0 { std::mem::take(&mut state.idle) } else { Vec::new() };
        drop(state);
        drop(freed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_buffer_starts_on_a_page() {
        for len in [1, 4095, 4096, 100_000] {
            let mut buffer = Buffer::new(len);
            assert_eq!(buffer.bytes().as_ptr().align_offset(ALIGNMENT), 0);
            assert_eq!(buffer.bytes_mut().len(), len);
        }
    }

    #[test]
    fn only_long_ones_are_kept_and_only_within_what_is_spare() {
        let pool = Pool::new(4096);
        let user = pool.user();
        for len in [8192, 4096, 8192, 8192, 100] {
            pool.give_back(Buffer::new(len));
        }
        assert_eq!(pool.idle(), 4);
        assert_eq!(pool.take(4096, 8192 * 5).bytes().len(), 4096);
        assert_eq!(pool.idle(), 3);
        assert_eq!(pool.take(8192, 8192 * 5).bytes().len(), 8192);
        assert_eq!(pool.idle(), 2);
        assert_eq!(pool.take(100, 8192 + 1).bytes().len(), 100);
        assert_eq!(pool.idle(), 1);
        assert_eq!(pool.take(4096, 8191).bytes().len(), 4096);
        assert_eq!(pool.idle(), 0);
        pool.give_back(Buffer::new(8192));
        drop(user);
        assert_eq!(pool.idle(), 0);
        pool.give_back(Buffer::new(8192));
        assert_eq!(pool.idle(), 0, "nobody is there to use it");
    }
}
