//! The gate: whether the NVIDIA driver, all GPUs and the fabric are usable.
//!
//! NVML is asked in a child process, every time a new one: [`probe()`] is what runs there, [`ask`] runs it with a
//! deadline, [`Gate`] judges the answers, [`spawn`] does it again and again and publishes where the GPUs stand.
//! The agent's own process never loads NVIDIA's library, so a hung or half-installed driver can't hang it, and no
//! handle of ours keeps a driver from being upgraded: while [`Hold`] says that one is, nothing is probed at all.
//!
//! Asking the driver takes a privileged container. In a pod that is a second one, without network, in which
//! [`watch_into`] probes and writes a file; the agent's [`spawn`] then reads that file instead of probing.

mod answer;
mod boot_clock;
mod bus;
mod child;
mod code;
mod fabric;
mod follow;
mod gate;
mod hold;
mod hold_file;
mod library;
mod listener;
mod network;
mod notice;
mod nvml;
mod pace;
mod probe;
mod rounds;
mod task;
mod verdict;
mod watch;

pub use answer::ProbeAnswer;
pub use child::{Asked, ProbeCommand, Stuck, ask, hold_lifeline};
pub use gate::{Gate, GateParams, ProbeResult};
pub use hold::{Hold, is_upgrading};
pub use network::{NetworkError, leave_network};
pub use probe::{ProbeTarget, probe};
pub use task::{GpuConfig, spawn};
pub use watch::{WatchError, watch_into};
