//! Tests on a real cluster: etcd, the API server, the scheduler, the controllers, kubelets, and Stoker in it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

mod bed;
mod broken_list;
mod control_plane;
mod driver_taint;
mod gate;
mod image_gc;
mod image_removed;
mod installed;
mod list;
mod manifests;
mod mishaps;
mod node;
mod outage;
#[path = "../real/parts/mod.rs"]
mod parts;
mod policy;
mod removal;
mod rollout;
mod startup_taint;
mod uninstall;
mod warm_pod;
mod workload;
