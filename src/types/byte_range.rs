use std::fmt;

/// A non-empty slice of a blob, in bytes: `start` is in it, `end` is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteRange {
    start: u64,
    end: u64,
}

impl ByteRange {
    /// The range `start..end`, or `None` where that would be empty or reversed.
    #[must_use]
    pub fn new(start: u64, end: u64) -> Option<Self> {
        (start < end).then_some(Self { start, end })
    }

    /// First byte in the range.
    #[must_use]
    pub fn start(self) -> u64 {
        self.start
    }

    /// First byte after the range.
    #[must_use]
    pub fn end(self) -> u64 {
        self.end
    }

    /// Length in bytes; never 0.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub fn len(self) -> u64 {
        self.end - self.start
    }

    /// What is left after the first `done` bytes, or `None` when all are done.
    #[must_use]
    pub fn after(self, done: u64) -> Option<Self> {
        Self::new(self.start.saturating_add(done), self.end)
    }
}

/// The value of an HTTP `Range` header (RFC 9110, 14.1.2): both ends are in the range.
impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bytes={}-{}", self.start, self.end - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_and_reversed_ranges_do_not_exist() {
        assert_eq!(ByteRange::new(3, 3), None);
        assert_eq!(ByteRange::new(4, 3), None);
    }

    #[test]
    fn header_value_counts_the_last_byte_in() {
        assert_eq!(ByteRange::new(0, 16).unwrap().to_string(), "bytes=0-15");
    }

    #[test]
    fn the_rest_after_some_bytes() {
        let range = ByteRange::new(10, 20).unwrap();
        assert_eq!(range.after(4), ByteRange::new(14, 20));
        assert_eq!(range.after(10), None);
        assert_eq!(range.after(u64::MAX), None);
    }
}
