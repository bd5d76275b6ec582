use std::collections::BTreeMap;

use crate::types::ByteRange;

/// How far a blob is done with from its first byte on, when that is said of one range after the other, in any
/// order.
#[derive(Debug, Default)]
pub(super) struct Frontier {
    upto: u64,
    /// What lies behind a gap: end by start.
    beyond: BTreeMap<u64, u64>,
}

impl Frontier {
    /// `range` is done with too. The answer is where the first byte is that isn't.
    pub(super) fn add(&mut self, range: ByteRange) -> u64 {
        self.beyond.insert(range.start(), range.end());
        while let Some(end) = self.beyond.remove(&self.upto) {
            self.upto = end;
        }
        self.upto
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_moves_when_the_gap_closes() {
        let mut frontier = Frontier::default();
        let mut add = |start, end| frontier.add(ByteRange::new(start, end).unwrap());
        assert_eq!(add(10, 20), 0);
        assert_eq!(add(30, 40), 0);
        assert_eq!(add(0, 10), 20);
        assert_eq!(add(20, 30), 40);
    }
}
