/// How one layer's work is split over threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Split {
    /// One thread takes the pieces in, hashes and inflates them; one hashes and unpacks what came out. A block is then
    /// hashed and unpacked while it is in the cache.
    Two,
    /// A thread for each of them. It costs 3 % more processor time than two, if any (measured on a 300 MB library in
    /// gzip), and fills two cores evenly, whatever the layer's ratio and the disk.
    Four,
}

// There is no third way that inflates one stream on many cores. rapidgzip-core reads a stream of stored blocks or of BGZF
// to its end before the first byte comes out, while pieces hold the fetch engine's budget; by its own bounds it may have
// 20 MiB of output for each chunk under way, and twice that while references are open, which on 8 cores is more than the
// whole agent may have; and where it isn't sure to win it inflates on one core, at two thirds of ISA-L's speed
// (`benches/inflate.rs`). Past ISA-L's 1 GB/s, the SHA-256 of the diff is the next wall, before 2 GB/s.
impl Split {
    /// The split for a layer that has `cores` to itself.
    pub(super) fn for_cores(cores: usize) -> Self {
        if cores >= 2 { Self::Four } else { Self::Two }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_with_cores_to_itself_uses_them() {
        assert_eq!(
            [0, 1, 2, 3, 64].map(Split::for_cores),
            [Split::Two, Split::Two, Split::Four, Split::Four, Split::Four]
        );
    }
}
