/// How one layer's work is split over threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Split {
    /// One thread takes the pieces in, hashes and inflates them; one hashes and unpacks what came out. A block is then
    /// hashed and unpacked while it is in the cache.
    Two,
    /// A thread for each: pieces are inflated, hashed, and what came out is hashed, unpacked.
    Four,
}

impl Split {
    /// The split for a layer that has `cores` to itself.
    pub(super) fn for_cores(cores: usize) -> Self {
        if cores > 2 { Self::Four } else { Self::Two }
    }
}
