//! NVML's return codes (`nvmlReturn_t` in nvml.h), by number: nvml-wrapper has no names for 23 to 30.

use std::fmt;

use crate::types::{GpuPhase, GpuReason};

/// A return code that isn't success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NvmlCode(pub(super) u32);

impl NvmlCode {
    pub(super) const INVALID_ARGUMENT: Self = Self(2);
    pub(super) const NOT_SUPPORTED: Self = Self(3);
    pub(super) const FUNCTION_NOT_FOUND: Self = Self(13);
    pub(super) const VERSION_MISMATCH: Self = Self(18);
    pub(super) const ARGUMENT_VERSION_MISMATCH: Self = Self(25);

    /// What it means for the gate, whichever call brought it.
    pub(super) fn verdict(self) -> (GpuPhase, GpuReason) {
        match self.0 {
            4 | 17 => (GpuPhase::Failed, GpuReason::NoPermission),
            6 | 28 => (GpuPhase::Degraded, GpuReason::GpuCountMismatch),
            8 | 11 | 14 => (GpuPhase::Failed, GpuReason::GpuFault),
            9 => (GpuPhase::Waiting, GpuReason::DriverNotLoaded),
            10 | 19 | 20 | 23 | 27 | 29 => (GpuPhase::Waiting, GpuReason::DriverBusy),
            12 | 13 => (GpuPhase::Waiting, GpuReason::LibraryLoadError),
            15 => (GpuPhase::Failed, GpuReason::GpuLost),
            16 => (GpuPhase::Failed, GpuReason::ResetRequired),
            18 => (GpuPhase::Failed, GpuReason::VersionMismatch),
            // 999 is also what comes when a container has lost its right to the device files: time and a new
            // probe tell.
            _ => (GpuPhase::Waiting, GpuReason::DriverError),
        }
    }

    /// Whether it says something of the GPU, rather than of the call: those count even from an optional call.
    pub(super) fn is_device_fault(self) -> bool {
        matches!(self.0, 8 | 11 | 14 | 15 | 16)
    }

    fn words(self) -> &'static str {
        match self.0 {
            1 => "uninitialized",
            2 => "invalid argument",
            3 => "not supported",
            4 => "no permission",
            6 => "not found",
            8 => "insufficient power",
            9 => "driver not loaded",
            10 => "timeout",
            11 => "interrupt issue",
            12 => "shared library not found",
            13 => "function not found",
            14 => "corrupted infoROM",
            15 => "GPU is lost",
            16 => "reset required",
            17 => "blocked by the operating system",
            18 => "driver/library version mismatch",
            19 => "in use",
            20 => "insufficient memory",
            23 => "insufficient resources",
            25 => "argument version mismatch",
            27 => "not ready",
            28 => "GPU not found",
            29 => "invalid state",
            999 => "unknown error",
            _ => "a code that this version doesn't know",
        }
    }
}

impl fmt::Display for NvmlCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NVML {} ({})", self.0, self.words())
    }
}
