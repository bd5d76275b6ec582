//! How the races measure: times, processor time, memory, the page cache, the bare disk, bare loopback, a slow link.
//! Each race includes what it needs. Nothing here knows what is raced.
#![allow(dead_code, reason = "each race uses some of it")]

pub(crate) mod child;
pub(crate) mod disk;
pub(crate) mod limits;
pub(crate) mod loopback;
mod machine;
mod median;
pub(crate) mod paced_server;
pub(crate) mod pages;
pub(crate) mod usage;

pub(crate) use machine::machine;
pub(crate) use median::median;
