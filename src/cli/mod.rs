//! The commands.

pub mod gpu;
