use std::path::PathBuf;

use super::{GcThreshold, ProviderPaths};
use crate::source::SourceConfig;

/// How images are pulled.
#[derive(Debug, Clone)]
pub struct PullSettings {
    /// How patient we are with a registry, and where named credentials are.
    pub sources: SourceConfig,
    /// The kubelet's credential providers, where they are to be asked.
    pub providers: Option<ProviderPaths>,
    /// Where the host's root file system is: hosts.toml and credential providers are read below it.
    pub host_root: PathBuf,
    /// From where on the kubelet removes images: no pull is started that would bring the disk there.
    pub gc_threshold: GcThreshold,
    /// Leave every image to containerd's own PullImage.
    pub only_containerd: bool,
}

impl Default for PullSettings {
    fn default() -> Self {
        Self {
            sources: SourceConfig::default(),
            providers: None,
            host_root: PathBuf::from("/"),
            gc_threshold: GcThreshold::DEFAULT,
            only_containerd: false,
        }
    }
}
