use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::types::{Crc, CrcKind};

/// Bytes of a file that is read back that are in memory at once.
const READ_AT_ONCE: usize = 256 << 10;

/// The check of a whole file from those of its pieces, which come in any order: computed while the bytes are in memory
/// anyway, so that nothing is read for it but what an earlier run wrote.
#[derive(Debug)]
pub(super) struct Sums {
    kind: CrcKind,
    /// By where each begins; none lies over another.
    pieces: Mutex<BTreeMap<u64, Piece>>,
}

#[derive(Debug, Clone, Copy)]
struct Piece {
    end: u64,
    crc: Crc,
}

impl Sums {
    pub(super) fn new(kind: CrcKind) -> Self {
        Self { kind, pieces: Mutex::default() }
    }

    fn pieces(&self) -> MutexGuard<'_, BTreeMap<u64, Piece>> {
        // Whole between any two statements that could panic.
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These bytes are in the file now. What was there before counts no longer, also where it reaches beyond them.
    pub(super) fn written(&self, offset: u64, bytes: &[u8]) {
        let new = Piece { end: offset + bytes.len() as u64, crc: Crc::of(self.kind, bytes) };
        let mut pieces = self.pieces();
        let over = pieces.range(..new.end).rev().take_while(|(_, old)| old.end > offset);
        let over: Vec<u64> = over.map(|(start, _)| *start).collect();
        for start in over {
            pieces.remove(&start);
        }
        pieces.insert(offset, new);
    }

    /// The check of all `size` bytes; those that it wasn't told of are read.
    pub(super) fn whole(
        &self,
        size: u64,
        mut read: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<Crc> {
        let pieces = self.pieces().clone();
        let mut buffer = Vec::new();
        let (mut whole, mut at) = (Crc::of(self.kind, &[]), 0);
        while at < size {
            let piece = pieces.get(&at).copied();
            let (next, end) = match piece {
                Some(piece) => (piece.crc, piece.end),
                None => {
                    let until = pieces.range(at..).next().map_or(size, |(start, _)| *start).min(size);
                    let length = usize::try_from(until - at).unwrap_or(usize::MAX).min(READ_AT_ONCE);
                    buffer.resize(length, 0);
                    read(at, &mut buffer)?;
                    (Crc::of(self.kind, &buffer), at + length as u64)
                }
            };
            whole = if at == 0 { next } else { whole.then(next, end - at) };
            at = end;
        }
        Ok(whole)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_from(file: &[u8]) -> impl FnMut(u64, &mut [u8]) -> io::Result<()> {
        |offset, bytes| {
            bytes.copy_from_slice(&file[offset as usize..][..bytes.len()]);
            Ok(())
        }
    }

    #[test]
    fn nothing_is_read_of_what_was_written() {
        let file: Vec<u8> = (0..100).collect();
        let sums = Sums::new(CrcKind::Crc64Nvme);
        sums.written(60, &file[60..]);
        sums.written(0, &file[..60]);
        let nothing = |_, _: &mut [u8]| -> io::Result<()> { Err(io::ErrorKind::Unsupported.into()) };
        assert_eq!(sums.whole(100, nothing).unwrap(), Crc::of(CrcKind::Crc64Nvme, &file));
        let sums = Sums::new(CrcKind::Crc32c);
        assert_eq!(sums.whole(0, nothing).unwrap(), Crc::of(CrcKind::Crc32c, b""));
    }

    proptest! {
        #[test]
        fn whatever_is_written_over_what_it_is_the_sum_of_the_file(
            size in 1_usize..400,
            writes in proptest::collection::vec((0_usize..400, 1_usize..200, any::<u8>()), 0..20),
        ) {
            let mut file: Vec<u8> = (0..size).map(|at| at as u8).collect();
            let sums = Sums::new(CrcKind::Crc32);
            for (start, length, byte) in writes {
                let (start, end) = (start.min(size - 1), (start + length).min(size));
                if start < end {
                    file[start..end].fill(byte);
                    sums.written(start as u64, &file[start..end]);
                }
            }
            let whole = sums.whole(size as u64, read_from(&file)).unwrap();
            prop_assert_eq!(whole, Crc::of(CrcKind::Crc32, &file));
        }
    }
}
