//! A layer's tar stream onto the disk: into one directory and nowhere else, by the rules that containerd's own unpacking
//! follows (`archive.Apply` with overlay's whiteouts), so that the tree is the same.
//!
//! It trusts nothing in the stream. It knows no containerd, no registry and no digest, and never sleeps.

mod sink;

pub(crate) use sink::{ImpliedDir, Limits, TarSink, UnpackError, Unpacked};
