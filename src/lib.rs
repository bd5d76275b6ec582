//! Stoker warms a GPU node: images into containerd, weights into a local cache, and says what is warm.

pub mod agent;
pub mod api;
pub mod cli;
pub mod cluster;
pub mod containerd;
pub mod fetch;
pub mod gpu;
pub mod image;
pub mod list;
pub mod node;
pub mod rt;
pub mod source;
pub mod types;
pub mod weights;
