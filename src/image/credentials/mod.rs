//! As whom to ask a registry for an image: mounted Secrets, and the kubelet's credential providers, by the kubelet's own
//! rules, so that what the kubelet can pull we can.
//!
//! It never keeps a secret longer than its source allows, and never shows one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ImageError;
use crate::source::registry::Keyring;
use crate::types::{ImageRef, RegistryAuth};

mod provider;

use provider::Providers;
pub use provider::{ProviderError, ProviderPaths};

/// Where credentials for images come from.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    secrets: Option<Arc<Path>>,
    providers: Option<Providers>,
}

impl Credentials {
    /// Named credentials are the directories in `secrets`; images whose entry names none are asked of `providers`,
    /// whose paths are those of the host, which has its `/` at `host_root`.
    pub(crate) fn new(
        secrets: Option<PathBuf>,
        providers: Option<ProviderPaths>,
        host_root: Option<PathBuf>,
    ) -> Self {
        Self {
            secrets: secrets.map(Into::into),
            providers: providers.map(|paths| Providers::new(paths, host_root)),
        }
    }

    /// Which credentials to try for `image`, in order: those of the Secret called `name`, or without a name those that
    /// the providers have. None is an image that is asked for without any.
    ///
    /// # Errors
    /// [`ImageError::Credentials`] where the named ones can't be read. [`ImageError::Provider`] where a provider failed
    /// and there are no others; the kubelet would try without any then, so whoever asked may do so, and has the reason
    /// if that is denied. [`ImageError::ProviderConfig`] where it isn't known which providers there are.
    pub(crate) async fn candidates(
        &self,
        image: &ImageRef,
        name: Option<&str>,
    ) -> Result<Vec<RegistryAuth>, ImageError> {
        let failed = |name: &str, problem| ImageError::Credentials { name: name.to_owned(), problem };
        match (name, &self.secrets, &self.providers) {
            (Some(name), Some(dir), _) => match Keyring::read(dir, name).await {
                Ok(Some(keyring)) => Ok(keyring.candidates(image)),
                Ok(None) => Err(failed(name, Keyring::missing(dir, name))),
                Err(problem) => Err(failed(name, problem)),
            },
            (Some(name), None, _) => {
                let problem = "there is no directory to look for it; give --credentials-dir".to_owned();
                Err(failed(name, problem))
            }
            (None, _, Some(providers)) => providers.candidates(image).await,
            (None, _, None) => Ok(Vec::new()),
        }
    }
}
