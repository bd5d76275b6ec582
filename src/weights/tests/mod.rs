//! The cache against sources in memory: what is on the disk after each thing that can happen.

mod bed;
mod checks;
mod crash;
mod disk;
mod evict;
mod halfway;
mod hostile;
mod hub;
mod power;
mod pull;
mod resume;
mod served_over_http;
pub(super) mod trace;
mod warm;
