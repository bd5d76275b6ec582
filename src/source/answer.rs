//! What an HTTP answer says about bytes, read strictly (RFC 9110). Pure.

use std::time::Duration;

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, RETRY_AFTER};
use http::{HeaderMap, HeaderName};
use jiff::Timestamp;

use crate::types::ByteRange;

/// A `Content-Range` (RFC 9110, 14.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ContentRange {
    /// What is sent; `None` where the range can't be (`bytes */N`).
    pub(super) range: Option<ByteRange>,
    /// The length of the whole, where it's told.
    pub(super) total: Option<u64>,
}

impl ContentRange {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (range, total) = text.trim().strip_prefix("bytes ")?.trim().split_once('/')?;
        let total = if total == "*" { None } else { Some(number(total)?) };
        let range = match range {
            "*" => None,
            _ => {
                let (first, last) = range.split_once('-')?;
                Some(ByteRange::new(number(first)?, number(last)?.checked_add(1)?)?)
            }
        };
        if range.zip(total).is_some_and(|(range, total)| range.end() > total) {
            return None;
        }
        Some(Self { range, total })
    }

    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        Self::parse(text(headers, CONTENT_RANGE)?)
    }
}

/// Only digits: `u64::from_str` would take a plus.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    number(text(headers, CONTENT_LENGTH)?.trim())
}

/// The strong validator without its quotes, or `None`: only a strong one promises that every byte is the same
/// (RFC 9110, 8.8.1).
pub(super) fn strong_etag(headers: &HeaderMap) -> Option<String> {
    let tag = text(headers, ETAG)?.trim().strip_prefix('"')?.strip_suffix('"')?;
    let is_tag = !tag.is_empty() && tag.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
    is_tag.then(|| tag.to_owned())
}

/// Whether it's a page for people: what a captive portal or a proxy answers in a file's place.
pub(super) fn is_html(headers: &HeaderMap) -> bool {
    text(headers, CONTENT_TYPE)
        .is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/html"))
}

/// Whether the bytes are not the file's own, though nobody asked for that.
pub(super) fn is_encoded(headers: &HeaderMap) -> bool {
    text(headers, CONTENT_ENCODING).is_some_and(|coding| !coding.trim().eq_ignore_ascii_case("identity"))
}

/// How long the server asks to be left alone: seconds, or a date (RFC 9110, 10.2.3).
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let value = text(headers, RETRY_AFTER)?.trim();
    if let Some(seconds) = number(value) {
        return Some(Duration::from_secs(seconds));
    }
    let until = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
    Some(Duration::try_from(now.until(until).ok()?).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn content_ranges_are_read() {
        let parsed = |text| ContentRange::parse(text).map(|range| (range.range, range.total));
        let range = ByteRange::new(0, 16);
        assert_eq!(parsed("bytes 0-15/100"), Some((range, Some(100))));
        assert_eq!(parsed("bytes 0-15/*"), Some((range, None)));
        assert_eq!(parsed("bytes */0"), Some((None, Some(0))));
        for text in [
            "",
            "bytes",
            "bytes 0-15",
            "bytes 15-0/100",
            "bytes 0-100/100",
            "bytes -1-5/9",
            "bytes +1-5/9",
            "bytes 0-18446744073709551615/*",
            "octets 0-1/2",
            "bytes 0-1/x",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

    #[test]
    fn only_strong_tags_count() {
        let tag = |text| strong_etag(&headers(ETAG, text));
        assert_eq!(tag("\"abc-12\""), Some("abc-12".to_owned()));
        for text in ["W/\"abc\"", "abc", "\"\"", "\"a\"b\"", "\"", "\"a b\""] {
            assert_eq!(tag(text), None, "{text}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now: Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
        let wait = |text| retry_after(&headers(RETRY_AFTER, text), now);
        assert_eq!(wait("120"), Some(Duration::from_secs(120)));
        assert_eq!(wait("Tue, 24 Nov 2026 10:00:30 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(wait("Tue, 24 Nov 2026 09:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("soon"), None);
        assert_eq!(wait("-5"), None);
    }

    #[test]
    fn pages_and_encodings_are_noticed() {
        assert!(is_html(&headers(CONTENT_TYPE, "text/HTML; charset=utf-8")));
        assert!(!is_html(&headers(CONTENT_TYPE, "application/octet-stream")));
        assert!(is_encoded(&headers(CONTENT_ENCODING, "gzip")));
        assert!(!is_encoded(&headers(CONTENT_ENCODING, "identity")));
    }

    proptest! {
        #[test]
        fn no_header_panics(text in "(bytes )?[ -~]{0,40}") {
            let _ = ContentRange::parse(&text);
            let now = Timestamp::UNIX_EPOCH;
            let _ = retry_after(&headers(RETRY_AFTER, &text), now);
            let _ = strong_etag(&headers(ETAG, &text));
        }
    }
}
