//! The words of the project as types: plain values, no I/O, no policy.
//!
//! Every other room may use these; this room uses none of them.

mod byte_range;
mod crc;
mod descriptor;
mod digest;
mod entry_id;
mod error_kind;
mod git_oid;
mod globs;
mod go_duration;
mod gpu_state;
mod hub_repo;
mod image_ref;
mod part_digests;
mod progress;
mod published;
mod registry_auth;
mod rel_path;
mod revision;
mod secret;
mod weights_uri;

pub use byte_range::ByteRange;
pub use crc::{Crc, CrcKind};
pub use descriptor::Descriptor;
pub use digest::{Digest, HASHER_STATE, Hasher, InvalidDigest};
pub use entry_id::{EntryId, InvalidEntryId};
pub use error_kind::ErrorKind;
pub use git_oid::{GitHasher, GitOid, InvalidGitOid};
pub use globs::{Globs, InvalidGlob};
pub use go_duration::parse_go_duration;
pub use gpu_state::{GpuPhase, GpuReason, GpuState};
pub use hub_repo::{HubRepo, InvalidHubRepo};
pub use image_ref::{ImageRef, InvalidImageRef};
pub use part_digests::PartDigests;
pub use progress::Progress;
pub use published::Published;
pub use registry_auth::RegistryAuth;
pub use rel_path::{InvalidRelPath, RelPath};
pub use revision::Revision;
pub use secret::Secret;
pub use weights_uri::{InvalidWeightsUri, WeightsUri};
