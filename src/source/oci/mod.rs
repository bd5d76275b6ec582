//! `oci://`: the files of an artifact in a registry: a ModelPack (CNCF model-spec), or whatever ORAS has pushed.
//!
//! The tag is resolved once, and everything after that is asked of the manifest's digest. A file is a layer's blob as
//! it is, so that the layer's digest is the file's: what is packed is refused and never unpacked here. How a registry
//! is spoken to, and which hosts serve it, is `registry/`'s.

use self::document::{Artifact, Document};
use self::layer::{Content, Layer};
use super::credentials::Credentials;
use super::registry::{Keyring, Registries, Repository, registry_hosts};
use super::selection::Selection;
use super::{RemoteFile, SourceConfig, SourceError};
use crate::rt::chain;
use crate::types::{Descriptor, ErrorKind, ImageRef, RegistryAuth, RelPath, Secret};

mod document;
mod index;
mod layer;
mod quote;
#[cfg(test)]
mod tests;

pub(crate) use document::artifact_files;

/// How many indexes may lead from one to the next until a manifest comes. Nobody nests them deeper than two.
const INDEX_DEPTH: usize = 3;

/// Artifacts of every registry.
#[derive(Debug, Clone)]
pub(super) struct Artifacts {
    config: SourceConfig,
    registries: Registries,
}

/// Who asks, for errors to say what to do next.
struct Asker<'a> {
    auths: Vec<RegistryAuth>,
    /// The credentials that hold nothing for this registry.
    without: Option<&'a str>,
}

impl Artifacts {
    pub(super) fn new(config: &SourceConfig) -> Result<Self, SourceError> {
        Ok(Self { config: config.clone(), registries: Registries::new(config.clone())? })
    }

    /// The files that `selection` wants of what `reference` points at now, asked for with the named credentials, or
    /// as nobody.
    pub(super) async fn files(
        &self,
        reference: &ImageRef,
        credentials: Option<&str>,
        selection: &Selection<'_>,
    ) -> Result<Vec<RemoteFile>, SourceError> {
        let asker = self.asker(reference, credentials).await?;
        let without = asker.without;
        let repository = self.repository(reference, asker.auths).await?;
        let listed = files(&repository, reference, selection).await;
        listed.map_err(|error| match without {
            Some(name) if error.kind() == ErrorKind::Denied => SourceError::Credentials {
                name: name.to_owned(),
                problem: format!(
                    "it holds nothing for {0}, which denies it to whoever has nothing; add {0} to its auths",
                    reference.domain()
                ),
            },
            _ => error,
        })
    }

    /// A docker configuration says for itself whom its passwords are for; a user name and a password are for whatever
    /// registry the entry names.
    async fn asker<'a>(
        &self,
        reference: &ImageRef,
        credentials: Option<&'a str>,
    ) -> Result<Asker<'a>, SourceError> {
        let Some(name) = credentials else { return Ok(Asker { auths: Vec::new(), without: None }) };
        let keyring = match &self.config.credentials_dir {
            Some(dir) => Keyring::read(dir, name)
                .await
                .map_err(|problem| SourceError::Credentials { name: name.to_owned(), problem })?,
            None => None,
        };
        if let Some(keyring) = keyring {
            let auths = keyring.candidates(reference);
            let without = auths.is_empty().then_some(name);
            return Ok(Asker { auths, without });
        }
        let credentials = Credentials::read(&self.config, name).await?;
        let (Some(username), Some(password)) = (credentials.get("username"), credentials.get("password"))
        else {
            return Err(
                credentials.failed("for oci:// it needs a file .dockerconfigjson, or username and password")
            );
        };
        let password = Secret::new(password.to_owned());
        let auths = vec![RegistryAuth::Basic { username: username.to_owned(), password }];
        Ok(Asker { auths, without: None })
    }

    async fn repository(
        &self,
        reference: &ImageRef,
        auths: Vec<RegistryAuth>,
    ) -> Result<Repository, SourceError> {
        let SourceConfig { registry_hosts: dirs, host_root, .. } = &self.config;
        let hosts = registry_hosts(dirs, host_root.as_deref(), reference.domain()).await;
        let hosts = hosts.map_err(|error| SourceError::Invalid {
            what: reference.domain().to_owned(),
            problem: format!("{}; correct it, or name other directories by --registry-hosts", chain(&error)),
        })?;
        Ok(self.registries.repository(reference, hosts, auths))
    }
}

async fn files(
    repository: &Repository,
    reference: &ImageRef,
    selection: &Selection<'_>,
) -> Result<Vec<RemoteFile>, SourceError> {
    let artifact = artifact(repository, reference).await?;
    selection.check_names(artifact.layers.iter().filter_map(|layer| layer.content.file()))?;
    let mut files = Vec::new();
    for Layer { descriptor, content } in artifact.layers {
        match content {
            Content::File(path) if selection.wants(&path) => {
                files.push(remote(repository, &descriptor, path));
            }
            // What is packed may hold files that are wanted, whatever it's called.
            Content::Unfit { path: Some(path), .. } if selection.excludes(&path) => {}
            Content::Unfit { problem, .. } => return Err(invalid(reference, problem)),
            Content::File(_) | Content::Nothing => {}
        }
    }
    Ok(files)
}

/// What `reference` points at now, through indexes.
async fn artifact(repository: &Repository, reference: &ImageRef) -> Result<Artifact, SourceError> {
    let unusable = |problem| invalid(reference, problem);
    let mut next = repository.resolve().await?;
    for _ in 0..=INDEX_DEPTH {
        let bytes = repository.manifest(&next).await?;
        match document::parse(&next.media_type, &bytes).map_err(unusable)? {
            Document::Artifact(artifact) => return Ok(artifact),
            Document::Index(index) => next = index.choose(&reference.name()).map_err(unusable)?,
        }
    }
    let problem =
        format!("its indexes lead to others more than {INDEX_DEPTH} times; name a manifest by its digest");
    Err(invalid(reference, problem))
}

fn invalid(reference: &ImageRef, problem: String) -> SourceError {
    SourceError::Invalid { what: format!("oci://{reference}"), problem }
}

/// A layer's file. Its digest is its version, so that one that another tag leaves as it was is known again.
fn remote(repository: &Repository, layer: &Descriptor, path: RelPath) -> RemoteFile {
    RemoteFile {
        path,
        size: layer.size,
        version: Some(layer.digest.to_string()),
        digest: Some(layer.digest.into()),
        bytes: repository.blob(layer),
    }
}
