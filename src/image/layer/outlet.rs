use std::sync::Arc;
use std::sync::mpsc as link;

use super::LayerError;
use super::blocks::{Block, Pool};

/// What a stage gets: a block, or `None` at the end of the tar stream. A link that is closed without it is a stage that
/// has failed.
pub(super) type Next = Option<Arc<Block>>;

/// Where the tar stream comes out, block by block, to everybody who wants it. The links need no bound of their own:
/// there are only so many blocks.
#[derive(Debug)]
pub(super) struct Outlet {
    pool: Pool,
    filling: Option<Block>,
    links: Vec<link::Sender<Next>>,
    /// Bytes so far.
    passed: u64,
    limit: u64,
}

impl Outlet {
    /// Lets out at most `limit` bytes.
    pub(super) fn new(links: Vec<link::Sender<Next>>, limit: u64) -> Self {
        Self { pool: Pool::default(), filling: None, links, passed: 0, limit }
    }

    /// Where the next bytes go; never empty. Waits until a block is free.
    pub(super) fn room(&mut self) -> &mut [u8] {
        let pool = &self.pool;
        self.filling.get_or_insert_with(|| pool.take()).room()
    }

    /// Says that the first `len` bytes of the room are filled. Full blocks go out.
    ///
    /// # Errors
    /// When it's more than the limit, or nobody takes blocks any more.
    pub(super) fn fill(&mut self, len: usize) -> Result<(), LayerError> {
        let Some(block) = &mut self.filling else { return Ok(()) };
        block.fill(len);
        self.passed += len as u64;
        if self.passed > self.limit {
            let problem = format!("it inflates to more than {} bytes, which no real layer does", self.limit);
            return Err(LayerError::Inflate { problem });
        }
        if block.is_full() { self.send_filled() } else { Ok(()) }
    }

    /// Ends the stream and says how long it was.
    ///
    /// # Errors
    /// When nobody takes blocks any more.
    pub(super) fn end(mut self) -> Result<u64, LayerError> {
        self.send_filled()?;
        self.send(&None)?;
        Ok(self.passed)
    }

    fn send_filled(&mut self) -> Result<(), LayerError> {
        match self.filling.take() {
            Some(block) if !block.is_empty() => self.send(&Some(Arc::new(block))),
            _ => Ok(()),
        }
    }

    fn send(&self, next: &Next) -> Result<(), LayerError> {
        // Whoever is gone has failed, and says why.
        self.links.iter().try_for_each(|link| link.send(next.clone())).map_err(|_| LayerError::Stopped)
    }
}
