//! The containerd that is already on the node, over its socket: its own services and CRI, one file each.
//!
//! It says what containerd says, in our words, and decides nothing: which image is warm, what to pull and whose pin
//! may go is `image/`'s. It never retries and never changes containerd's configuration. Every call has a deadline,
//! except a pull, which lasts as long as the caller holds on to it. No message goes out with a part left unset that
//! containerd takes for granted: it dies of some.

mod blobs;
mod client;
mod config_file;
mod containers;
mod content;
mod content_write;
mod cri;
mod daemon;
mod error;
mod events;
mod ingest;
mod leases;
mod mounts;
mod records;
mod registry_auth;
mod scrub;
mod snapshot_writes;
mod snapshots;
mod version;

pub use blobs::{BlobInfo, BlobReader};
pub use client::Containerd;
pub use containers::ContainerMounts;
pub use content_write::BlobWriter;
pub use cri::CriImage;
pub use daemon::{Daemon, RegistrySetup, Verifiers};
pub use error::ContainerdError;
pub use events::Changes;
pub use leases::Lease;
pub use mounts::{Mount, lower_dirs, upper_dir};
pub use records::ImageRecord;
pub use snapshot_writes::SnapshotInfo;
pub use snapshots::{SnapshotStamp, Snapshotter};
pub use version::ContainerdVersion;
