//! The sources against a small server on loopback that answers as it is told.

pub(super) mod http;
mod index;
mod s3;
pub(super) mod server;
