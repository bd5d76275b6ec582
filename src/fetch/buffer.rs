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
    /// Bytes that what is idle and what is in use may take together.
    most: u64,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Buffer>,
    /// Bytes in use.
    used: u64,
    /// While nobody uses the pool, nothing is kept.
    users: usize,
}

impl Pool {
    /// For `most` bytes; `kept` is the least length that is worth keeping.
    pub(super) fn new(most: u64, kept: usize) -> Self {
        Self { kept, most, state: Arc::default() }
    }

    /// A buffer of `len` bytes with anything in it. Idle ones are let go until there's room for it: what is only
    /// granted has no buffer yet, and takes none away.
    pub(super) fn take(&self, len: usize) -> Buffer {
        let mut state = self.state();
        let kept = state.idle.iter().rposition(|buffer| buffer.len == len);
        let kept = kept.map(|at| state.idle.swap_remove(at));
        state.used += len as u64;
        let mut bytes = state.used + state.idle.iter().map(|buffer| buffer.len as u64).sum::<u64>();
        let mut freed = Vec::new();
        while bytes > self.most
            && let Some(buffer) = state.idle.pop()
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
        state.used = state.used.saturating_sub(buffer.len as u64);
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
    fn only_long_ones_are_kept_and_only_as_many_as_there_is_room_for() {
        let pool = Pool::new(8192 * 4 + 100, 4096);
        let user = pool.user();
        let taken: Vec<Buffer> = [8192, 4096, 8192, 8192, 100].map(|len| pool.take(len)).into();
        taken.into_iter().for_each(|buffer| pool.give_back(buffer));
        assert_eq!(pool.idle(), 4);
        let one = pool.take(8192);
        assert_eq!((one.bytes().len(), pool.idle()), (8192, 3));
        let other = pool.take(12_288);
        assert_eq!((other.bytes().len(), pool.idle()), (12_288, 2));
        for buffer in [one, other] {
            pool.give_back(buffer);
        }
        assert_eq!(pool.idle(), 4);
        drop(user);
        assert_eq!(pool.idle(), 0);
        pool.give_back(Buffer::new(8192));
        assert_eq!(pool.idle(), 0, "nobody is there to use it");
    }
}
