//! Stoker warms a GPU node: images into containerd, weights into a local cache, and says what is warm.
//!
//! The long tasks, and what each is told and tells (`run.rs` wires them):
//!
//! ```text
//! ConfigMap or file ─▶ list task ──watch<Arc<List>>────┐
//! NVML child process ▶ gpu task ───watch<GpuState>──────┤
//! containerd events ─▶ image task ─watch<Arc<Images>>───┤
//!                                                       ▼
//!      jobs (JoinSet) ◀──Step───── AGENT ────watch<Arc<Report>>──▶ node task
//!           └───────Outcome──────▶   │ ──────────────────────────▶ gRPC and HTTP tasks
//!                                    ▲
//!      node task ───────────────watch<Applied>, watch<NodeFacts>
//!      gRPC task ───────────────watch<requested>
//! ```

pub mod agent;
pub mod api;
pub mod cli;
pub mod cluster;
pub mod containerd;
pub mod fetch;
#[doc(hidden)]
pub mod fuzzing;
pub mod gpu;
pub mod image;
pub mod list;
pub mod node;
pub mod rt;
mod run;
pub mod source;
pub mod types;
pub mod weights;
