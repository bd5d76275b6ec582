use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Bytes in one block: small enough to be in the second cache while it's hashed and unpacked.
pub(super) const BLOCK: usize = 512 << 10;

/// Blocks of one layer at most, hence its memory: 3 MiB.
pub(super) const BLOCKS: usize = 6;

/// The blocks of one layer. Whoever wants one waits until there is one, so the pool bounds both the memory and how far
/// one stage runs ahead of another.
#[derive(Debug, Clone, Default)]
pub(super) struct Pool(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    given_back: Condvar,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Box<[u8]>>,
    made: usize,
}

/// A block that is being filled. It goes back to its pool when it's dropped.
#[derive(Debug)]
pub(super) struct Block {
    /// Always `BLOCK` bytes long, until it's taken when the block is dropped.
    bytes: Box<[u8]>,
    pool: Pool,
    /// What the first bytes are filled up to.
    filled: usize,
}

impl Pool {
    /// A block with nothing in it. Waits for one; they come back also when the other stages stop.
    pub(super) fn take(&self) -> Block {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = loop {
            if let Some(bytes) = state.idle.pop() {
                break bytes;
            }
            if state.made < BLOCKS {
                state.made += 1;
                drop(state);
                break vec![0; BLOCK].into_boxed_slice();
            }
            state = self.0.given_back.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        Block { bytes, pool: self.clone(), filled: 0 }
    }
}

impl Block {
    /// Where the next bytes go.
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[self.filled..]
    }

    /// Says that the first `len` bytes of the room are filled.
    pub(super) fn fill(&mut self, len: usize) {
        self.filled = (self.filled + len).min(self.bytes.len());
    }

    pub(super) fn is_full(&self) -> bool {
        self.filled == self.bytes.len()
    }
}

/// The bytes that are filled.
impl Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.pool.0.state.lock().unwrap_or_else(PoisonError::into_inner).idle.push(bytes);
        self.pool.0.given_back.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_hands_out_so_many_and_waits_for_the_next() {
        let pool = Pool::default();
        let mut blocks: Vec<Block> = (0..BLOCKS).map(|_| pool.take()).collect();
        let first = blocks.swap_remove(0);
        let address = first.bytes.as_ptr() as usize;
        let waiting = std::thread::spawn({
            let pool = pool.clone();
            move || pool.take().bytes.as_ptr() as usize
        });
        drop(first);
        assert_eq!(waiting.join().unwrap(), address, "it's the one that came back");
        assert_eq!(pool.0.state.lock().unwrap().made, BLOCKS);
    }

    #[test]
    fn a_block_shows_what_was_filled_and_comes_back_empty() {
        let pool = Pool::default();
        let mut block = pool.take();
        assert!(block.is_empty() && !block.is_full());
        block.room()[..3].copy_from_slice(b"abc");
        block.fill(3);
        assert_eq!(&*block, b"abc");
        assert_eq!(block.room().len(), BLOCK - 3);
        block.fill(BLOCK);
        assert!(block.is_full());
        drop(block);
        assert!(pool.take().is_empty());
    }
}
