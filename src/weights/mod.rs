//! Weights: the cache on the disk, how files get in, how they are checked, how they leave.
//!
//! `layout.rs` draws the directory. [`Warmer`] makes an entry's files warm in a [`Cache`]; [`Puller`] puts them into
//! a plain directory. Nothing is shown to pods before its digest was compared (or recorded, where none is published)
//! and it is durable. This room never decides what is fetched or thrown away, and writes nowhere but in the cache's
//! root, or the directory that a pull names.

mod asked;
mod batch;
mod blob;
mod cache;
mod capacity;
mod claims;
mod data_file;
mod declared;
mod did;
mod error;
mod evict;
mod found;
mod gather;
mod give_way;
mod holds;
mod hub;
mod in_use;
mod incoming;
mod inventory;
mod journal;
mod layout;
mod lock;
mod manifest;
mod marks;
mod names;
mod ops;
mod partials;
mod parts_of;
mod plan;
mod pull;
mod reading;
mod resume;
mod root_fs;
mod scrub;
mod small_file;
mod spot;
mod stock;
mod sums;
mod syscalls;
mod transfer;
mod tree;
mod users;
mod warm;

#[cfg(test)]
mod tests;

pub use cache::Cache;
pub use capacity::{Capacity, Room};
pub use claims::Reserve;
pub use declared::Declared;
pub use error::{CacheError, OpError, Shortage, WeightsError};
pub use evict::Freed;
pub use give_way::GiveWay;
pub use inventory::{BlobUse, Inventory, Shown, Unneeded, blobs_at, inventory_at, mark_corrupt, verify_blob};
pub use journal::{Journal, framed};
pub(crate) use manifest::manifest_again;
pub use names::{Current, Named, names_at};
pub use pull::{Pulled, Puller};
pub use root_fs::{RootFsPolicy, shares_disk};
pub use scrub::{ScrubSettings, scrub};
pub use tree::Retired;
pub use users::Users;
pub use warm::{WarmWeights, Warmer};
