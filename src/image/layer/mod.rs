//! One layer on its way through the processor: compressed pieces in, their digest checked, inflated, the diff's digest
//! checked, unpacked. All of that at once, on threads of their own, a bounded number of them.
//!
//! It moves no bytes over a network and says nothing to containerd.

mod done;

pub(crate) use done::{Compression, LayerDone, LayerError, LayerTimes};
