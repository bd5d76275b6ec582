use std::fmt;
use std::str::FromStr;

use url::Url;

use crate::source::dns;

/// Where a Hub is: the Hugging Face Hub itself, or a mirror of it, perhaps below a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubEndpoint(Url);

/// Text that isn't one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a Hub's address: {0}; write https://HOST, with a path if the mirror has one")]
pub struct InvalidHubEndpoint(&'static str);

impl HubEndpoint {
    /// The Hugging Face Hub.
    pub const OFFICIAL: &str = "https://huggingface.co";

    /// Whether it's asked without TLS, which only whoever runs the agent can say.
    pub(super) fn is_plain(&self) -> bool {
        self.0.scheme() == "http"
    }

    /// The URL of these path segments below it; each is encoded, so that none is ever two.
    pub(super) fn below<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.0.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }
}

impl FromStr for HubEndpoint {
    type Err = InvalidHubEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidHubEndpoint> {
        let url = Url::parse(text).map_err(|_| InvalidHubEndpoint("it's no URL"))?;
        if !matches!(url.scheme(), "https" | "http") || url.host().is_none() {
            return Err(InvalidHubEndpoint("it's no https:// or http:// URL"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidHubEndpoint("it holds a user name or a password"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(InvalidHubEndpoint("it holds a query or a fragment"));
        }
        if dns::names_link_local(&url) {
            return Err(InvalidHubEndpoint("a link-local address is never asked"));
        }
        Ok(Self(url))
    }
}

impl fmt::Display for HubEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_segment_stays_one_below_the_mirrors_path() {
        let at = |endpoint: &str, segments: &[&str]| {
            endpoint.parse::<HubEndpoint>().unwrap().below(segments.iter().copied()).to_string()
        };
        let file = ["org", "name", "resolve", "refs/pr/1", "a b", "%2e%2e", "c?d#e"];
        let path = "org/name/resolve/refs%2Fpr%2F1/a%20b/%252e%252e/c%3Fd%23e";
        for endpoint in ["https://huggingface.co", "https://huggingface.co/"] {
            assert_eq!(at(endpoint, &file), format!("https://huggingface.co/{path}"));
        }
        for endpoint in ["http://host:81/api/hf", "http://host:81/api/hf/"] {
            assert_eq!(at(endpoint, &file), format!("http://host:81/api/hf/{path}"));
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        assert_eq!(HubEndpoint::OFFICIAL.parse::<HubEndpoint>().unwrap().to_string(), HubEndpoint::OFFICIAL);
        for text in [
            "",
            "huggingface.co",
            "ftp://a",
            "https://u:p@a",
            "https://a?b",
            "https://a#b",
            "http://169.254.0.1",
        ] {
            assert!(text.parse::<HubEndpoint>().is_err(), "{text}");
        }
    }
}
