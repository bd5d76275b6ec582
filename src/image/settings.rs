use std::path::PathBuf;

use super::ProviderPaths;
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
    /// The percentage of the image file system in use from which on the kubelet removes images
    /// (`imageGCHighThresholdPercent`): no pull is started that would bring it there.
    pub gc_threshold: u8,
    /// Leave every image to containerd's own PullImage.
    pub only_containerd: bool,
}

impl PullSettings {
    /// The kubelet's default.
    pub const GC_THRESHOLD: u8 = 85;
}

impl Default for PullSettings {
    fn default() -> Self {
        Self {
            sources: SourceConfig::default(),
            providers: None,
            host_root: PathBuf::from("/"),
            gc_threshold: Self::GC_THRESHOLD,
            only_containerd: false,
        }
    }
}
