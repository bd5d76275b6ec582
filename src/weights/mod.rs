//! Weights: the cache on the disk, how files get in, how they are checked, how they leave.
