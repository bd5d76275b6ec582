use reqwest::redirect::Policy;
use url::Url;

use super::dns;

/// Redirects that one request follows.
pub(super) const MOST: usize = 5;

/// What is said of a longer chain.
pub(super) const TOO_MANY: &str = "there are too many of them";

/// Why a redirect must not be followed. One from TLS to none would let anybody on the way choose the bytes; one to a
/// link-local address would let a server ask for this machine's own secrets.
pub(super) fn objection(from: &Url, to: &Url, allow_http: bool) -> Option<&'static str> {
    let was_tls = from.scheme() == "https";
    match to.scheme() {
        "https" => {}
        "http" if was_tls || !allow_http => return Some("one leads from https:// to http://"),
        "http" => {}
        _ => return Some("one leads to something that is not http"),
    }
    dns::names_link_local(to).then_some("one leads to a link-local address")
}

/// Follows redirects as far as they may be followed.
pub(super) fn policy(allow_http: bool) -> Policy {
    Policy::custom(move |attempt| {
        if attempt.previous().len() > MOST {
            return attempt.error(TOO_MANY);
        }
        let from = attempt.previous().last().unwrap_or(attempt.url());
        match objection(from, attempt.url(), allow_http) {
            Some(objection) => attempt.error(objection),
            None => attempt.follow(),
        }
    })
}
