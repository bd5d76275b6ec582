use std::path::PathBuf;
use std::time::Duration;

use super::HubEndpoint;

/// What the sources may do and how patient they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceConfig {
    /// Where named credentials are: one directory a name, one file a value (a mounted Secret). `None`: naming
    /// credentials is an error.
    pub credentials_dir: Option<PathBuf>,
    /// How long a connection may take to be made, TLS included.
    pub connect: Duration,
    /// How long a server may take from the request to the first byte of its answer.
    pub first_byte: Duration,
    /// How long a server may send nothing in the middle of a body. There is no limit on the whole.
    pub stall: Duration,
    /// Files with certificate authorities in PEM that are trusted beside the system's. Read when clients are made.
    pub ca_files: Vec<PathBuf>,
    /// Whether plain `http://` may be used, where anybody on the way can change the bytes.
    pub allow_http: bool,
    /// The directory below which `file://` may be read; `None`: nowhere.
    pub file_root: Option<PathBuf>,
    /// The Hub that `hf://` means; `None` is the Hugging Face Hub.
    pub hub: Option<HubEndpoint>,
    /// Where the `hosts.toml` of registries are, as in containerd's `config_path`, for `oci://`: paths of the host,
    /// perhaps none.
    pub registry_hosts: Vec<PathBuf>,
    /// Where the host's `/` is, for those paths; `None`: where ours is.
    pub host_root: Option<PathBuf>,
}

impl Default for SourceConfig {
    fn default() -> Self {
        Self {
            credentials_dir: None,
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(20),
            stall: Duration::from_secs(5),
            ca_files: Vec::new(),
            allow_http: false,
            file_root: None,
            hub: None,
            registry_hosts: Vec::new(),
            host_root: None,
        }
    }
}
