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
    /// One range and one piece, however its server stores it: for a small blob that is kept in memory. Its memory is
    /// granted at once, so nobody who holds a part of one waits for the rest.
    Whole,
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
            // The one range that it is may be late like any other.
            Self::Even | Self::Whole => false,
            Self::Growing => size <= limits.range / SMALL,
        }
    }

    /// Bytes in one piece of a range of `range` bytes.
    pub(super) fn piece(self, limits: Limits, range: u64) -> u64 {
        match self {
            Self::Even | Self::Whole => range,
            Self::Growing => pages(limits.range / SHORT),
        }
    }

    /// Ranges of one blob that are begun at once, where its server may have so many `connections`.
    pub(super) fn lanes(self, limits: Limits, connections: usize) -> usize {
        match self {
            // Some have their memory and wait for a connection, so that none is ever idle.
            Self::Even => connections + connections / 4 + 1,
            Self::Growing => limits.per_blob,
            Self::Whole => 1,
        }
    }

    /// The range of at most `range` bytes to ask for, of a blob that its server stores in parts of `part` bytes.
    pub(super) fn fit(self, range: u64, part: Option<u64>) -> u64 {
        match self {
            Self::Even | Self::Growing => fit(range, part),
            Self::Whole => range,
        }
    }

    /// The reach of a blob of which `begun` ranges are on their way or here already, when `readers` share the
    /// memory and its server may have so many `connections`.
    pub(super) fn reach(self, limits: Limits, begun: u32, readers: u64, connections: usize) -> Reach {
        let connections = connections.max(1) as u64;
        match self {
            Self::Even => return Reach { range: even(limits, connections), window: limits.memory },
            Self::Whole => return Reach { range: limits.range, window: limits.range },
            Self::Growing => {}
        }
        let window = limits.range.saturating_mul(2 * limits.per_blob as u64);
        let readers = readers.max(1);
        let share = limits.memory / readers;
        let lanes = connections.div_ceil(readers).clamp(1, limits.per_blob as u64);
        // Short enough for all lanes to be busy within the share; but when there are more readers than connections,
        // shorter ones would only be more requests.
        let longest = (share / lanes).max(limits.memory / connections).min(limits.range);
        // Each lane's first range is twice as long as the one before it: they end one after the other, and the
        // reader gets what all of them bring from the beginning.
        let first = (longest >> (lanes - 1).min(32)).max(self.piece(limits, longest));
        let range = first.saturating_mul(1 << begun.min(32)).min(longest);
        // Less than two ranges, and every lane would wait for the reader between them.
        Reach { range: pages(range), window: window.min(share.max(longest.saturating_mul(2))) }
    }

    /// What one stream for the last `left` bytes of a blob takes of memory.
    pub(super) fn stream(self, limits: Limits, left: u64) -> Share {
        match self {
            Self::Even | Self::Whole if left <= limits.range => Share { piece: left, memory: left },
            // One is filled while the other is hashed and written.
            Self::Even | Self::Whole => {
                let piece = pages(limits.range / 2);
                Share { piece, memory: 2 * piece }
            }
            Self::Growing => Share { piece: self.piece(limits, left), memory: left.min(limits.range) },
        }
    }
}

/// The longest range with which each connection can have one, and the hash and the disk a few; one of a few lengths, so
/// that buffers can be used again.
fn even(limits: Limits, connections: u64) -> u64 {
    let most = limits.memory / (connections + connections.div_ceil(4));
    let halves = (0..=SHORT.ilog2()).map(|halvings| limits.range >> halvings);
    let lengths = halves.flat_map(|length| [length, length / 4 * 3]);
    pages(
        lengths
            .take_while(|length| *length >= limits.range / SHORT)
            .find(|length| *length <= most)
            .unwrap_or(limits.range / SHORT),
    )
}

/// The length of a range of at most `range` bytes that fits into stored parts of `part` bytes: some whole parts, or an
/// even share of one.
fn fit(range: u64, part: Option<u64>) -> u64 {
    match part {
        Some(part) if part <= range => range / part * part,
        Some(part) => part.div_ceil(part.div_ceil(range)).next_multiple_of(ALIGNMENT as u64),
        None => range,
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
        (0..6).map(|begun| Cut::Growing.reach(Limits::default(), begun, readers, 16).range / MIB).collect()
    }

    fn window(readers: u64) -> u64 {
        Cut::Growing.reach(Limits::default(), 9, readers, 16).window / MIB
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
    fn for_a_disk_all_ranges_are_alike_and_the_shorter_the_more_there_are() {
        let range = |connections| {
            let reach = Cut::Even.reach(Limits::default(), 0, 1, connections);
            assert_eq!(reach, Cut::Even.reach(Limits::default(), 9, 100, connections));
            assert_eq!(reach.window, 128 * MIB);
            reach.range as f64 / MIB as f64
        };
        let ranges = [1, 4, 6, 8, 12, 16, 24, 32, 48, 64, 1000].map(range);
        assert_eq!(ranges, [16.0, 16.0, 16.0, 12.0, 8.0, 6.0, 4.0, 3.0, 2.0, 1.5, 1.0]);
    }

    #[test]
    fn ranges_fit_into_stored_parts() {
        assert_eq!(fit(16 * MIB, None), 16 * MIB);
        assert_eq!(fit(16 * MIB, Some(5 * MIB)), 15 * MIB);
        assert_eq!(fit(16 * MIB, Some(16 * MIB)), 16 * MIB);
        assert_eq!(fit(16 * MIB, Some(64 * MIB)), 16 * MIB);
        assert_eq!(fit(6 * MIB, Some(8 * MIB)), 4 * MIB);
        assert_eq!(fit(6 * MIB, Some(20 * MIB)), 5 * MIB);
        assert_eq!(fit(4096, Some(3 * 4096)), 4096);
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
