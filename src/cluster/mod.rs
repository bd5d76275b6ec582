//! Where the list comes from and where it is kept over restarts; and the own Node, which is told what is warm.
//!
//! This room reads the document and hands on a [`crate::list::List`]; what the document may say is `list/`'s business. It
//! never decides what to do about a list, and it never lets one go because its document is missing or broken. What the
//! Node is told is decided by `node/`. The agent's part of it never writes another Node; no part writes what isn't ours.

mod client;
mod config_map;
mod config_map_list;
mod error;
mod kept;
mod last_good;
mod leftovers;
mod one_object;
mod own_node;
mod patience;
mod proxy;
mod standalone;
mod standalone_node;
mod token;
mod uninstall;

pub use client::{Cluster, ConnectError};
pub use config_map::{ConfigMapRef, InvalidConfigMapRef};
pub use config_map_list::spawn_config_map_list;
pub use error::{ClusterError, Fault};
pub use leftovers::Leftovers;
pub use own_node::{NodeSettings, NodeWatches, spawn_node};
pub use standalone::spawn_file_list;
pub use standalone_node::spawn_standalone_node;
pub use uninstall::{Cleaned, UninstallError, agents_running, uninstall};
