use std::sync::Arc;

use super::{ByteRange, Digest, Hasher};

/// The SHA-256 of each of the parts that a file was stored in, in order. Together they say what the whole is as well as
/// one digest would, but only to somebody who knows where the parts begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartDigests(Arc<[(ByteRange, Digest)]>);

impl PartDigests {
    /// Parts of these lengths, in bytes, one after the other; `None` where there are none, one is empty, or they are
    /// too long together.
    #[must_use]
    pub fn new(parts: impl IntoIterator<Item = (u64, Digest)>) -> Option<Self> {
        let mut end = 0_u64;
        let part = |(length, digest): (u64, Digest)| {
            let start = end;
            end = start.checked_add(length)?;
            Some((ByteRange::new(start, end)?, digest))
        };
        let parts: Option<Arc<[_]>> = parts.into_iter().map(part).collect();
        parts.filter(|parts| !parts.is_empty()).map(Self)
    }

    /// Where each part is, and its digest.
    #[must_use]
    pub fn parts(&self) -> &[(ByteRange, Digest)] {
        &self.0
    }

    /// How many bytes they have together.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.0.last().map_or(0, |(range, _)| range.end())
    }

    /// The SHA-256 over their digests, which S3 calls the composite checksum ("Checking object integrity" in its user
    /// guide).
    #[must_use]
    pub fn composite(&self) -> Digest {
        let mut hasher = Hasher::new();
        self.0.iter().for_each(|(_, digest)| hasher.update(digest.as_bytes()));
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_lie_one_after_the_other() {
        let digests = [Digest::of(b"a"), Digest::of(b"b")];
        let parts = PartDigests::new([(3, digests[0]), (2, digests[1])]).unwrap();
        let places: Vec<_> = parts.parts().iter().map(|(range, _)| (range.start(), range.end())).collect();
        assert_eq!((places, parts.size()), (vec![(0, 3), (3, 5)], 5));
        let bytes = [digests[0].as_bytes().as_slice(), digests[1].as_bytes()].concat();
        assert_eq!(parts.composite(), Digest::of(&bytes));
    }

    #[test]
    fn what_cannot_be_parts_is_none() {
        let digest = Digest::of(b"");
        assert!(PartDigests::new([]).is_none());
        assert!(PartDigests::new([(1, digest), (0, digest)]).is_none());
        assert!(PartDigests::new([(u64::MAX, digest), (1, digest)]).is_none());
    }
}
