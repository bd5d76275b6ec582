//! Numbers for people. Sizes have binary units, as files and memory do; rates have decimal ones, as links do.

use std::time::Duration;

const SIZES: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
const RATES: [&str; 5] = ["B/s", "kB/s", "MB/s", "GB/s", "TB/s"];

/// A size: `512 B`, `4.0 GiB`.
pub(super) fn size(bytes: u64) -> String {
    let (divisor, unit) = scale(bytes as f64, 1024.0, &SIZES);
    format!("{} {unit}", digits(bytes as f64 / divisor, divisor))
}

/// Two sizes in the unit of the second, with `between` between them: `1.2 of 4.0 GiB`.
pub(super) fn sizes(done: u64, between: &str, total: u64) -> String {
    let (divisor, unit) = scale(total as f64, 1024.0, &SIZES);
    let number = |bytes: u64| digits(bytes as f64 / divisor, divisor);
    format!("{}{between}{} {unit}", number(done), number(total))
}

/// So many files.
pub(super) fn files(number: usize) -> String {
    format!("{number} file{}", if number == 1 { "" } else { "s" })
}

/// How much of it is done, rounded down: 100 means all of it. 0 while `total` is.
pub(super) fn percent(done: u64, total: u64) -> u64 {
    let hundredths = u128::from(done) * 100;
    let percent = hundredths.checked_div(u128::from(total)).unwrap_or(0);
    u64::try_from(percent).unwrap_or(100).min(100)
}

/// Bytes a second: `310 MB/s`.
pub(super) fn rate(bytes_per_second: f64) -> String {
    let (divisor, unit) = scale(bytes_per_second, 1000.0, &RATES);
    format!("{} {unit}", digits(bytes_per_second / divisor, divisor))
}

/// A duration, in its two largest units: `9 s`, `2 min 5 s`, `1 h 3 min`, `3 d 4 h`.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => pair(minutes, "min", seconds % 60, "s"),
        (0, _, _) => pair(hours, "h", minutes % 60, "min"),
        _ => pair(days, "d", hours % 24, "h"),
    }
}

fn pair(large: u64, large_unit: &str, small: u64, small_unit: &str) -> String {
    if small == 0 {
        format!("{large} {large_unit}")
    } else {
        format!("{large} {large_unit} {small} {small_unit}")
    }
}

/// The first 12 of a revision's 64 hex digits, as in its label.
pub(super) fn short(hex: &str) -> &str {
    hex.get(..12).unwrap_or(hex)
}

/// Text from elsewhere on one line, without anything that a terminal would obey.
pub(super) fn plain(text: &str) -> String {
    let safe = text.split(|c: char| c.is_control() || is_bidi(c)).filter(|part| !part.is_empty());
    safe.collect::<Vec<_>>().join(" ")
}

/// What turns the direction of text around (Unicode, UAX 9) can make a line read as another.
fn is_bidi(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The largest unit in which the value is at least 1, and what it is in base units.
fn scale<'a>(value: f64, base: f64, units: &[&'a str]) -> (f64, &'a str) {
    let mut divisor = 1.0;
    let mut name = "";
    for (step, unit) in units.iter().enumerate() {
        if step > 0 {
            // 999.95 and more would be shown as 1000.
            if value / divisor < base - 0.05 {
                break;
            }
            divisor *= base;
        }
        name = unit;
    }
    (divisor, name)
}

/// One decimal below 100, none above, none for plain bytes.
fn digits(value: f64, divisor: f64) -> String {
    if divisor == 1.0 || value >= 99.95 { format!("{value:.0}") } else { format!("{value:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (91 << 20, "91.0 MiB"),
            (140 << 30, "140 GiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn two_sizes_share_the_unit_of_the_whole() {
        assert_eq!(sizes(1_288_490_189, "/", 4 << 30), "1.2/4.0 GiB");
        assert_eq!(sizes(1 << 20, " of ", 4 << 30), "0.0 of 4.0 GiB");
        assert_eq!(sizes(0, " of ", 12), "0 of 12 B");
    }

    #[test]
    fn a_hundred_percent_is_all_of_it() {
        assert_eq!(percent(0, 0), 0);
        assert_eq!(percent(999, 1000), 99);
        assert_eq!(percent(1000, 1000), 100);
        assert_eq!(percent(2000, 1000), 100);
        assert_eq!(percent(u64::MAX, u64::MAX), 100);
    }

    #[test]
    fn rates_have_decimal_units() {
        assert_eq!(rate(0.0), "0 B/s");
        assert_eq!(rate(310_000_000.0), "310 MB/s");
        assert_eq!(rate(1_250_000_000.0), "1.2 GB/s");
        assert_eq!(rate(999_970.0), "1.0 MB/s");
    }

    #[test]
    fn durations_have_two_units() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (125, "2 min 5 s"),
            (3780, "1 h 3 min"),
            (86_400 * 3 + 4 * 3600 + 59, "3 d 4 h"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn a_terminal_obeys_nothing_in_plain_text() {
        assert_eq!(plain("a\x1b[31mb\r\nc\u{202e}d"), "a [31mb c d");
        assert_eq!(plain("grüße, 日本"), "grüße, 日本");
    }
}
