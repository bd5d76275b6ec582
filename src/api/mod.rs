//! The gRPC socket and the HTTP endpoints: what a node says to those who ask it. They read the latest [`Report`], and
//! no client's slowness reaches the agent. The one thing that comes in here and changes anything is a request for a
//! listed entry that `nodes` leaves out on this node.

mod connection;
mod convert;
pub mod grpc;
pub mod http;
mod metrics;
mod outlook;
mod page;
mod proto;
mod requests;
#[cfg(test)]
mod sample;
mod socket;
mod wait;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::node::Report;

pub use socket::{SocketError, bind};

/// Which labels a report puts on the Node.
pub type Labels = Arc<dyn Fn(&Report) -> BTreeMap<String, String> + Send + Sync>;

/// Why a door closed by itself. It's the end of a long task, and so of the process.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum ServeError {
    #[error("the gRPC socket broke down")]
    Grpc(#[source] tonic::transport::Error),
    #[error("the HTTP endpoint broke down")]
    Http(#[source] std::io::Error),
}

/// How long clients may take to hang up once the agent stops.
const FAREWELL: std::time::Duration = std::time::Duration::from_secs(1);

/// How often a watcher hears of bytes that move. They are no change of the report.
const TICK: std::time::Duration = std::time::Duration::from_secs(1);
