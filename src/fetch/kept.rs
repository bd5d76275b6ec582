use super::ALIGNMENT;
use crate::types::{ByteRange, Hasher};

/// What a sink has of a blob from an earlier fetch: it's not asked for again. By default, nothing.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    /// In order, with gaps between them.
    ranges: Vec<ByteRange>,
    /// How far the hasher is; no further than the first gap.
    hashed: u64,
    hasher: Hasher,
}

impl Kept {
    /// These ranges of a blob of `size` bytes, of which `hasher` has taken in all before `hashed`. `None` where they
    /// are no parts of such a blob, lie over each other, don't begin and end at multiples of [`ALIGNMENT`] (or the
    /// blob's end), or where bytes before `hashed` are missing.
    #[must_use]
    pub fn new(size: u64, ranges: Vec<ByteRange>, hashed: u64, hasher: Hasher) -> Option<Self> {
        let aligned = |offset: u64| offset.is_multiple_of(ALIGNMENT as u64) || offset == size;
        let mut ranges = ranges;
        ranges.sort_unstable();
        let mut joined: Vec<ByteRange> = Vec::new();
        for range in ranges {
            if range.end() > size || !aligned(range.start()) || !aligned(range.end()) {
                return None;
            }
            match joined.last_mut() {
                Some(last) if last.end() > range.start() => return None,
                Some(last) if last.end() == range.start() => {
                    *last = ByteRange::new(last.start(), range.end())?;
                }
                _ => joined.push(range),
            }
        }
        let first = joined.first().filter(|range| range.start() == 0);
        (hashed <= first.map_or(0, |range| range.end())).then_some(Self { ranges: joined, hashed, hasher })
    }

    /// How many bytes that is.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.ranges.iter().map(|range| range.len()).sum()
    }

    pub(super) fn ranges(&self) -> &[ByteRange] {
        &self.ranges
    }

    pub(super) fn hashed(&self) -> (u64, Hasher) {
        (self.hashed, self.hasher.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = ALIGNMENT as u64;

    fn kept(pages: &[(u64, u64)], hashed: u64) -> Option<Kept> {
        let size = 10 * PAGE + 5;
        let range = |&(start, end): &(u64, u64)| {
            ByteRange::new(start * PAGE, (end * PAGE).min(size).max(start * PAGE + 1)).unwrap()
        };
        Kept::new(size, pages.iter().map(range).collect(), hashed, Hasher::new())
    }

    #[test]
    fn neighbours_are_joined_and_what_cannot_be_is_refused() {
        let all = kept(&[(4, 6), (0, 2), (2, 4), (8, 11)], 6 * PAGE).unwrap();
        let joined: Vec<_> = all.ranges().iter().map(|range| (range.start(), range.end())).collect();
        assert_eq!(joined, [(0, 6 * PAGE), (8 * PAGE, 10 * PAGE + 5)]);
        assert_eq!(all.bytes(), 8 * PAGE + 5);
        assert!(kept(&[(0, 2)], 2 * PAGE + 1).is_none(), "hashed beyond the gap");
        assert!(kept(&[(1, 2)], 1).is_none(), "hashed without a beginning");
        assert!(kept(&[(0, 2), (1, 3)], 0).is_none(), "one over the other");
        assert!(kept(&[(11, 12)], 0).is_none(), "beyond the end");
        let odd = ByteRange::new(0, PAGE + 1).unwrap();
        assert!(Kept::new(10 * PAGE, vec![odd], 0, Hasher::new()).is_none(), "not aligned");
        assert_eq!(Kept::default().bytes(), 0);
    }
}
