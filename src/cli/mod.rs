//! The commands.

pub mod check;
mod client;
mod document;
mod format;
pub mod gpu;
mod progress;
mod proto;
mod rate;
pub mod status;
mod summary;
mod table;
mod terminal;
mod tracker;

pub use client::{Client, ClientError, DEFAULT_SOCKET};
pub use document::Status;
pub use progress::{Job, ProgressDisplay};
pub use status::{StatusArgs, StatusError};
pub use summary::print_summary;
pub use terminal::{Look, unless_closed};
