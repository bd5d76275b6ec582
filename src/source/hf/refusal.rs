//! What a Hub means when it refuses: its status and its `X-Error-Code` together (as its own client reads them), with
//! the next step. Pure.

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use crate::source::{SourceError, answer};

/// Characters of the Hub's own words that are passed on.
const LONGEST_MESSAGE: usize = 200;

/// Who asked for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// For people.
    pub(super) what: &'a str,
    /// Where people accept a repository's conditions.
    pub(super) page: &'a str,
    pub(super) with_token: bool,
}

pub(super) fn refusal(asked: Asked<'_>, status: StatusCode, headers: &HeaderMap) -> SourceError {
    let (what, status) = (asked.what.to_owned(), status.as_u16());
    let retry_after = wait(headers);
    match says(asked, status, headers) {
        Some(says) => SourceError::Refused { what, status, says, retry_after },
        None => SourceError::Status { what, status, retry_after },
    }
}

/// Whether the commit itself is gone.
pub(super) fn is_of_revision(status: StatusCode, headers: &HeaderMap) -> bool {
    status == StatusCode::NOT_FOUND && header(headers, "x-error-code").as_deref() == Some("RevisionNotFound")
}

fn says(asked: Asked<'_>, status: u16, headers: &HeaderMap) -> Option<String> {
    let page = asked.page;
    let code = header(headers, "x-error-code");
    let message = header(headers, "x-error-message");
    let next = match (status, code.as_deref()) {
        (404, Some("RevisionNotFound")) => {
            "there is no such revision: name a branch, a tag or a whole commit after @".to_owned()
        }
        (404, Some("EntryNotFound")) => "there is no such file".to_owned(),
        (404, Some("RepoNotFound")) if asked.with_token => {
            "there is no such repository, or the token may not see it: check its name".to_owned()
        }
        (401 | 403, Some("GatedRepo")) if asked.with_token => {
            format!("it's gated, and the token's account has no access yet: ask for it at {page}")
        }
        (401 | 403, Some("GatedRepo")) => format!(
            "it's gated: accept its conditions at {page}, and give a token of that account (HF_TOKEN in a Secret under \
             `credentials`)"
        ),
        (401, _) if !asked.with_token => {
            "there is no such repository, or it's private: check its name, or give a token that may read it (HF_TOKEN \
             in a Secret under `credentials`)"
                .to_owned()
        }
        (401, _) => "the token isn't valid: make a new one that may read, and put it into HF_TOKEN".to_owned(),
        (403, _) if asked.with_token => {
            format!("the token may not read it: give one that may, and see {page}")
        }
        _ => return message,
    };
    Some(match message {
        Some(message) => format!("{next} ({message})"),
        None => next,
    })
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    let text = headers.get(name)?.to_str().ok()?.trim();
    let text: String = text.chars().filter(|letter| !letter.is_control()).take(LONGEST_MESSAGE).collect();
    (!text.is_empty()).then_some(text)
}

/// How long to wait: by Retry-After, or by the rest of the window that the Hub tells (`RateLimit: "api";r=0;t=55`,
/// draft-ietf-httpapi-ratelimit-headers).
fn wait(headers: &HeaderMap) -> Option<Duration> {
    answer::retry_after(headers, jiff::Timestamp::now()).or_else(|| {
        let told = headers.get("ratelimit")?.to_str().ok()?;
        let seconds = told.split(';').find_map(|part| part.trim().strip_prefix("t="))?;
        Some(Duration::from_secs(seconds.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;
    use crate::types::ErrorKind;

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        all.iter().map(pair).collect()
    }

    fn refused(status: u16, code: &str, with_token: bool) -> SourceError {
        let asked = Asked { what: "hf://a/b@main", page: "https://hub/a/b", with_token };
        refusal(asked, StatusCode::from_u16(status).unwrap(), &headers(&[("x-error-code", code)]))
    }

    #[test]
    fn each_refusal_has_its_own_next_step() {
        for (status, code, with_token, kind, next) in [
            (401, "GatedRepo", false, ErrorKind::Denied, "accept its conditions at https://hub/a/b"),
            (403, "GatedRepo", true, ErrorKind::Denied, "ask for it at https://hub/a/b"),
            (401, "RepoNotFound", false, ErrorKind::Denied, "check its name, or give a token"),
            (401, "", true, ErrorKind::Denied, "make a new one"),
            (403, "", true, ErrorKind::Denied, "may not read it"),
            (404, "RepoNotFound", true, ErrorKind::NotFound, "check its name"),
            (404, "RevisionNotFound", false, ErrorKind::NotFound, "name a branch, a tag or a whole commit"),
            (404, "EntryNotFound", false, ErrorKind::NotFound, "no such file"),
        ] {
            let error = refused(status, code, with_token);
            assert!(error.to_string().contains(next), "{error}");
            assert_eq!(error.kind(), kind, "{error}");
        }
        assert_eq!(refused(500, "", false).kind(), ErrorKind::Transient);
    }

    #[test]
    fn the_hubs_own_words_are_passed_on_short() {
        let asked = Asked { what: "x", page: "p", with_token: true };
        let long = format!("disabled {}", "x".repeat(1000));
        let error =
            refusal(asked, StatusCode::FORBIDDEN, &headers(&[("x-error-message", &long)])).to_string();
        assert!(error.contains("disabled") && error.len() < 400, "{error}");
    }

    #[test]
    fn patience_is_told_in_two_ways() {
        let kind = |all| {
            let asked = Asked { what: "x", page: "p", with_token: true };
            refusal(asked, StatusCode::TOO_MANY_REQUESTS, &headers(all)).kind()
        };
        let after = |seconds| ErrorKind::Throttled { retry_after: Some(Duration::from_secs(seconds)) };
        assert_eq!(kind(&[("retry-after", "7"), ("ratelimit", "\"api\";r=0;t=55")]), after(7));
        assert_eq!(kind(&[("ratelimit", "\"api\";r=0;t=55")]), after(55));
        assert_eq!(kind(&[("ratelimit", "nonsense;t=x")]), ErrorKind::Throttled { retry_after: None });
    }
}
