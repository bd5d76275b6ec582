//! A layer's tar stream onto the disk: into one directory and nowhere else, by the rules that containerd's own unpacking
//! follows (`archive.Apply` with overlay's whiteouts), so that the tree is the same.
//!
//! It trusts nothing in the stream. It knows no containerd, no registry and no digest, and never sleeps.

mod adopt;
mod attributes;
mod content;
mod entry;
mod header;
mod implied;
mod number;
mod pax;
mod place;
mod resolve;
mod sink;
mod sparse;
mod stream;
mod tree;
mod trouble;
mod unpacker;
mod whole;

pub(crate) use adopt::{adopt_from_lowers, copy_root_attributes};
pub use sink::UnpackError;
pub(crate) use sink::{ImpliedDir, Limits, TarSink, Unpacked};
pub(crate) use unpacker::Unpacker;
pub use whole::unpack_layer;

#[cfg(test)]
mod tests;
