//! Registries: which hosts serve an image (hosts.toml, read as containerd reads it), as whom to ask them, and what they
//! have: a tag's digest, manifests, and blobs by range (OCI distribution specification and Docker's v2 before it).
//!
//! It says what a registry says and checks that bytes are what was asked for; which image is wanted, and what its
//! manifest means, is `image/`'s.

mod host;
mod hosts;

pub use host::{HostTls, RegistryHost};
pub use hosts::{HostsError, HostsFile, registry_hosts};
