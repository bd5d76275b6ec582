//! The gate: whether the NVIDIA driver, all GPUs and the fabric are usable.
//!
//! NVML is asked in a child process, every time a new one: [`probe()`] is what runs there, [`ask`] runs it with a
//! deadline, [`Gate`] judges the answers, [`spawn`] does it again and again and publishes where the GPUs stand.
//! The agent's own process never loads NVIDIA's library, so a hung or half-installed driver can't hang it, and no
//! handle of ours keeps a driver from being upgraded.

mod answer;
mod bus;
mod child;
mod code;
mod fabric;
mod gate;
mod library;
mod nvml;
mod probe;
mod task;
mod verdict;

pub use answer::ProbeAnswer;
pub use child::{Asked, ProbeCommand, ask, hold_lifeline};
pub use gate::{Gate, GateParams, ProbeResult};
pub use probe::{ProbeTarget, probe};
pub use task::{GpuConfig, spawn};
