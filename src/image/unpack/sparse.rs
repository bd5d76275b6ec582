//! Where the data of a sparse file lies, as GNU tar says it in PAX records (GNU tar's manual, "Storing Sparse Files":
//! 0.0 and 0.1 in records, 1.0 in blocks before the data).

use super::header::BLOCK;
use super::number::decimal;
use super::pax::{MAP, Records};
use super::trouble::Trouble;

/// A piece of a file that has data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) start: u64,
    pub(super) len: u64,
}

/// How an entry's records describe it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Described {
    /// Not as a sparse file.
    Whole,
    /// With its map in the records.
    ByRecords,
    /// With its map in the first blocks of its content.
    ByContent,
}

/// The most that a map may take, in bytes; Go's own limit.
const MAP_LIMIT: usize = 1 << 20;

pub(super) fn described(records: &Records) -> Described {
    let version = (records.get("GNU.sparse.major"), records.get("GNU.sparse.minor"));
    match version {
        (Some(b"0"), Some(b"0" | b"1")) => Described::ByRecords,
        (Some(b"1"), Some(b"0")) => Described::ByContent,
        (None, None) if records.get(MAP).is_some() => Described::ByRecords,
        // A version that nobody knows is no sparse file, as in Go.
        _ => Described::Whole,
    }
}

/// The file's length.
pub(super) fn real_size(records: &Records) -> Result<Option<i64>, Trouble> {
    match records.number("GNU.sparse.size")? {
        Some(size) => Ok(Some(size)),
        None => records.number("GNU.sparse.realsize"),
    }
}

/// The map in records.
pub(super) fn from_records(records: &Records) -> Result<Vec<(i64, i64)>, Trouble> {
    let count = records.number("GNU.sparse.numblocks")?.ok_or_else(broken)?;
    let numbers: Vec<i64> = match records.get(MAP) {
        Some(map) => map.split(|&byte| byte == b',').map(decimal).collect::<Result<_, _>>()?,
        None => Vec::new(),
    };
    if count.checked_mul(2).and_then(|count| usize::try_from(count).ok()) != Some(numbers.len()) {
        return Err(broken());
    }
    Ok(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

/// The map in blocks, as they come: the number of pieces, then start and length of each, a line each.
#[derive(Debug, Default)]
pub(super) struct MapReader {
    taken: Vec<u8>,
    lines: usize,
    wanted: Option<usize>,
}

impl MapReader {
    /// An error where the content of `stored` bytes has no further block for the map.
    pub(super) fn blocks_within(&self, stored: u64) -> Result<(), Trouble> {
        if self.taken() + BLOCK as u64 > stored { Err(broken()) } else { Ok(()) }
    }

    /// Bytes taken in.
    pub(super) fn taken(&self) -> u64 {
        self.taken.len() as u64
    }

    /// Takes one block in; gives the map with its last one.
    pub(super) fn block(&mut self, block: &[u8; BLOCK]) -> Result<Option<Vec<(i64, i64)>>, Trouble> {
        if self.taken.len() + BLOCK > MAP_LIMIT {
            return Err(Trouble::OverLimit("its map of a sparse file is over 1 MiB".to_owned()));
        }
        self.taken.extend_from_slice(block);
        self.lines += block.iter().filter(|&&byte| byte == b'\n').count();
        if self.lines == 0 {
            return Ok(None);
        }
        let mut lines = self.taken.split(|&byte| byte == b'\n');
        let first = lines.next().unwrap_or_default();
        let wanted = match self.wanted {
            Some(wanted) => wanted,
            None => {
                let numbers =
                    decimal(first)?.checked_mul(2).and_then(|numbers| usize::try_from(numbers).ok());
                *self.wanted.insert(numbers.ok_or_else(broken)?)
            }
        };
        if self.lines - 1 < wanted {
            return Ok(None);
        }
        let numbers: Vec<i64> = lines.take(wanted).map(decimal).collect::<Result<_, _>>()?;
        Ok(Some(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()))
    }
}

/// Checks a map against the file's length: in order, without overlaps, nothing negative.
pub(super) fn checked(map: &[(i64, i64)], size: i64) -> Result<Vec<Piece>, Trouble> {
    let mut end = 0;
    let mut pieces = Vec::with_capacity(map.len());
    for &(start, len) in map {
        let fits = start >= end && len >= 0 && start.checked_add(len).is_some_and(|end| end <= size);
        if !fits {
            return Err(broken());
        }
        end = start + len;
        if len > 0 {
            pieces.push(Piece { start: start.cast_unsigned(), len: len.cast_unsigned() });
        }
    }
    Ok(pieces)
}

fn broken() -> Trouble {
    Trouble::malformed("its map of a sparse file is broken")
}

#[cfg(test)]
mod tests {
    use super::*;

    type Map = Vec<(i64, i64)>;

    /// The map, and the number of its blocks.
    fn read(text: &[u8]) -> Result<Option<(Map, usize)>, Trouble> {
        let mut reader = MapReader::default();
        for (i, chunk) in text.chunks(BLOCK).enumerate() {
            let mut block = [0; BLOCK];
            block[..chunk.len()].copy_from_slice(chunk);
            if let Some(map) = reader.block(&block)? {
                return Ok(Some((map, i + 1)));
            }
        }
        Ok(None)
    }

    #[test]
    fn a_map_in_blocks_ends_with_the_block_of_its_last_line() {
        assert_eq!(read(b"0\n").unwrap(), Some((vec![], 1)));
        assert_eq!(read(b"2\n0\n5\n+7\n1\n").unwrap(), Some((vec![(0, 5), (7, 1)], 1)));
        let long: String =
            std::iter::once("300\n".to_owned()).chain((0..300).map(|i| format!("{i}\n1\n"))).collect();
        let (map, blocks) = read(long.as_bytes()).unwrap().unwrap();
        assert_eq!((map.len(), map[299], blocks), (300, (299, 1), long.len().div_ceil(BLOCK)));
        assert_eq!(read(b"1\n5\n").unwrap(), None, "it isn't whole yet");
    }

    #[test]
    fn a_broken_or_endless_map_is_refused() {
        for text in
            [&b"x\n"[..], b"\n", b"-1\n", b"1\nx\n1\n", b"9223372036854775807\n", b"99999999999999999999\n"]
        {
            assert!(read(text).is_err(), "{text:?}");
        }
        assert!(matches!(read(&vec![b'1'; MAP_LIMIT + 1]), Err(Trouble::OverLimit(_))));
        assert!(matches!(read(&vec![b'\n'; BLOCK]), Err(Trouble::Malformed(_))));
    }

    #[test]
    fn a_map_must_fit_its_file() {
        let pieces = |map: &[(i64, i64)], size| checked(map, size).ok().map(|pieces| pieces.len());
        assert_eq!(pieces(&[], 0), Some(0));
        assert_eq!(pieces(&[(0, 5), (5, 0), (7, 3)], 10), Some(2));
        for (map, size) in [
            (&[(0, 5), (4, 1)][..], 10),
            (&[(7, 3), (0, 1)], 10),
            (&[(7, 4)], 10),
            (&[(-1, 4)], 10),
            (&[(1, -1)], 10),
            (&[(i64::MAX, 1)], i64::MAX),
            (&[(11, 0)], 10),
        ] {
            assert_eq!(pieces(map, size), None, "{map:?}");
        }
    }
}
