//! An image pulled by ourselves: from the registry's manifest to a committed snapshot, all layers at once, and within a
//! layer fetching, hashing, inflating and unpacking at once.
//!
//! It puts the rooms beside it together and owns the order of what they do. What it can't or mustn't do it says
//! ([`Unable`]), and leaves to containerd's own PullImage.

mod attempt;
mod flights;
mod keeping;
mod layers;
mod local;
mod one_layer;
mod phases;
mod plan;
mod puller;
mod space;
mod unable;
mod waves;

pub use phases::{Phase, Phases};
pub(super) use puller::{Direct, Request};
pub use unable::Unable;
