//! Tests against real parts: containerd, a registry, an S3 server, nginx, and the `stoker` binary itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

mod agent;
mod behind_a_proxy;
mod commit;
mod credentials;
mod critest;
mod doors;
mod faulty;
mod fixtures;
mod hostile;
mod images;
mod node;
mod on_each_version;
mod parts;
mod pulling;
mod pulls;
mod registry;
mod unpack;
mod weights;
