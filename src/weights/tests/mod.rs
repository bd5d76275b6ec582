//! The cache against sources in memory: what is on the disk after each thing that can happen.

mod bed;
mod checks;
mod crash;
mod cuts;
mod disk;
mod evict;
mod halfway;
mod hostile;
mod hub;
mod power;
mod power_hub;
mod pull;
mod resume;
mod served_over_http;
mod told;
pub(super) mod trace;
mod warm;
