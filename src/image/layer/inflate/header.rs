/// The first three bytes of a gzip member: its magic, and DEFLATE as the method. What containerd knows one by
/// (`pkg/archive/compression`).
pub(super) const MAGIC: [u8; 3] = [0x1f, 0x8b, 0x08];

/// The bytes from the method to the operating system: flags, time, extra flags, system.
const AFTER_MAGIC: u64 = 7;

const FLAG_HEADER_CRC: u8 = 1 << 1;
const FLAG_EXTRA: u8 = 1 << 2;
const FLAG_NAME: u8 = 1 << 3;
const FLAG_COMMENT: u8 = 1 << 4;

/// The header of one gzip member (RFC 1952, section 2.3), cut anywhere. All it says is skipped, its own checksum too:
/// the blob's digest covers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    at: At,
    flags: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// So many bytes of the magic have come.
    Magic(u8),
    /// So many bytes of the fixed part are missing.
    Fixed(u64),
    ExtraLength(Option<u8>),
    Extra(u64),
    /// A name, then a comment, each ended by a zero byte.
    Name,
    Comment,
    Checksum(u64),
    End,
}

/// Where a header stands after some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parsed {
    /// It goes on.
    More,
    /// It ended with the last byte that was read.
    Whole,
    /// It isn't a member's header.
    Other,
}

impl Header {
    pub(super) const START: Self = Self { at: At::Magic(0), flags: 0 };

    /// Takes in what is the header's of `input` and says how many bytes that was.
    pub(super) fn take(&mut self, input: &[u8]) -> (usize, Parsed) {
        let mut read = 0;
        loop {
            self.at = self.skip_absent();
            let rest = &input[read..];
            let Some(&byte) = rest.first() else {
                let parsed = if self.at == At::End { Parsed::Whole } else { Parsed::More };
                return (read, parsed);
            };
            let step;
            (self.at, step) = match self.at {
                At::End => return (read, Parsed::Whole),
                At::Magic(at) if byte != MAGIC[usize::from(at)] => return (read, Parsed::Other),
                At::Magic(2) => (At::Fixed(AFTER_MAGIC), 1),
                At::Magic(at) => (At::Magic(at + 1), 1),
                At::Fixed(missing) => {
                    if missing == AFTER_MAGIC {
                        self.flags = byte;
                    }
                    (if missing == 1 { At::ExtraLength(None) } else { At::Fixed(missing - 1) }, 1)
                }
                At::ExtraLength(None) => (At::ExtraLength(Some(byte)), 1),
                At::ExtraLength(Some(low)) => (At::Extra(u64::from(u16::from_le_bytes([low, byte]))), 1),
                At::Extra(missing) => {
                    let step = rest.len().min(usize::try_from(missing).unwrap_or(usize::MAX));
                    (At::Extra(missing - step as u64), step)
                }
                At::Name => (if byte == 0 { At::Comment } else { At::Name }, 1),
                At::Comment => (if byte == 0 { At::Checksum(2) } else { At::Comment }, 1),
                At::Checksum(missing) => (At::Checksum(missing - 1), 1),
            };
            read += step;
        }
    }

    /// The next part that is there, by the flags.
    fn skip_absent(&self) -> At {
        let has = |flag| self.flags & flag != 0;
        let mut at = self.at;
        loop {
            at = match at {
                At::ExtraLength(None) if !has(FLAG_EXTRA) => At::Name,
                At::Extra(0) => At::Name,
                At::Name if !has(FLAG_NAME) => At::Comment,
                At::Comment if !has(FLAG_COMMENT) => At::Checksum(2),
                At::Checksum(0) => At::End,
                At::Checksum(_) if !has(FLAG_HEADER_CRC) => At::End,
                there => return there,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a header byte by byte, then all at once; both must agree.
    fn parse(bytes: &[u8]) -> (usize, Parsed) {
        let mut whole = Header::START;
        let at_once = whole.take(bytes);
        let mut header = Header::START;
        let mut read = 0;
        let mut parsed = Parsed::More;
        while parsed == Parsed::More && read < bytes.len() {
            let (took, now) = header.take(&bytes[read..=read]);
            (read, parsed) = (read + took, now);
        }
        assert_eq!((read, parsed), at_once, "{bytes:?}");
        at_once
    }

    fn header(flags: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x1f, 0x8b, 8, flags, 1, 2, 3, 4, 0, 255];
        bytes.extend_from_slice(rest);
        bytes
    }

    #[test]
    fn every_combination_of_fields_ends_where_it_ends() {
        for flags in 0..=u8::MAX {
            let mut rest = Vec::new();
            if flags & FLAG_EXTRA != 0 {
                rest.extend_from_slice(b"\x03\x00abc");
            }
            for flag in [FLAG_NAME, FLAG_COMMENT] {
                if flags & flag != 0 {
                    rest.extend_from_slice(b"text\0");
                }
            }
            if flags & FLAG_HEADER_CRC != 0 {
                rest.extend_from_slice(b"\0\0");
            }
            let bytes = header(flags, &rest);
            assert_eq!(parse(&bytes), (bytes.len(), Parsed::Whole), "{flags:#b}");
            assert_eq!(parse(&bytes[..bytes.len() - 1]), (bytes.len() - 1, Parsed::More), "{flags:#b}");
            let mut more = bytes.clone();
            more.extend_from_slice(b"body");
            assert_eq!(parse(&more), (bytes.len(), Parsed::Whole), "{flags:#b}");
        }
    }

    #[test]
    fn empty_and_long_fields_are_skipped() {
        assert_eq!(parse(&header(FLAG_EXTRA, b"\0\0")), (12, Parsed::Whole));
        assert_eq!(parse(&header(FLAG_NAME | FLAG_COMMENT, b"\0\0")), (12, Parsed::Whole));
        let mut long = vec![0xff, 0xff];
        long.resize(2 + 0xffff, 7);
        assert_eq!(parse(&header(FLAG_EXTRA, &long)), (10 + 2 + 0xffff, Parsed::Whole));
    }

    #[test]
    fn what_is_no_member_is_said_at_the_first_wrong_byte() {
        assert_eq!(parse(b"\0\0\0"), (0, Parsed::Other));
        assert_eq!(parse(b"\x1f\0"), (1, Parsed::Other));
        assert_eq!(parse(b"\x1f\x8b\x07"), (2, Parsed::Other));
        assert_eq!(parse(b"\x1f\x8b"), (2, Parsed::More));
        assert_eq!(parse(b""), (0, Parsed::More));
    }
}
