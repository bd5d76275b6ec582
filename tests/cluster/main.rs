//! Tests on a real cluster: etcd, the API server, the scheduler, the controllers, kubelets, and Stoker in it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

mod bed;
mod list;
mod node;
#[path = "../real/parts/mod.rs"]
mod parts;
mod uninstall;
