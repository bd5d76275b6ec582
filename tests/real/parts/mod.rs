//! The real parts that the tests and the demo run against, each a small typed fixture: it has its own directory
//! and free loopback ports, is ready when it answers, and is stopped and removed when dropped. A part that can't
//! start fails the test; nothing skips. It owns no assertion about Stoker.
#![allow(dead_code, unused_imports, reason = "each binary that includes these parts uses some of them")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a part that fails fails its test"
)]

mod agent;
mod artifact;
mod azurite;
mod bed;
mod bed_node;
mod cgroup;
mod cluster_access;
mod containerd;
mod control_plane;
mod cri;
mod fake_aws_identity;
mod fake_hub;
mod fault_proxy;
mod forward_proxy;
mod free_port;
mod gcs;
mod gpu;
mod http;
mod image;
mod installed;
mod killed_run;
mod leftovers;
mod limited_cgroup;
mod machine;
mod minio;
mod namespaces;
mod nginx;
mod node_history;
mod overlay;
mod pki;
mod process;
mod programs;
mod push;
mod registry;
mod s3;
mod s3_objects;
mod scratch;
#[path = "../../standin/mod.rs"]
mod standin;
mod stoker_image;
mod tls_front;
mod wait;

pub(crate) use agent::{Agent, Entry, Status, Stoker};
pub(crate) use artifact::ArtifactLayer;
pub(crate) use azurite::Azurite;
pub(crate) use bed::{Bed, BedOptions};
pub(crate) use bed_node::BedNode;
pub(crate) use containerd::{Containerd, Options, Version};
pub(crate) use control_plane::ControlPlane;
pub(crate) use cri::{Pod, compiled, pause_image};
pub(crate) use fake_aws_identity::{FakeAwsIdentity, Mood, POD_TOKEN, ROLE_ARN};
pub(crate) use fake_hub::{FakeHub, HubFile};
pub(crate) use fault_proxy::{Fault, FaultProxy, Rule, Seen, Trouble};
pub(crate) use forward_proxy::ForwardProxy;
pub(crate) use free_port::FreePort;
pub(crate) use gcs::Gcs;
pub(crate) use gpu::Gpus;
pub(crate) use image::{BuiltImage, BuiltLayer, ImageBuilder, Kind, Layer};
pub(crate) use installed::{AGENT, EMPTY, Installed, list_of, push_app};
pub(crate) use killed_run::{hold_when_told, leaves_nothing_when_killed};
pub(crate) use leftovers::left_of;
pub(crate) use limited_cgroup::Cgroup;
pub(crate) use minio::Minio;
pub(crate) use namespaces::Namespaces;
pub(crate) use nginx::Nginx;
pub(crate) use node_history::{NodeHistory, NodeVersion};
pub(crate) use overlay::Overlay;
pub(crate) use process::Process;
pub(crate) use programs::{find_system, part, parts_dir, system};
pub(crate) use push::PushedImage;
pub(crate) use registry::Registry;
pub(crate) use s3::S3;
pub(crate) use scratch::{Scratch, sweep_now};
pub(crate) use stoker_image::stoker_image;
pub(crate) use tls_front::TlsFront;
pub(crate) use wait::{START, until};
