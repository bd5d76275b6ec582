use std::os::fd::{AsFd as _, OwnedFd};

use super::{Limits, TarSink as _, UnpackError, Unpacker, adopt_from_lowers};

/// Unpacks an uncompressed layer, given in pieces, into `root`, an empty directory. `lowers` are the directories of the
/// layers below, nearest first; without any it is an image's lowest layer. Gives the number of entries.
///
/// This is what a pull does in steps, in one: a building block for tests and fuzzing. Nothing is synced.
///
/// # Errors
/// When the stream is malformed, exceeds a limit, or can't be written.
pub fn unpack_layer<Piece: AsRef<[u8]>>(
    root: OwnedFd,
    pieces: impl IntoIterator<Item = Piece>,
    lowers: &[OwnedFd],
) -> Result<u64, UnpackError> {
    let top = root.try_clone().map_err(|cause| UnpackError::Write { entry: "/".to_owned(), cause })?;
    let mut unpacker = if lowers.is_empty() {
        Unpacker::lowest(root, Limits::default())?
    } else {
        Unpacker::new(root, Limits::default())?
    };
    for piece in pieces {
        unpacker.feed(piece.as_ref())?;
    }
    let unpacked = unpacker.finish()?;
    adopt_from_lowers(top.as_fd(), &unpacked.implied, lowers)?;
    Ok(unpacked.entries)
}
