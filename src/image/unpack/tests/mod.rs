//! The unpacker on a real file system. What it is compared with is in `tests/real/unpack.rs`; here are its own rules,
//! and what hostile streams do to it.

pub(super) mod bed;
mod hostile;
mod rules;
#[allow(dead_code, reason = "tests/real uses all of it")]
pub(crate) mod tape;
