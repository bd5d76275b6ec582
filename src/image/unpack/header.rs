//! One header block, as Go's `archive/tar` understands it: v7, ustar, PAX, GNU and star (GNU tar's manual, "Basic Tar
//! Format"; POSIX, `pax`).

use super::number::{Moment, numeric, octal};
use super::trouble::Trouble;

/// The unit of a tar stream.
pub(super) const BLOCK: usize = 512;

/// What a header says by itself, before extended headers change it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// The type flag.
    pub(super) kind: u8,
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) size: i64,
    pub(super) mode: i64,
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) modified: Moment,
    pub(super) accessed: Option<Moment>,
    pub(super) major: i64,
    pub(super) minor: i64,
}

/// Whose format a header has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    V7,
    Ustar,
    Gnu,
    Star,
}

impl Header {
    /// Reads a block that isn't all zeros.
    pub(super) fn read(block: &[u8; BLOCK], format: Format) -> Result<Self, Trouble> {
        let field = |start: usize, len: usize| &block[start..start + len];
        let mut header = Self {
            kind: block[156],
            name: text(field(0, 100)).to_vec(),
            link: text(field(157, 100)).to_vec(),
            size: numeric(field(124, 12))?,
            mode: numeric(field(100, 8))?,
            uid: numeric(field(108, 8))?,
            gid: numeric(field(116, 8))?,
            modified: Moment::at(numeric(field(136, 12))?),
            accessed: None,
            major: 0,
            minor: 0,
        };
        if format == Format::V7 {
            return Ok(header);
        }
        header.major = numeric(field(329, 8))?;
        header.minor = numeric(field(337, 8))?;
        let prefix = match format {
            Format::V7 => &[][..],
            Format::Ustar => text(field(345, 155)),
            Format::Star => {
                header.accessed = Some(Moment::at(numeric(field(476, 12))?));
                // Nobody needs the change time, but a broken one is a broken header.
                numeric(field(488, 12))?;
                text(field(345, 131))
            }
            Format::Gnu => match gnu_times(field(345, 12), field(357, 12)) {
                Ok(accessed) => {
                    header.accessed = accessed;
                    &[][..]
                }
                // Writers of Go before 1.8 put a prefix where GNU has times.
                Err(_) => Some(text(field(345, 155))).filter(|text| text.is_ascii()).unwrap_or_default(),
            },
        };
        if !prefix.is_empty() {
            header.name = [prefix, b"/", &header.name].concat();
        }
        Ok(header)
    }
}

fn gnu_times(accessed: &[u8], changed: &[u8]) -> Result<Option<Moment>, Trouble> {
    let time = |field: &[u8]| match field.first() {
        None | Some(0) => Ok(None),
        Some(_) => numeric(field).map(|seconds| Some(Moment::at(seconds))),
    };
    time(changed)?;
    time(accessed)
}

impl Format {
    /// Checks the sum, which some writers made of signed bytes, and tells the format by its magic.
    pub(super) fn of(block: &[u8; BLOCK]) -> Result<Self, Trouble> {
        let (mut unsigned, mut signed) = (0i64, 0i64);
        for (i, &byte) in block.iter().enumerate() {
            let byte = if (148..156).contains(&i) { b' ' } else { byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        let problem = "the header after it has a wrong checksum; the stream isn't tar, or is damaged";
        let wrong = || Trouble::malformed(problem);
        let sum = octal(&block[148..156]).map_err(|_| wrong())?;
        if sum != unsigned && sum != signed {
            return Err(wrong());
        }
        Ok(match &block[257..265] {
            [b'u', b's', b't', b'a', b'r', 0, _, _] if &block[508..512] == b"tar\0" => Self::Star,
            [b'u', b's', b't', b'a', b'r', 0, _, _] => Self::Ustar,
            b"ustar  \0" => Self::Gnu,
            _ => Self::V7,
        })
    }
}

/// A string that ends at a NUL, or with its field.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}
