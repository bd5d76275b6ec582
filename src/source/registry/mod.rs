//! Registries: which hosts serve an image (hosts.toml, read as containerd reads it), as whom to ask them, and what they
//! have: a tag's digest, manifests, and blobs by range (OCI distribution specification and Docker's v2 before it).
//!
//! It says what a registry says and checks that bytes are what was asked for; which image or artifact is wanted, and
//! what its manifest means, is `image/`'s and `oci/`'s. Credentials go to the hosts that it's given and to the token
//! servers that they name, and never across a redirect.

mod blob;
mod challenge;
mod clients;
mod endpoint;
mod gate;
mod host;
mod hosts;
mod keyring;
mod pattern;
mod registries;
mod repository;
#[cfg(test)]
mod tests;
mod token;
mod wire;

pub use challenge::{Challenge, parse_challenges};
pub use host::{HostTls, RegistryHost};
pub use hosts::{HostsError, HostsFile, registry_hosts};
pub(crate) use keyring::Keyring;
pub(crate) use pattern::pattern_matches;
pub use registries::Registries;
pub use repository::Repository;
