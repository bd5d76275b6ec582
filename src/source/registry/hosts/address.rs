use url::Url;

/// A server as `hosts.toml` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// What paths are appended to: without a user, a query, a slash at its end (unless it is all of the path).
    pub(super) base: Url,
    /// Host and port as they were written: containerd compares them with the image's as text.
    pub(super) authority: String,
}

impl Address {
    /// Reads `[http[s]://]host[:port][/path]`. Without a scheme it is HTTPS. The path of the API, `/v2`, is added where
    /// it isn't there already, unless the path is to be taken as it is.
    pub(super) fn parse(text: &str, override_path: bool) -> Option<Self> {
        if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
            return None;
        }
        let (scheme, rest) = match text.split_once("://") {
            None => ("https", text),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => ("http", rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => ("https", rest),
            Some(_) => return None,
        };
        // Only what containerd takes of it: a user and a query are dropped.
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let authority = authority.rsplit('@').next().unwrap_or_default();
        if authority.is_empty() {
            return None;
        }
        let mut base = Url::parse(&format!("{scheme}://{authority}{path}")).ok()?;
        base.host_str()?;
        let mut parts: Vec<&str> = base.path().split('/').filter(|part| !part.is_empty()).collect();
        if !override_path && parts.last() != Some(&"v2") {
            parts.push("v2");
        }
        let path = format!("/{}", parts.join("/"));
        base.set_path(&path);
        Some(Self { base, authority: authority.to_owned() })
    }

    /// Whether images of `domain` come from elsewhere in truth, so that this one has to be told whose they are
    /// (containerd, `RegistryHost.isProxy`).
    pub(super) fn is_mirror_of(&self, domain: &str) -> bool {
        self.authority != domain && !(domain == "docker.io" && self.authority == "registry-1.docker.io")
    }
}
