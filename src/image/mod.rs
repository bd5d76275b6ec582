//! How an image gets into containerd, how it is checked and pinned, and how a missing one is noticed.
//!
//! It says what is warm and does what it is told; which image is wanted and when is the agent's. It changes nothing in
//! containerd's configuration, takes off no pin that isn't ours, and removes no image.

mod asked;
mod by_containerd;
mod commit;
mod credentials;
mod direct;
mod durable;
mod early_file;
mod error;
mod fullness;
mod images;
mod layer;
mod look;
pub(crate) mod manifest;
mod pins;
mod presence;
mod pull;
mod settings;
mod sweep;
mod task;
mod unpack;

#[doc(hidden)]
pub use commit::{CommitError, CommitLayer, Scratch, Workplace, Workplaces, labels};
pub use credentials::{ProviderError, ProviderPaths};
pub use direct::{Phase, Phases, Unable};
pub use error::ImageError;
pub use fullness::GcThreshold;
pub use images::{Images, Pin};
pub use layer::LayerError;
pub use manifest::ManifestError;
pub use pins::to_unpin;
pub use presence::{Presence, chain_id};
pub use pull::{Puller, WarmImage};
pub use settings::PullSettings;
pub use task::{ImagesHandle, spawn};
pub use unpack::{UnpackError, unpack_layer};
