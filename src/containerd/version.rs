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

impl ContainerdVersion {
    /// The release line: `(2, 4)`, or `None` where the version is only a word.
    #[must_use]
    pub fn line(&self) -> Option<(u32, u32)> {
        let mut numbers = self.version.trim_start_matches('v').split('.');
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_read_from_every_form() {
        let line =
            |text: &str| ContainerdVersion { version: text.to_owned(), revision: String::new() }.line();
        assert_eq!(line("v2.4.2"), Some((2, 4)));
        assert_eq!(line("1.6.20~ds1"), Some((1, 6)));
        assert_eq!(line("2.0.0-rc.1"), Some((2, 0)));
        assert_eq!(line("unknown"), None);
        assert_eq!(line("v2"), None);
    }
}
