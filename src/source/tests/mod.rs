//! The sources against a small server on loopback that answers as it is told.

mod http;
mod index;
mod s3;
mod server;
