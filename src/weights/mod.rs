//! Weights: the cache on the disk, how files get in, how they are checked, how they leave.
//!
//! `layout.rs` draws the directory. [`Warmer`] makes an entry's files warm in a [`Cache`]; [`Puller`] puts them into
//! a plain directory. Nothing is shown to pods before its digest was compared (or recorded, where none is published)
//! and it is durable. This room never decides what is fetched or thrown away, and writes nowhere but in the cache's
//! root, or the directory that a pull names.

mod blob;
mod cache;
mod claims;
mod data_file;
mod did;
mod error;
mod found;
mod hub;
mod incoming;
mod journal;
mod layout;
mod lock;
mod manifest;
mod marks;
mod names;
mod ops;
mod partials;
mod plan;
mod pull;
mod resume;
mod root_fs;
mod small_file;
mod spot;
mod transfer;
mod tree;
mod warm;

#[cfg(test)]
mod tests;

pub use cache::Cache;
pub use claims::Reserve;
pub use error::{CacheError, OpError, WeightsError};
pub use journal::{Journal, framed};
pub use names::{Current, Named, names_at};
pub use pull::{Pulled, Puller};
pub use root_fs::RootFsPolicy;
pub use warm::{WarmWeights, Warmer};
