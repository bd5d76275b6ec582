use tempfile::TempDir;

use super::http::{config, goods};
use crate::source::{RemoteFile, SourceConfig, SourceError, Sources};

/// A Secret by the name `cloud`, as it's mounted.
pub(super) struct Secret(TempDir);

impl Secret {
    pub(super) fn new(values: &[(&str, &str)]) -> Self {
        let secret = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir(secret.0.path().join("cloud")).unwrap();
        for (key, value) in values {
            secret.set(key, value);
        }
        secret
    }

    pub(super) fn set(&self, key: &str, value: &str) {
        std::fs::write(self.0.path().join("cloud").join(key), value).unwrap();
    }

    pub(super) fn sources(&self) -> Sources {
        let credentials_dir = Some(self.0.path().to_owned());
        Sources::new(SourceConfig { credentials_dir, ..config() }).unwrap()
    }

    pub(super) async fn resolve(&self, uri: &str) -> Result<Vec<RemoteFile>, SourceError> {
        Ok(self.sources().resolve(&goods(uri, false), Some("cloud")).await?.files)
    }
}
