//! The sources against a small server on loopback that answers as it is told, and on a file system.

mod azure;
mod files;
mod google;
pub(super) mod http;
mod index;
mod s3;
mod s3_parts;
mod secret;
pub(super) mod server;
