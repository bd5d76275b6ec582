use std::fmt;
use std::str::FromStr;

use super::Digest;

/// Where an image is, in the one spelling that containerd and kubelet use for it: `nginx` becomes
/// `docker.io/library/nginx:latest`, and of a tag and a digest together only the digest stays (distribution's
/// reference grammar and `ParseDockerRef`, which CRI applies to every reference it's given).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRef {
    domain: String,
    repository: String,
    version: Version,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Version {
    Tag(String),
    Digest(Digest),
}

/// Text that isn't an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an image reference: {text:?}: {problem}")]
pub struct InvalidImageRef {
    text: String,
    problem: &'static str,
}

impl ImageRef {
    /// The registry's host, with its port if one was given: `docker.io`, `ghcr.io`, `127.0.0.1:5000`.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The path in the registry: `library/nginx`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Domain and repository: `docker.io/library/nginx`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.repository)
    }

    /// The tag, where the reference has no digest.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        match &self.version {
            Version::Tag(tag) => Some(tag),
            Version::Digest(_) => None,
        }
    }

    /// The digest, where the reference has one.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        match self.version {
            Version::Tag(_) => None,
            Version::Digest(digest) => Some(digest),
        }
    }
}

impl FromStr for ImageRef {
    type Err = InvalidImageRef;

    fn from_str(text: &str) -> Result<Self, InvalidImageRef> {
        let invalid = |problem| InvalidImageRef { text: text.chars().take(120).collect(), problem };
        if text.len() > 4096 {
            return Err(invalid("it is too long"));
        }
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest))
                if digest.starts_with("sha256:") && !digest.bytes().any(|b| b.is_ascii_uppercase()) =>
            {
                let digest =
                    digest.parse().map_err(|_| invalid("the digest must be sha256: and 64 hex digits"))?;
                (rest, Some(digest))
            }
            Some(_) => return Err(invalid("the digest must be sha256: and 64 lower-case hex digits")),
        };
        let last_part = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[last_part..].split_once(':') {
            None => (rest, None),
            Some((last, tag)) => (&rest[..last_part + last.len()], Some(tag)),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(invalid(
                "the tag must be 1 to 128 characters of A-Z a-z 0-9 _ . - and not begin with . or -",
            ));
        }
        let (domain, repository) = split_domain(name);
        if !is_domain(&domain) {
            return Err(invalid("the registry's host name is malformed"));
        }
        if !repository.split('/').all(is_path_component) || domain.len() + repository.len() > 254 {
            return Err(invalid(
                "the repository must be lower-case letters and digits, joined by . _ __ - or /",
            ));
        }
        let version =
            digest.map_or_else(|| Version::Tag(tag.unwrap_or("latest").to_owned()), Version::Digest);
        Ok(Self { domain, repository, version })
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.repository)?;
        match &self.version {
            Version::Tag(tag) => write!(f, ":{tag}"),
            Version::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

/// The first part is a host only if it looks like one: it has a dot, a port or an upper-case letter, or is
/// `localhost`. Docker Hub has several names and a default folder.
fn split_domain(name: &str) -> (String, String) {
    let (domain, rest) = match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => ("docker.io", name),
    };
    let domain = if domain == "index.docker.io" { "docker.io" } else { domain };
    if domain == "docker.io" && !rest.contains('/') {
        return (domain.to_owned(), format!("library/{rest}"));
    }
    (domain.to_owned(), rest.to_owned())
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (domain, None),
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let is_ip6 = |host: &str| {
        host.strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok())
    };
    (is_ip6(host) || host.split('.').all(is_label))
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

fn is_tag(tag: &str) -> bool {
    (1..=128).contains(&tag.len())
        && !tag.starts_with(['.', '-'])
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

/// `[a-z0-9]+` groups, joined by one `.`, one or two `_`, or any number of `-`.
fn is_path_component(component: &str) -> bool {
    let mut separator = String::new();
    let mut groups = 0;
    for character in component.chars() {
        if character.is_ascii_lowercase() || character.is_ascii_digit() {
            let joins =
                matches!(separator.as_str(), "." | "_" | "__") || separator.bytes().all(|b| b == b'-');
            if !joins || (groups == 0 && !separator.is_empty()) {
                return false;
            }
            separator.clear();
            groups += 1;
        } else if matches!(character, '.' | '_' | '-') {
            separator.push(character);
        } else {
            return false;
        }
    }
    groups > 0 && separator.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn every_spelling_becomes_the_one_containerd_uses() {
        let digest = format!("sha256:{HEX}");
        for (text, normal) in [
            ("nginx", "docker.io/library/nginx:latest".to_owned()),
            ("nginx:1.27", "docker.io/library/nginx:1.27".to_owned()),
            ("vllm/vllm-openai:v0.9", "docker.io/vllm/vllm-openai:v0.9".to_owned()),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest".to_owned()),
            ("localhost/a", "localhost/a:latest".to_owned()),
            ("127.0.0.1:5000/a/b__c.d--e:T", "127.0.0.1:5000/a/b__c.d--e:T".to_owned()),
            ("[::1]:5000/a", "[::1]:5000/a:latest".to_owned()),
            (&format!("ghcr.io/a/b:tag@{digest}"), format!("ghcr.io/a/b@{digest}")),
            (&format!("nginx@{digest}"), format!("docker.io/library/nginx@{digest}")),
        ] {
            assert_eq!(text.parse::<ImageRef>().unwrap().to_string(), normal, "{text}");
            assert_eq!(
                normal.parse::<ImageRef>().unwrap().to_string(),
                normal,
                "normal form is a fixed point"
            );
        }
    }

    #[test]
    fn what_is_not_a_reference_is_refused() {
        for text in [
            "",
            ":",
            "@",
            "/",
            "a/",
            "/a",
            "Nginx",
            "a:",
            "a:.b",
            "a@sha256:12",
            "a@md5:12",
            "a b",
            "a___b",
            "-a",
            "a..b/c",
            "host:port/a",
            "https://host/a",
            "a/../b",
            &format!("a@sha256:{}", HEX.to_uppercase()),
        ] {
            assert!(text.parse::<ImageRef>().is_err(), "{text:?} parsed as {:?}", text.parse::<ImageRef>());
        }
    }
}
