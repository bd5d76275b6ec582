//! Which servers to ask for a registry's images: `hosts.toml` and docker's certificate directories, as containerd reads
//! them (containerd, docs/hosts.md and `core/remotes/docker/config/hosts.go`), so that mirrors and caches that work for
//! containerd work for us unchanged.
//!
//! It reads at each call and keeps nothing. It connects to nobody, and reads no certificate: that's done when a client
//! is made from what it found.
//!
//! Two things differ from containerd, on purpose. A file that can't be read is an error here, where containerd goes on
//! without it: whoever asked may then leave the pull to containerd. And where containerd tries HTTPS first and then HTTP
//! because a server may speak either, we take the one that is more likely: HTTP where `http://` is written or the
//! registry is on this machine, HTTPS where that one has certificates.

use std::path::{Path, PathBuf};

use super::{HostTls, RegistryHost};

mod address;
mod assemble;
mod directory;
mod error;
mod file;
mod table;

pub use error::HostsError;
pub use file::HostsFile;

/// The hosts to try for images of `domain` (as an image reference spells it, with its port), in order, the registry
/// itself last. Reads the files now.
///
/// `dirs` are the entries of the daemon's `config_path`, absolute paths of the host, perhaps none; `host_root` is where
/// the host's `/` is for us. The paths in the answer can be opened as they are.
///
/// # Errors
/// When a file of that registry can't be read or understood, or `domain` isn't a registry's name.
pub async fn registry_hosts(
    dirs: &[PathBuf],
    host_root: Option<&Path>,
    domain: &str,
) -> Result<Vec<RegistryHost>, HostsError> {
    let search = directory::Search {
        dirs: dirs.to_vec(),
        host_root: host_root.map(Path::to_owned),
        domain: domain.to_owned(),
    };
    let found = tokio::task::spawn_blocking(move || search.run()).await;
    let file = found.map_err(|cause| HostsError::Unreadable {
        path: dirs.first().cloned().unwrap_or_default(),
        cause: std::io::Error::other(cause),
    })??;
    assemble::hosts(file, domain, !dirs.is_empty())
}

#[cfg(test)]
mod tests;
