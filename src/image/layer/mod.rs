//! One layer on its way through the processor: compressed pieces in, their digest checked, inflated, the diff's digest
//! checked, unpacked. All of that at once, on threads of their own, a bounded number of them.
//!
//! It moves no bytes over a network and says nothing to containerd.
//!
//! ```text
//!            pieces                blocks, shared and used again
//!  fetch ──▶ intake: inflate ──┬──▶ emptying: unpack ──▶ TarSink
//!              │               └──▶ hash of the diff
//!              └──▶ hash of the blob, and a copy of it in a file, if one is wanted
//! ```

mod blob_in;
mod blocks;
mod done;
mod emptying;
mod halt;
mod hashing;
mod inflate;
mod intake;
mod outlet;
mod process;
mod split;
mod stages;
#[cfg(test)]
mod tests;
mod threads;

pub use done::LayerError;
pub(crate) use done::{Compression, LayerDone, LayerTimes};
pub(crate) use process::{LayerJob, process};
use split::Split;
pub(crate) use threads::Threads;
