//! The words of the project as types: plain values, no I/O, no policy.
//!
//! Every other room may use these; this room uses none of them.

mod byte_range;
mod descriptor;
mod digest;
mod entry_id;
mod error_kind;
mod globs;
mod go_duration;
mod gpu_state;
mod image_ref;
mod progress;
mod registry_auth;
mod rel_path;
mod revision;
mod secret;
mod weights_uri;

pub use byte_range::ByteRange;
pub use descriptor::Descriptor;
pub use digest::{Digest, HASHER_STATE, Hasher, InvalidDigest};
pub use entry_id::{EntryId, InvalidEntryId};
pub use error_kind::ErrorKind;
pub use globs::{Globs, InvalidGlob};
pub use go_duration::parse_go_duration;
pub use gpu_state::{GpuPhase, GpuReason, GpuState};
pub use image_ref::{ImageRef, InvalidImageRef};
pub use progress::Progress;
pub use registry_auth::RegistryAuth;
pub use rel_path::{InvalidRelPath, RelPath};
pub use revision::Revision;
pub use secret::Secret;
pub use weights_uri::{InvalidWeightsUri, WeightsUri};
