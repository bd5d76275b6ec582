use url::Url;

use super::names::as_part;
use crate::source::client;

/// Where a store is: a URL that its own paths come after. It's the agent's owner who chooses it, never a list.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    base: Url,
    pub(super) origin: String,
}

impl Endpoint {
    /// Reads an `https://` or `http://` URL, which may have a path, but nothing behind it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let base: Url = text.trim().parse().ok()?;
        let is_plain = base.query().is_none()
            && base.fragment().is_none()
            && base.username().is_empty()
            && base.password().is_none();
        let is_http = matches!(base.scheme(), "https" | "http") && base.host_str().is_some();
        (is_http && is_plain).then(|| Self { origin: client::origin(&base), base })
    }

    /// The URL of `path`, whose parts are encoded, with `query`, whose values are not.
    pub(super) fn url(&self, path: &str, query: &[(&str, &str)]) -> Url {
        let mut url = self.base.clone();
        let path = format!("{}/{path}", url.path().trim_end_matches('/'));
        url.set_path(&path);
        if !query.is_empty() {
            // Spaces as %20: not every server takes a plus for one.
            let pairs: Vec<String> =
                query.iter().map(|(name, value)| format!("{name}={}", as_part(value))).collect();
            url.set_query(Some(&pairs.join("&")));
        }
        url
    }
}

#[cfg(test)]
mod tests {
    use super::super::names::as_path;
    use super::*;

    #[test]
    fn paths_come_after_the_endpoints_own() {
        let url =
            |base: &str| Endpoint::parse(base).unwrap().url(&as_path("c/a b%41/x?y"), &[("prefix", "a +&/")]);
        assert_eq!(url("https://host").as_str(), "https://host/c/a%20b%2541/x%3Fy?prefix=a%20%2B%26%2F");
        assert_eq!(url("http://host:1/account/").path(), "/account/c/a%20b%2541/x%3Fy");
        assert_eq!(Endpoint::parse("https://host/x").unwrap().origin, "host:443");
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        for text in [
            "",
            "host",
            "ftp://host",
            "https://",
            "https://a:b@host",
            "https://host/?sig=x",
            "https://host/#x",
        ] {
            assert!(Endpoint::parse(text).is_none(), "{text}");
        }
    }
}
