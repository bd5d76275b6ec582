//! Numbers and times as tar writes them, read as Go's `archive/tar` reads them.

use super::trouble::Trouble;

/// A point in time, as tar can say it: possibly before 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Moment {
    pub(super) seconds: i64,
    pub(super) nanos: u32,
}

/// The last second that fits into 64 bits of nanoseconds.
const LAST: Moment = Moment { seconds: i64::MAX / 1_000_000_000, nanos: 854_775_807 };

impl Moment {
    pub(super) fn at(seconds: i64) -> Self {
        Self { seconds, nanos: 0 }
    }

    /// What lies before 1970 or beyond 64 bits of nanoseconds becomes the start of 1970, as containerd has it.
    pub(super) fn bound(self) -> Self {
        if self.seconds < 0 || self > LAST { Self::default() } else { self }
    }

    /// A time of a PAX record, `seconds[.fraction]`.
    pub(super) fn parse(text: &[u8]) -> Result<Self, Trouble> {
        let dot = text.iter().position(|&byte| byte == b'.');
        let (whole, fraction) = dot.map_or((text, &[][..]), |at| (&text[..at], &text[at + 1..]));
        let seconds = decimal(whole)?;
        let mut nanos = 0;
        for place in 0..fraction.len().max(9) {
            let digit = fraction.get(place).copied().unwrap_or(b'0');
            if !digit.is_ascii_digit() {
                return Err(Trouble::malformed("a time has a fraction that isn't a number"));
            }
            if place < 9 {
                nanos = nanos * 10 + u32::from(digit - b'0');
            }
        }
        if whole.first() == Some(&b'-') && nanos > 0 {
            return Ok(Self { seconds: seconds.saturating_sub(1), nanos: 1_000_000_000 - nanos });
        }
        Ok(Self { seconds, nanos })
    }
}

/// A decimal number of a PAX record, with a sign or without.
pub(super) fn decimal(text: &[u8]) -> Result<i64, Trouble> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| Trouble::malformed("an extended header has a number that isn't one"))
}

/// A numeric field of a header: octal digits, or base 256 where the first bit is set (GNU tar's manual, "Basic Tar").
pub(super) fn numeric(field: &[u8]) -> Result<i64, Trouble> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => binary(field),
        _ => octal(field),
    }
}

/// Octal digits, with spaces and NULs around them; nothing at all is zero.
pub(super) fn octal(field: &[u8]) -> Result<i64, Trouble> {
    let filler = |byte: &u8| matches!(byte, b' ' | 0);
    let Some(start) = field.iter().position(|byte| !filler(byte)) else { return Ok(0) };
    let end = field.iter().rposition(|byte| !filler(byte)).map_or(start, |last| last + 1);
    let digits = field[start..end].split(|&byte| byte == 0).next().unwrap_or_default();
    let mut number = 0u64;
    for &digit in digits {
        let next = matches!(digit, b'0'..=b'7')
            .then(|| number.checked_mul(8)?.checked_add(u64::from(digit - b'0')))
            .flatten();
        number = next.ok_or_else(|| Trouble::malformed("a number of its header isn't one"))?;
    }
    // Above 2^63 it wraps, as in Go; whoever takes a size refuses what is negative.
    Ok(number.cast_signed())
}

fn binary(field: &[u8]) -> Result<i64, Trouble> {
    let too_large = || Trouble::malformed("a number of its header has more than 64 bits");
    let invert = if field[0] & 0x40 == 0 { 0 } else { 0xff };
    let mut number = 0u64;
    for (i, byte) in field.iter().enumerate() {
        let mut byte = byte ^ invert;
        if i == 0 {
            byte &= 0x7f;
        }
        if number >> 56 > 0 {
            return Err(too_large());
        }
        number = number << 8 | u64::from(byte);
    }
    let number = i64::try_from(number).map_err(|_| too_large())?;
    Ok(if invert == 0 { number } else { !number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_is_read_with_what_stands_around_it() {
        for (field, number) in [
            (&b"0000644\0"[..], 0o644),
            (b"    644 ", 0o644),
            (b"\0\x00644 \0", 0o644),
            (b"644\0junk", 0o644),
            (b"        ", 0),
            (b"", 0),
            (b"777777777777", 0o777_777_777_777),
            (b"1777777777777777777777", -1),
        ] {
            assert_eq!(octal(field).unwrap(), number, "{field:?}");
        }
        for field in [&b"8"[..], b"12 \0 5", b"-1", b"+1", b"0x1", b"1 1", b"2777777777777777777777"] {
            assert!(octal(field).is_err(), "{field:?}");
        }
    }

    #[test]
    fn base_256_has_a_sign_and_at_most_64_bits() {
        for (field, number) in [
            (&[0x80, 0, 0, 0, 0, 0, 1, 0][..], 256),
            (&[0xff; 8], -1),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe], -2),
            (&[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], i64::MAX),
            (&[0xff, 0xff, 0xff, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], i64::MIN),
        ] {
            assert_eq!(numeric(field).unwrap(), number, "{field:?}");
        }
        for field in [
            &[0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0][..],
            &[0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0xbf; 12],
        ] {
            assert!(numeric(field).is_err(), "{field:?}");
        }
    }

    #[test]
    fn times_have_fractions_and_may_be_before_1970() {
        for (text, seconds, nanos) in [
            ("1350244992.023960108", 1_350_244_992, 23_960_108),
            ("1350244992.02396010899", 1_350_244_992, 23_960_108),
            ("1350244992.", 1_350_244_992, 0),
            ("5", 5, 0),
            ("+5.5", 5, 500_000_000),
            ("-1.5", -2, 500_000_000),
            ("-0.25", -1, 750_000_000),
            ("-1.0", -1, 0),
        ] {
            assert_eq!(Moment::parse(text.as_bytes()).unwrap(), Moment { seconds, nanos }, "{text}");
        }
        for text in ["", ".5", "5.x", "5.1234567890x", "5.-1", "five", "9223372036854775808", "1e3"] {
            assert!(Moment::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn what_containerd_cannot_set_becomes_1970() {
        let zero = Moment::default();
        for (seconds, nanos, bounded) in
            [(-1, 999_999_999, true), (0, 0, false), (LAST.seconds, LAST.nanos, false)]
        {
            let moment = Moment { seconds, nanos };
            assert_eq!(moment.bound(), if bounded { zero } else { moment });
        }
        assert_eq!(Moment { seconds: LAST.seconds, nanos: LAST.nanos + 1 }.bound(), zero);
        assert_eq!(Moment::at(i64::MAX).bound(), zero);
    }
}
