use containerd_client::services::v1::version_client::VersionClient;

use super::client::{READ_DEADLINE, in_namespace};
use super::{Containerd, ContainerdError};

/// Which containerd answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerdVersion {
    /// As it was built: `v2.4.2`, `1.7.35`, or a word where it was built without.
    pub version: String,
    /// The commit, or nothing.
    pub revision: String,
}

impl Containerd {
    /// Asks the daemon for its version; also the cheapest way to see whether it answers.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn version(&self) -> Result<ContainerdVersion, ContainerdError> {
        let mut client = VersionClient::new(self.channel());
        let answer = self.call("tell its version", READ_DEADLINE, client.version(in_namespace(()))).await?;
        Ok(ContainerdVersion { version: answer.version, revision: answer.revision })
    }
}
