use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::types::{GpuPhase, GpuReason};

/// What one probe found out: the line of JSON that `stoker gpu --json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeAnswer {
    /// The version of this document; [`ProbeAnswer::VERSION`].
    pub version: u32,
    /// Where the GPUs stand.
    pub phase: GpuPhase,
    /// Why.
    pub reason: GpuReason,
    /// Details for people: versions, counts, what is odd about a GPU that is usable.
    pub message: String,
    /// How many GPUs NVML gave a handle for.
    pub devices: u32,
    /// How many there should be.
    pub expected: u32,
    /// The driver's version, when it answered.
    pub driver_version: Option<String>,
    /// The library that was loaded, or would have been.
    pub library: Option<PathBuf>,
    /// Whether the nvidia kernel module was there.
    pub module_loaded: bool,
}

impl ProbeAnswer {
    /// The version that this program writes and reads.
    pub const VERSION: u32 = 1;

    /// An answer with nothing but a verdict.
    #[must_use]
    pub fn new(phase: GpuPhase, reason: GpuReason, message: impl Into<String>) -> Self {
        Self {
            version: Self::VERSION,
            phase,
            reason,
            message: message.into(),
            devices: 0,
            expected: 0,
            driver_version: None,
            library: None,
            module_loaded: false,
        }
    }
}
