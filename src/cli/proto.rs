//! The client's half of `proto/stoker/v1`, as generated.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, rust_2018_idioms)]

tonic::include_proto!("client/stoker.v1");
