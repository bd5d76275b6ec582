//! The cache against sources in memory: what is on the disk after each thing that can happen.

mod bed;
mod crash;
mod hostile;
mod pull;
mod served_over_http;
mod warm;
