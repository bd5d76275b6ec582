//! How unpacked layers become an image that containerd and the kubelet know: lease, scratch snapshots, the exchange of
//! directories, commits in order, documents, records.
//!
//! It fetches nothing and unpacks nothing. All it makes hangs on a lease until the image has its names, so that a crash
//! at any moment leaves only what containerd's garbage collection takes.

mod access;
mod error;
mod exchange;
pub mod labels;
mod layer;
mod publish;
mod scratch;
mod workplace;
mod workplaces;

pub(in crate::image) use access::check_root;
pub use error::CommitError;
pub use layer::CommitLayer;
pub use scratch::Scratch;
pub(in crate::image) use workplace::OVERLAYFS;
pub use workplace::Workplace;
pub use workplaces::Workplaces;
