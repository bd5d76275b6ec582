//! The unpacker on a real file system. What it is compared with is in `tests/real/unpack.rs`; here are its own rules,
//! and what hostile streams do to it.

mod bed;
mod rules;
pub(crate) mod tape;
