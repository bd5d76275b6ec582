use http::{HeaderMap, StatusCode};

use super::answer::{self, ContentRange};
use crate::types::ByteRange;

/// What a proper answer to a range holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// Just the range.
    Part,
    /// The whole blob, from its first byte: the server ignored the range. Allowed (RFC 9110, 14.2), and dear, since
    /// what lies before the range is sent too.
    Whole,
}

/// Why an answer's body is not what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It's of a blob of another size.
    OtherSize,
    /// It contradicts itself or the question.
    Nonsense(String),
    /// The server refuses.
    Refused,
}

impl Unfit {
    fn nonsense(problem: impl Into<String>) -> Self {
        Self::Nonsense(problem.into())
    }
}

/// What is said of [`answer::is_html`].
pub(super) const WEB_PAGE: &str =
    "a web page came in its place; is there a login page or a proxy in between?";

pub(super) const ENCODED: &str = "it's sent encoded, though that was not asked for";

/// Reads the head of an answer to a GET of `range` of a blob of `size` bytes. `may_be_page`: HTML isn't suspect.
pub(super) fn check(
    range: ByteRange,
    size: u64,
    may_be_page: bool,
    status: StatusCode,
    headers: &HeaderMap,
) -> Result<Sent, Unfit> {
    match status {
        StatusCode::PARTIAL_CONTENT | StatusCode::OK if answer::is_encoded(headers) => {
            Err(Unfit::nonsense(ENCODED))
        }
        StatusCode::PARTIAL_CONTENT => match ContentRange::of(headers) {
            Some(ContentRange { total: Some(total), .. }) if total != size => Err(Unfit::OtherSize),
            Some(ContentRange { range: Some(sent), total: Some(_) }) if sent == range => Ok(Sent::Part),
            _ => Err(Unfit::nonsense(format!("its answer names another range than {range}"))),
        },
        StatusCode::OK if answer::is_html(headers) && !may_be_page => Err(Unfit::nonsense(WEB_PAGE)),
        StatusCode::OK => match answer::content_length(headers) {
            Some(length) if length != size => Err(Unfit::OtherSize),
            Some(_) => Ok(Sent::Whole),
            None => Err(Unfit::nonsense("it tells no size")),
        },
        StatusCode::RANGE_NOT_SATISFIABLE
            if ContentRange::of(headers).is_some_and(|told| told.total != Some(size)) =>
        {
            Err(Unfit::OtherSize)
        }
        _ => Err(Unfit::Refused),
    }
}
