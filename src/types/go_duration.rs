/// Reads a duration as Go writes it, into nanoseconds: `1m30s`, `1.5h`, `-300ms`, `0` (Go's `time.ParseDuration`, which
/// containerd's and Kubernetes' files use). `None` is text that isn't one, or more than fits.
#[must_use]
pub fn parse_go_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest.is_empty() {
        return None;
    }
    if rest == "0" {
        return Some(0);
    }
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = after.strip_prefix('.').map_or(("", after), digits);
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let part = nanoseconds(whole, fraction, unit_of(unit)?)?;
        total = total.checked_add(part)?;
        rest = after;
    }
    Some(if negative { -total } else { total })
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn unit_of(unit: &str) -> Option<i64> {
    Some(match unit {
        "ns" => 1,
        // The micro sign, and the Greek letter that looks like it.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

fn nanoseconds(whole: &str, fraction: &str, unit: i64) -> Option<i64> {
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // No unit has more than 13 digits of nanoseconds: what comes after 15 is lost anyway.
    let fraction = &fraction[..fraction.len().min(15)];
    let (mut parts, mut scale) = (0_i128, 1_i128);
    for digit in fraction.bytes() {
        parts = parts * 10 + i128::from(digit - b'0');
        scale *= 10;
    }
    let fraction = i64::try_from(parts * i128::from(unit) / scale).ok()?;
    whole.checked_mul(unit)?.checked_add(fraction)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_go_reads_is_read_alike() {
        for (text, nanoseconds) in [
            ("0", 0),
            ("0s", 0),
            ("-0", 0),
            ("5s", 5_000_000_000),
            ("+5s", 5_000_000_000),
            ("-300ms", -300_000_000),
            ("1m30s", 90_000_000_000),
            ("1.5h", 5_400_000_000_000),
            ("1.5h0.5s", 5_400_500_000_000),
            (".5s", 500_000_000),
            ("5.s", 5_000_000_000),
            ("12h0m0s", 43_200_000_000_000),
            ("3us", 3_000),
            ("3\u{b5}s", 3_000),
            ("3\u{3bc}s", 3_000),
            ("0.3333333333333333333h", 1_199_999_999_999),
            ("9223372036854775807ns", i64::MAX),
        ] {
            assert_eq!(parse_go_duration(text), Some(nanoseconds), "{text}");
        }
        for text in
            ["", "+", "-", "5", "1.", "s", ".s", "5 s", "5x", "5s5", "--5s", "1d", "9223372036854775808ns"]
        {
            assert_eq!(parse_go_duration(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[-+0-9.a-zµ ]{0,40}|.{0,20}") {
            let _ = parse_go_duration(&text);
        }

        #[test]
        fn hours_minutes_seconds_add_up(hours in 0_i64..1000, minutes in 0_i64..1000, millis in 0_i64..100_000) {
            let text = format!("{hours}h{minutes}m{}.{:03}s", millis / 1000, millis % 1000);
            let expected = ((hours * 60 + minutes) * 60_000 + millis) * 1_000_000;
            prop_assert_eq!(parse_go_duration(&text), Some(expected));
        }
    }
}
