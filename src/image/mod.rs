//! Images: how each gets into containerd, how it is checked, how it leaves.
