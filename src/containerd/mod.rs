//! The containerd that is already on the node, over its socket: its own services and CRI, one file each.
//!
//! It says what containerd says, in our words, and decides nothing: which image is warm, what to pull and whose pin
//! may go is `image/`'s. It never retries and never changes containerd's configuration. Every call has a deadline,
//! except a pull, which lasts as long as the caller holds on to it.

mod client;
mod content;
mod cri;
mod error;
mod events;
mod records;
mod registry_auth;
mod scrub;
mod snapshots;
mod version;

pub use client::Containerd;
pub use cri::CriImage;
pub use error::ContainerdError;
pub use events::Changes;
pub use records::ImageRecord;
pub use snapshots::{SnapshotStamp, Snapshotter};
pub use version::ContainerdVersion;
