use std::path::PathBuf;
use std::time::Duration;

use http::HeaderMap;
use url::Url;

/// One server that may serve an image: a mirror, or the registry itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryHost {
    /// What every path is appended to, without a slash at its end: `https://registry-1.docker.io/v2`, or with
    /// `override_path` whatever the file says.
    pub base: Url,
    /// The registry's name as images spell it, if this is another server: sent as `?ns=` (containerd, docs/hosts.md).
    pub namespace: Option<String>,
    /// Whether blobs and manifests by digest may be asked of it.
    pub can_pull: bool,
    /// Whether it may say what a tag points at.
    pub can_resolve: bool,
    /// How it proves who it is, and we who we are.
    pub tls: HostTls,
    /// Headers for every request to it. They may hold secrets.
    pub headers: HeaderMap,
    /// How long a connection may take to be made, where the file says so.
    pub dial_timeout: Option<Duration>,
}

/// TLS of one host: files are read when a client is made from it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostTls {
    /// Certificate authorities beside the system's.
    pub ca: Vec<PathBuf>,
    /// Client certificates, each with its key, or `None` where the key is in the same file.
    pub client: Vec<(PathBuf, Option<PathBuf>)>,
    /// Whether any certificate will do.
    pub skip_verify: bool,
}
