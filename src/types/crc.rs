use std::fmt;

/// Which cyclic redundancy check it is, of those that object stores publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrcKind {
    /// CRC-32 as in gzip and zip (ISO-HDLC).
    Crc32,
    /// CRC-32C (Castagnoli; iSCSI, RFC 3720).
    Crc32c,
    /// CRC-64/NVME, which S3 gives to whatever was uploaded without another.
    Crc64Nvme,
}

impl CrcKind {
    fn algorithm(self) -> crc_fast::CrcAlgorithm {
        match self {
            Self::Crc32 => crc_fast::CrcAlgorithm::Crc32IsoHdlc,
            Self::Crc32c => crc_fast::CrcAlgorithm::Crc32Iscsi,
            Self::Crc64Nvme => crc_fast::CrcAlgorithm::Crc64Nvme,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme => 8,
        }
    }
}

/// The check of some bytes. It finds what went wrong by accident, and proves nothing: whoever wants to can make other
/// bytes with the same one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Crc {
    kind: CrcKind,
    value: u64,
}

impl Crc {
    /// That of `bytes`.
    #[must_use]
    pub fn of(kind: CrcKind, bytes: &[u8]) -> Self {
        Self { kind, value: crc_fast::checksum(kind.algorithm(), bytes) }
    }

    /// One that was computed elsewhere, from its bytes, the highest first; `None` where they are too few or too many.
    #[must_use]
    pub fn from_bytes(kind: CrcKind, bytes: &[u8]) -> Option<Self> {
        let value = bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
        (bytes.len() == kind.bytes()).then_some(Self { kind, value })
    }

    /// Its bytes, the highest first.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        let all = self.value.to_be_bytes();
        all.get(all.len() - self.kind.bytes()..).unwrap_or_default().to_vec()
    }

    /// Which it is.
    #[must_use]
    pub fn kind(self) -> CrcKind {
        self.kind
    }

    /// That of the bytes that this one is of, with the `length` bytes after them that `next` is of. Both must be of one
    /// kind.
    #[must_use]
    pub fn then(self, next: Self, length: u64) -> Self {
        let value = crc_fast::checksum_combine(self.kind.algorithm(), self.value, next.value, length);
        Self { value, ..self }
    }
}

impl fmt::Display for Crc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.kind {
            CrcKind::Crc32 => "crc32",
            CrcKind::Crc32c => "crc32c",
            CrcKind::Crc64Nvme => "crc64nvme",
        };
        write!(f, "{name}:{:0width$x}", self.value, width = 2 * self.kind.bytes())
    }
}

impl fmt::Debug for Crc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [CrcKind; 3] = [CrcKind::Crc32, CrcKind::Crc32c, CrcKind::Crc64Nvme];

    /// The check values of the catalogue of parametrised CRC algorithms.
    #[test]
    fn each_kind_is_the_one_that_it_is_called() {
        let of = |kind| Crc::of(kind, b"123456789").to_string();
        assert_eq!(of(CrcKind::Crc32), "crc32:cbf43926");
        assert_eq!(of(CrcKind::Crc32c), "crc32c:e3069283");
        assert_eq!(of(CrcKind::Crc64Nvme), "crc64nvme:ae8b14860a799888");
    }

    #[test]
    fn only_as_many_bytes_as_it_has_are_one() {
        for kind in ALL {
            let crc = Crc::of(kind, b"stoker");
            assert_eq!(Crc::from_bytes(kind, &crc.to_bytes()), Some(crc));
            assert_eq!(Crc::from_bytes(kind, &crc.to_bytes()[1..]), None);
            assert_eq!(Crc::from_bytes(kind, &[0; 9]), None);
        }
    }

    proptest! {
        #[test]
        fn the_whole_is_what_its_pieces_say(first: Vec<u8>, second: Vec<u8>) {
            for kind in ALL {
                let joined = Crc::of(kind, &first).then(Crc::of(kind, &second), second.len() as u64);
                prop_assert_eq!(joined, Crc::of(kind, &[&first[..], &second[..]].concat()));
            }
        }
    }
}
