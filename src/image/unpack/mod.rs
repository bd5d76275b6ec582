//! A layer's tar stream onto the disk: into one directory and nowhere else, by the rules that containerd's own unpacking
//! follows (`archive.Apply` with overlay's whiteouts), so that the tree is the same.
//!
//! It trusts nothing in the stream. It knows no containerd, no registry and no digest, and never sleeps.
//!
//! What a stream may be is what Go's `archive/tar` takes, since that is what containerd reads with: v7, ustar, PAX, GNU
//! and star headers, sums of signed bytes, base 256, an end without its zeros. Both refuse GNU's old sparse files and
//! every other type that isn't named here.
//!
//! Where the tree, or the verdict, is deliberately another than containerd's (`tests/real/unpack/zoo.rs` holds each):
//! - A directory that the layer only implies has the lower's times; containerd leaves that of the unpacking.
//! - One that is implied first and described later has only what is described; containerd leaves the lower's extended
//!   attributes on it. And a default ACL of a lower directory isn't inherited by what is made in an implied one.
//! - Implied below a path that a lower layer took away, or has a file at: taken. containerd fails with ENOTDIR.
//! - In the lowest layer an opaque mark removes nothing; containerd takes directories that are only implied for older
//!   ones, and removes them with their files.
//! - A device number that Linux can't hold is refused; containerd 2.4 refuses some of those, others become another
//!   device.
//! - `..` after a link within a link's own text means the parent of where that link leads, as for the kernel; containerd
//!   takes it back by name.
//! - Limits: entries, bytes, and parts of a path.

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
