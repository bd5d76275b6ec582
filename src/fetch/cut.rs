use super::{ALIGNMENT, Limits};

/// How a blob is cut into ranges, and a range into pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// Every range alike, each one piece: for a disk, which likes long writes, in any order.
    Even,
    /// Short at first and growing, in short pieces, and no more ahead of the reader than a fair share of all memory:
    /// for a reader who should begin soon, among others who read other blobs. Were it not for the share, the memory
    /// would gather with the slowest of them.
    Growing,
}

/// How far one blob may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reach {
    /// Bytes of the next range.
    pub(super) range: u64,
    /// Bytes ahead of the reader.
    pub(super) window: u64,
}

/// What one stream takes of memory, for as long as it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    /// Bytes in one piece.
    pub(super) piece: u64,
    /// Bytes in all.
    pub(super) memory: u64,
}

/// Of a range, in `Cut::Growing`: every piece.
const SHORT: u64 = 16;

/// Of a range, in `Cut::Growing`: a blob that isn't longer is not worth a second request.
const SMALL: u64 = 4;

impl Cut {
    /// Whether a blob of `size` bytes comes in one stream, since more would not pay.
    pub(super) fn is_small(self, size: u64, limits: Limits) -> bool {
        match self {
            Self::Even => size <= limits.range,
            Self::Growing => size <= limits.range / SMALL,
        }
    }

    /// Bytes in one piece of a range.
    pub(super) fn piece(self, limits: Limits) -> u64 {
        match self {
            Self::Even => limits.range,
            Self::Growing => pages(limits.range / SHORT),
        }
    }

    /// The reach of a blob of which `begun` ranges are on their way or here already, when `readers` share the
    /// memory.
    pub(super) fn reach(self, limits: Limits, begun: u32, readers: u64) -> Reach {
        let window = limits.range.saturating_mul(2 * limits.per_blob as u64);
        if self == Self::Even {
            return Reach { range: limits.range, window };
        }
        let readers = readers.max(1);
        let share = limits.memory / readers;
        let lanes = (limits.per_origin as u64).div_ceil(readers).clamp(1, limits.per_blob as u64);
        // Short enough for all lanes to be busy within the share; but when there are more readers than connections,
        // shorter ones would only be more requests.
        let longest = (share / lanes).max(limits.memory / limits.per_origin as u64).min(limits.range);
        // Each lane's first range is twice as long as the one before it: they end one after the other, and the
        // reader gets what all of them bring from the beginning.
        let first = (longest >> (lanes - 1).min(32)).max(self.piece(limits));
        let range = first.saturating_mul(1 << begun.min(32)).min(longest);
        // Less than two ranges, and every lane would wait for the reader between them.
        Reach { range: pages(range), window: window.min(share.max(longest.saturating_mul(2))) }
    }

    /// What one stream for the last `left` bytes of a blob takes of memory.
    pub(super) fn stream(self, limits: Limits, left: u64) -> Share {
        match self {
            Self::Even if left <= limits.range => Share { piece: left, memory: left },
            // One is filled while the other is hashed and written.
            Self::Even => {
                let piece = pages(limits.range / 2);
                Share { piece, memory: 2 * piece }
            }
            Self::Growing => Share { piece: self.piece(limits), memory: left.min(limits.range) },
        }
    }
}

/// Whole pages, and at least one.
fn pages(bytes: u64) -> u64 {
    let page = ALIGNMENT as u64;
    (bytes / page * page).max(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn ranges(readers: u64) -> Vec<u64> {
        (0..6).map(|begun| Cut::Growing.reach(Limits::default(), begun, readers).range / MIB).collect()
    }

    fn window(readers: u64) -> u64 {
        Cut::Growing.reach(Limits::default(), 9, readers).window / MIB
    }

    #[test]
    fn a_reader_begins_soon_and_goes_on_in_long_ranges() {
        assert_eq!(ranges(1), [2, 4, 8, 16, 16, 16]);
        assert_eq!(window(1), 128);
    }

    #[test]
    fn many_readers_share_the_memory_and_keep_all_connections_busy() {
        assert_eq!(ranges(4), [1, 2, 4, 8, 8, 8]);
        assert_eq!(window(4), 32);
        assert_eq!(ranges(8), [4, 8, 8, 8, 8, 8]);
        assert_eq!(window(8), 16);
        assert_eq!(ranges(100), [8; 6]);
        assert_eq!(window(100), 16);
    }

    #[test]
    fn for_a_disk_all_ranges_are_alike_whoever_else_is_there() {
        for (begun, readers) in [(0, 1), (9, 100)] {
            let reach = Cut::Even.reach(Limits::default(), begun, readers);
            assert_eq!(reach, Reach { range: 16 * MIB, window: 128 * MIB });
        }
    }

    #[test]
    fn a_stream_never_takes_more_than_a_range() {
        let limits = Limits::default();
        assert_eq!(Cut::Even.stream(limits, 5), Share { piece: 5, memory: 5 });
        assert_eq!(Cut::Even.stream(limits, 1 << 40), Share { piece: 8 * MIB, memory: 16 * MIB });
        assert_eq!(Cut::Growing.stream(limits, 5), Share { piece: MIB, memory: 5 });
        assert_eq!(Cut::Growing.stream(limits, 1 << 40), Share { piece: MIB, memory: 16 * MIB });
    }
}
