use std::io;

use crate::types::Hasher;

/// What O_DIRECT wants of addresses, offsets and lengths, in bytes, on every disk that matters.
pub const ALIGNMENT: usize = 4096;

/// Where the bytes of one blob end up.
pub trait Sink: Send + Sync {
    /// Writes all of `bytes` at `offset` of the blob. Called on blocking threads, by several at once, in any order;
    /// never twice for the same byte of one fetch. Never called with no bytes.
    ///
    /// Both `offset` and the address of `bytes` are multiples of [`ALIGNMENT`], and so is the length, except
    /// where `bytes` ends the blob: a file may be written past the page cache (O_DIRECT), but for its last bytes.
    ///
    /// # Errors
    /// Any ends the fetch.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Fills `bytes` with what an earlier fetch has written at `offset`. Called on blocking threads, and only for
    /// what [`Kept`](super::Kept) names.
    ///
    /// # Errors
    /// Any ends the fetch.
    fn read_at(&self, _offset: u64, _bytes: &mut [u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Hears that `hasher` has taken in all bytes before `upto`, whether or not they are written yet. Called on
    /// blocking threads, in order.
    fn hashed(&self, _upto: u64, _hasher: &Hasher) {}
}
