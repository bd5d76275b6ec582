//! The kubelet's credential providers: programs that are asked for an image's credentials, as the clouds' registries
//! have them (KEP 2133; kubernetes, `pkg/credentialprovider/plugin`). The kubelet's own configuration and programs are
//! used, read at each use.
//!
//! It never tells what a program wrote, keeps an answer no longer than that says, and knows no pods: what wants the
//! token of a pod's service account can't be had here.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;

use crate::image::ImageError;
use crate::rt;
use crate::source::registry::{Keyring, pattern_matches};
use crate::types::{ImageRef, RegistryAuth};

mod answer;
mod config;
mod desk;
mod error;
mod plugin;

pub use error::ProviderError;

use config::ProviderConfig;
use desk::Desk;

/// Where the kubelet has its credential providers. Both are paths of the host.
#[derive(Debug, Clone)]
pub struct ProviderPaths {
    /// Its `--image-credential-provider-config`: a file, or a directory of files.
    pub config: PathBuf,
    /// Its `--image-credential-provider-bin-dir`.
    pub bin_dir: PathBuf,
}

/// The providers, with what they have said that still holds.
#[derive(Clone)]
pub(super) struct Providers {
    paths: Arc<ProviderPaths>,
    host_root: Option<Arc<Path>>,
    patience: Duration,
    desks: Arc<Mutex<HashMap<String, Desk>>>,
}

impl Providers {
    pub(super) fn new(paths: ProviderPaths, host_root: Option<PathBuf>) -> Self {
        Self {
            paths: Arc::new(paths),
            host_root: host_root.map(Into::into),
            patience: plugin::PATIENCE,
            desks: Arc::default(),
        }
    }

    /// The credentials that the providers have for `image`, the most specific first.
    ///
    /// # Errors
    /// When the configuration can't be read; when a provider that should know the image fails and none of the others
    /// has any. The kubelet would then pull without credentials.
    pub(super) async fn candidates(&self, image: &ImageRef) -> Result<Vec<RegistryAuth>, ImageError> {
        let desks = self.desks(self.listed().await?, image);
        let asked = join_all(desks.iter().map(|(_, desk)| desk.ask(image))).await;
        let mut keyring = Keyring::default();
        let mut failed = None;
        for ((name, _), outcome) in desks.into_iter().zip(asked) {
            match outcome {
                Ok(answer) => {
                    for (pattern, auth) in &answer.auths {
                        keyring.add(pattern, auth.clone());
                    }
                }
                Err(cause) => {
                    tracing::warn!(provider = name, image = %image, problem = rt::chain(&cause), "no credentials");
                    failed.get_or_insert(ImageError::Provider { name, cause });
                }
            }
        }
        let candidates = keyring.candidates(image);
        match failed {
            Some(error) if candidates.is_empty() => Err(error),
            _ => Ok(candidates),
        }
    }

    /// What the kubelet's configuration says now, each provider with its program.
    async fn listed(&self) -> Result<Vec<(ProviderConfig, PathBuf)>, ImageError> {
        let (paths, host_root) = (Arc::clone(&self.paths), self.host_root.clone());
        let read = tokio::task::spawn_blocking(move || {
            let with_program = |config: ProviderConfig| {
                let path = paths.bin_dir.join(&config.name);
                // One that can't be found can't be started, which is told when it's asked.
                let program = rt::host_path(host_root.as_deref(), &path).unwrap_or(path);
                (config, program)
            };
            let configs = config::read(host_root.as_deref(), &paths.config)?;
            Ok(configs.into_iter().map(with_program).collect())
        });
        read.await.unwrap_or_else(|error| {
            Err(ImageError::ProviderConfig {
                path: self.paths.config.clone(),
                problem: format!("it can't be read: {error}"),
            })
        })
    }

    /// The desks of the providers that know about `image`. Those of providers that have changed or gone are closed.
    fn desks(&self, listed: Vec<(ProviderConfig, PathBuf)>, image: &ImageRef) -> Vec<(String, Desk)> {
        let mut open = self.desks.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, desk| listed.iter().any(|(config, program)| desk.serves(config, program)));
        let mut found = Vec::new();
        for (config, program) in listed {
            if !config.match_images.iter().any(|pattern| pattern_matches(pattern, image)) {
                continue;
            }
            let name = config.name.clone();
            let is_usable = config.unusable.is_none();
            let desk = match open.get(&name).filter(|desk| desk.serves(&config, &program)) {
                Some(desk) => desk.clone(),
                None => Desk::new(config, program, self.patience),
            };
            if is_usable {
                open.insert(name.clone(), desk.clone());
            }
            found.push((name, desk));
        }
        found
    }
}

impl fmt::Debug for Providers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Providers").field("paths", &self.paths).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
