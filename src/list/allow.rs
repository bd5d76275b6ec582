use std::path::{Path, PathBuf};

use url::Host;

use super::address::{is_forbidden_address, is_metadata_name};
use crate::types::{Globs, ImageRef, InvalidGlob, WeightsUri};

/// What a list may name. It's the agent's owner who decides this, by flags: whoever may write the list may not
/// send every agent of a fleet to any address, nor read any file of the nodes through them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowList {
    schemes: Vec<String>,
    hosts: Globs,
    file_root: Option<PathBuf>,
}

/// What an allow-list says no to, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum Refused {
    #[error("{scheme}:// is not allowed here")]
    Scheme { scheme: String },
    #[error("the host {host:?} is not allowed here")]
    Host { host: String },
    #[error("{host:?} is a link-local or metadata address, which a list can never name")]
    Address { host: String },
    #[error("the host can't be read")]
    MalformedHost,
    #[error("this agent reads no file:// weights")]
    NoFiles,
    #[error("the path is not below {}", root.display())]
    OutsideRoot { root: PathBuf },
}

/// Flags that make no allow-list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum InvalidAllowList {
    #[error("{0:?} is not a scheme (http https s3 hf gs az oci are; file:// is allowed by its root)")]
    Scheme(String),
    #[error("the host pattern can't be read")]
    Host(#[source] InvalidGlob),
    #[error("the root for file:// must be an absolute path without .., not {}", .0.display())]
    Root(PathBuf),
}

impl AllowList {
    /// The schemes that are allowed where no flag says otherwise: those that are encrypted.
    pub const DEFAULT_SCHEMES: [&str; 6] = ["https", "s3", "hf", "gs", "az", "oci"];

    /// `schemes` without `://`; `hosts` are globs (`*.example.com`; IPv6 without brackets) for the hosts of `https://`,
    /// `http://` and `oci://` and for image registries, empty means every host; `file://` is allowed below
    /// `file_root`, or nowhere.
    ///
    /// # Errors
    /// An unknown scheme, a malformed pattern, a relative root.
    pub fn new(
        schemes: &[String],
        hosts: &[String],
        file_root: Option<PathBuf>,
    ) -> Result<Self, InvalidAllowList> {
        let known = |scheme: &str| scheme == "http" || Self::DEFAULT_SCHEMES.contains(&scheme);
        if let Some(unknown) = schemes.iter().find(|scheme| !known(scheme)) {
            return Err(InvalidAllowList::Scheme(unknown.clone()));
        }
        let hosts: Vec<String> = hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        let hosts = Globs::new(&hosts, &[]).map_err(InvalidAllowList::Host)?;
        let climbs = |root: &Path| root.components().any(|part| part == std::path::Component::ParentDir);
        if let Some(root) = file_root.as_ref().filter(|root| !root.is_absolute() || climbs(root)) {
            return Err(InvalidAllowList::Root(root.clone()));
        }
        Ok(Self { schemes: schemes.to_vec(), hosts, file_root })
    }

    /// Whether weights may come from `uri`. Of `file://` only the path's text is looked at: whoever opens it must
    /// not follow a link out of the root.
    ///
    /// # Errors
    /// What is refused, and why.
    pub fn weights(&self, uri: &WeightsUri) -> Result<(), Refused> {
        if let WeightsUri::File(path) = uri {
            let root = self.file_root.as_ref().ok_or(Refused::NoFiles)?;
            return match Path::new(path).starts_with(root) {
                true => Ok(()),
                false => Err(Refused::OutsideRoot { root: root.clone() }),
            };
        }
        if !self.schemes.iter().any(|scheme| scheme == uri.scheme()) {
            return Err(Refused::Scheme { scheme: uri.scheme().to_owned() });
        }
        match uri {
            WeightsUri::Http(url) => match url.host() {
                Some(host) => self.host(&host.to_owned()),
                None => Err(Refused::MalformedHost),
            },
            WeightsUri::Oci(reference) => self.image(reference),
            // The schemes of the clouds have their own hosts, which a list can't choose.
            WeightsUri::S3 { .. }
            | WeightsUri::Gcs { .. }
            | WeightsUri::Azure { .. }
            | WeightsUri::HuggingFace { .. }
            | WeightsUri::File(_) => Ok(()),
        }
    }

    /// Whether an image may come from its registry.
    ///
    /// # Errors
    /// What is refused, and why.
    pub fn image(&self, reference: &ImageRef) -> Result<(), Refused> {
        let domain = reference.domain();
        let host = match domain.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => host,
            _ => domain,
        };
        // Reads numbers as the resolver will: 2852039166 and 0xa9fea9fe are addresses.
        self.host(&Host::parse(host).map_err(|_| Refused::MalformedHost)?)
    }

    fn host(&self, host: &Host<String>) -> Result<(), Refused> {
        let (text, forbidden) = match host {
            Host::Domain(name) => {
                let name = name.trim_end_matches('.').to_ascii_lowercase();
                let forbidden = is_metadata_name(&name);
                (name, forbidden)
            }
            Host::Ipv4(address) => (address.to_string(), is_forbidden_address((*address).into())),
            Host::Ipv6(address) => (address.to_string(), is_forbidden_address((*address).into())),
        };
        if forbidden {
            Err(Refused::Address { host: text })
        } else if self.hosts.wants(&text) {
            Ok(())
        } else {
            Err(Refused::Host { host: text })
        }
    }
}

/// The encrypted schemes, every host, no files.
impl Default for AllowList {
    fn default() -> Self {
        let schemes = Self::DEFAULT_SCHEMES.map(str::to_owned).to_vec();
        Self { schemes, hosts: Globs::all(), file_root: None }
    }
}

impl Refused {
    /// What to do about it.
    #[must_use]
    pub fn fix(&self) -> String {
        match self {
            Self::Scheme { scheme } => {
                format!("use another source, or let the agent's flag --allow-schemes name {scheme}")
            }
            Self::Host { .. } => {
                "use an allowed host, or add this one to the agent's --allow-hosts".to_owned()
            }
            Self::Address { .. } | Self::MalformedHost => "name the server that has the bytes".to_owned(),
            Self::NoFiles => "use another source, or give the agent a --file-root".to_owned(),
            Self::OutsideRoot { .. } => {
                "name a path below it, or give the agent another --file-root".to_owned()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(allow: &AllowList, uri: &str) -> Result<(), Refused> {
        allow.weights(&uri.parse().unwrap())
    }

    fn allow(schemes: &[&str], hosts: &[&str], root: Option<&str>) -> AllowList {
        let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        AllowList::new(&owned(schemes), &owned(hosts), root.map(PathBuf::from)).unwrap()
    }

    #[test]
    fn http_and_files_are_allowed_only_by_flags() {
        let default = AllowList::default();
        for uri in ["https://a/b", "s3://b/k", "hf://a/b", "gs://b/k", "az://models/k", "oci://ghcr.io/a/b"] {
            assert_eq!(weights(&default, uri), Ok(()), "{uri}");
        }
        assert_eq!(weights(&default, "http://a/b"), Err(Refused::Scheme { scheme: "http".to_owned() }));
        assert_eq!(weights(&default, "file:///models/a"), Err(Refused::NoFiles));
        assert_eq!(weights(&allow(&["http"], &[], None), "http://127.0.0.1:80/b"), Ok(()));
    }

    #[test]
    fn files_stay_below_their_root() {
        let allow = allow(&[], &[], Some("/models"));
        assert_eq!(weights(&allow, "file:///models/a/"), Ok(()));
        for uri in ["file:///modelsx/a", "file:///etc/passwd", "file:///"] {
            assert!(weights(&allow, uri).is_err(), "{uri}");
        }
        assert!(AllowList::new(&[], &[], Some(PathBuf::from("models"))).is_err());
        assert!(AllowList::new(&[], &[], Some(PathBuf::from("/a/../b"))).is_err());
    }

    #[test]
    fn link_local_addresses_are_refused_in_every_spelling() {
        let all = allow(&["http", "https", "oci"], &[], None);
        for uri in [
            "http://169.254.169.254/latest/meta-data/",
            "http://169.254.1.2/",
            "http://2852039166/",
            "http://0xa9fea9fe/",
            "http://0xa9.0xfe.0xa9.0xfe/",
            "http://0251.0376.0251.0376/",
            "http://169.254.43518/",
            "http://169.254.169.254./",
            "http://[fe80::1]/",
            "http://[::ffff:169.254.169.254]/",
            "http://[::169.254.169.254]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://[fd00:ec2::254]/",
            "http://metadata.google.internal/",
            "http://METADATA.google.internal./",
            "oci://169.254.169.254/a/b",
            "oci://[fe80::1]:5000/a",
            "oci://0xa9fea9fe:80/a",
            "oci://2852039166:80/a",
        ] {
            assert!(matches!(weights(&all, uri), Err(Refused::Address { .. })), "{uri}");
        }
        for uri in ["http://127.0.0.1/", "http://[::1]/", "http://10.0.0.1/", "oci://localhost:5000/a"] {
            assert_eq!(weights(&all, uri), Ok(()), "{uri}");
        }
    }

    #[test]
    fn hosts_are_globs_for_urls_and_registries() {
        let allow = allow(&["https", "s3"], &["*.example.com", "GHCR.io", "::1"], None);
        assert_eq!(weights(&allow, "https://models.example.com:8443/a"), Ok(()));
        assert_eq!(weights(&allow, "https://[::1]/a"), Ok(()));
        assert_eq!(weights(&allow, "s3://any-bucket/a"), Ok(()));
        assert_eq!(allow.image(&"ghcr.io/a/b".parse().unwrap()), Ok(()));
        for image in ["nginx", "example.com/a", "ghcr.io.evil.com/a"] {
            assert!(matches!(allow.image(&image.parse().unwrap()), Err(Refused::Host { .. })), "{image}");
        }
    }

    #[test]
    fn an_unknown_scheme_is_no_flag() {
        assert!(matches!(
            AllowList::new(&["ftp".to_owned()], &[], None),
            Err(InvalidAllowList::Scheme(scheme)) if scheme == "ftp"
        ));
    }
}
