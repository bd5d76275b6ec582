//! The two NVML calls that nvml-wrapper has no safe form of: the NVLink fabric and the remapped rows. Each symbol is
//! looked up by nvml-wrapper; a driver without it doesn't support it, which is no error.
#![allow(unsafe_code, reason = "calls of C functions that nvml-wrapper loads but doesn't wrap")]

use nvml_wrapper::{Device, Nvml};

use super::code::NvmlCode;

/// Where a GPU's fabric stands (`NVML_GPU_FABRIC_STATE_*`). Without NVSwitch there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fabric {
    NotSupported,
    NotStarted,
    InProgress,
    /// Done, with this result.
    Completed {
        /// 0 for success.
        status: u32,
        health: FabricHealth,
    },
    /// A state newer than this program.
    Other(u8),
}

/// What the fabric manager thinks of the finished fabric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FabricHealth {
    /// Healthy, or this driver doesn't tell.
    Fine,
    Limited,
    Unhealthy,
}

/// Rows of memory that are bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct RemappedRows {
    /// A remapping waits for a reset.
    pub(super) pending: bool,
    /// There was no spare row left.
    pub(super) failed: bool,
}

/// `nvmlGpuFabricInfo_v3_t`. Version 2 is the same without the last field.
#[repr(C)]
#[derive(Default)]
struct FabricInfoV {
    version: u32,
    cluster_uuid: [u8; 16],
    status: u32,
    clique_id: u32,
    state: u8,
    health_mask: u32,
    health_summary: u8,
}

/// `nvmlGpuFabricInfo_t`, of drivers that have no versioned call yet.
#[repr(C)]
#[derive(Default)]
struct FabricInfo {
    cluster_uuid: [u8; 16],
    status: u32,
    clique_id: u32,
    state: u8,
}

/// `NVML_STRUCT_VERSION`: the size of that version of the struct, and its number in the highest byte.
const V2: u32 = 36 | 2 << 24;
const V3: u32 = 40 | 3 << 24;
const _: () = assert!(size_of::<FabricInfoV>() == 40 && size_of::<FabricInfo>() == 28);

/// Where the fabric of this GPU stands.
pub(super) fn fabric(nvml: &Nvml, device: &Device<'_>) -> Result<Fabric, NvmlCode> {
    for version in [V3, V2] {
        let Ok(call) = nvml.lib().nvmlDeviceGetGpuFabricInfoV.as_ref() else { break };
        let mut info = FabricInfoV { version, ..FabricInfoV::default() };
        // SAFETY: `info` is laid out as nvml.h says for v3, of which v2 is a prefix, and says in `version` how
        // much of it the library may write; the handle is of this very library, which stays initialised.
        let code = unsafe { call(device.handle(), (&raw mut info).cast()) };
        match NvmlCode(code) {
            NvmlCode(0) => return Ok(info.meaning()),
            NvmlCode::ARGUMENT_VERSION_MISMATCH | NvmlCode::INVALID_ARGUMENT => {}
            NvmlCode::FUNCTION_NOT_FOUND => break,
            NvmlCode::NOT_SUPPORTED => return Ok(Fabric::NotSupported),
            other => return Err(other),
        }
    }
    let Ok(call) = nvml.lib().nvmlDeviceGetGpuFabricInfo.as_ref() else {
        return Ok(Fabric::NotSupported);
    };
    let mut info = FabricInfo::default();
    // SAFETY: `info` is laid out as nvml.h says; the handle is of this very library, which stays initialised.
    let code = unsafe { call(device.handle(), (&raw mut info).cast()) };
    match NvmlCode(code) {
        NvmlCode(0) => Ok(meaning(info.state, info.status, FabricHealth::Fine)),
        NvmlCode::NOT_SUPPORTED | NvmlCode::FUNCTION_NOT_FOUND => Ok(Fabric::NotSupported),
        other => Err(other),
    }
}

/// The remapped rows of this GPU; `None` where it has no such thing.
pub(super) fn remapped_rows(nvml: &Nvml, device: &Device<'_>) -> Result<Option<RemappedRows>, NvmlCode> {
    let Ok(call) = nvml.lib().nvmlDeviceGetRemappedRows.as_ref() else { return Ok(None) };
    let [mut corrected, mut uncorrected, mut pending, mut failed] = [0; 4];
    // SAFETY: four unsigned ints to write to, as nvml.h says; the handle is of this very library, which stays
    // initialised.
    let code = unsafe { call(device.handle(), &mut corrected, &mut uncorrected, &mut pending, &mut failed) };
    match NvmlCode(code) {
        NvmlCode(0) => Ok(Some(RemappedRows { pending: pending != 0, failed: failed != 0 })),
        NvmlCode::NOT_SUPPORTED | NvmlCode::FUNCTION_NOT_FOUND => Ok(None),
        other => Err(other),
    }
}

impl FabricInfoV {
    fn meaning(&self) -> Fabric {
        // `NVML_GPU_FABRIC_HEALTH_SUMMARY_*`, of v3 only; 0 where it isn't told.
        let health = match self.health_summary {
            2 => FabricHealth::Unhealthy,
            3 => FabricHealth::Limited,
            1 => FabricHealth::Fine,
            _ => masked(self.health_mask),
        };
        meaning(self.state, self.status, health)
    }
}

fn meaning(state: u8, status: u32, health: FabricHealth) -> Fabric {
    match state {
        0 => Fabric::NotSupported,
        1 => Fabric::NotStarted,
        2 => Fabric::InProgress,
        3 => Fabric::Completed { status, health },
        other => Fabric::Other(other),
    }
}

/// `NVML_GPU_FABRIC_HEALTH_MASK_*`: two bits each (0 not supported, 1 true, 2 false), the configuration's four (0
/// not supported, 1 none wrong).
fn masked(mask: u32) -> FabricHealth {
    let is_true = |shift: u32| mask >> shift & 0b11 == 1;
    let [degraded_bandwidth, route_recovery, route_unhealthy, timeout_recovery] = [0, 2, 4, 6].map(is_true);
    let misconfigured = mask >> 8 & 0b1111 > 1;
    if route_unhealthy || misconfigured {
        FabricHealth::Unhealthy
    } else if degraded_bandwidth || route_recovery || timeout_recovery {
        FabricHealth::Limited
    } else {
        FabricHealth::Fine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_drivers_without_a_summary() {
        assert_eq!(masked(0), FabricHealth::Fine);
        assert_eq!(masked(0b0001_1010_1010), FabricHealth::Fine);
        assert_eq!(masked(0b01), FabricHealth::Limited);
        assert_eq!(masked(0b01 << 6), FabricHealth::Limited);
        assert_eq!(masked(0b01 << 4), FabricHealth::Unhealthy);
        assert_eq!(masked(4 << 8), FabricHealth::Unhealthy);
    }
}
