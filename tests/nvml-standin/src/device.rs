//! The calls on one GPU. A handle is the index plus one; it's never followed.

use std::ffi::{c_char, c_int, c_uint, c_void};

use crate::script::Script;
use crate::{INVALID_ARGUMENT, NOT_SUPPORTED, Return, SUCCESS, VERSION_MISMATCH, put, put_text, with};

/// `nvmlDevice_t`.
type Device = *mut c_void;

/// `nvmlPciInfo_t`.
#[repr(C)]
pub struct PciInfo {
    bus_id_legacy: [c_char; 16],
    domain: c_uint,
    bus: c_uint,
    device: c_uint,
    pci_device_id: c_uint,
    pci_sub_system_id: c_uint,
    bus_id: [c_char; 32],
}

/// `nvmlGpuFabricInfo_t`, the first version.
#[repr(C)]
pub struct FabricInfo {
    cluster_uuid: [u8; 16],
    status: Return,
    clique_id: c_uint,
    state: u8,
}

/// `nvmlGpuFabricInfo_v3_t`; v2 is the same without its last field.
#[repr(C)]
pub struct FabricInfoV {
    version: c_uint,
    cluster_uuid: [u8; 16],
    status: Return,
    clique_id: c_uint,
    state: u8,
    health_mask: c_uint,
    health_summary: u8,
}

/// Answers for a GPU that is there.
fn of(device: Device, answer: impl FnOnce(&Script, u32) -> Return) -> Return {
    with(|script| match u32::try_from(device.addr()) {
        Ok(handle) if (1..=script.devices).contains(&handle) => answer(script, handle - 1),
        _ => INVALID_ARGUMENT,
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: *mut Device) -> Return {
    with(|script| match &script.device_error {
        Some(error) if error.index == index => error.code,
        _ if index >= script.devices => INVALID_ARGUMENT,
        // SAFETY: nvml.h: `device` is a handle to write to.
        _ => unsafe { put(device, std::ptr::without_provenance_mut(index as usize + 1)) },
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetName(device: Device, name: *mut c_char, length: c_uint) -> Return {
    // SAFETY: nvml.h: `name` holds `length` bytes.
    of(device, |_, _| unsafe { put_text(name, length, "Stand-in GPU") })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(device: Device, uuid: *mut c_char, length: c_uint) -> Return {
    let text = |index: u32| format!("GPU-00000000-0000-0000-0000-{index:012x}");
    // SAFETY: nvml.h: `uuid` holds `length` bytes.
    of(device, |_, index| unsafe { put_text(uuid, length, &text(index)) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(device: Device, pci: *mut PciInfo) -> Return {
    of(device, |_, index| {
        let mut info = PciInfo {
            bus_id_legacy: [0; 16],
            domain: 0,
            bus: index + 1,
            device: 0,
            pci_device_id: 0x2330_10de,
            pci_sub_system_id: 0,
            bus_id: [0; 32],
        };
        let id = format!("00000000:{:02X}:00.0", index + 1);
        for (to, from) in info.bus_id.iter_mut().zip(id.bytes()) {
            *to = from.cast_signed();
        }
        for (to, from) in info.bus_id_legacy.iter_mut().zip(id.bytes().skip(4)) {
            *to = from.cast_signed();
        }
        // SAFETY: nvml.h: `pci` is an nvmlPciInfo_t to write to.
        unsafe { put(pci, info) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigMode(
    device: Device,
    current: *mut c_uint,
    pending: *mut c_uint,
) -> Return {
    // SAFETY: nvml.h: both are unsigned ints to write to.
    of(device, |script, _| match unsafe { put(current, 0) } {
        // SAFETY: as above.
        SUCCESS => unsafe { put(pending, script.mig_pending.into()) },
        refused => refused,
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPersistenceMode(device: Device, mode: *mut c_int) -> Return {
    // SAFETY: nvml.h: `mode` is an enum to write to.
    of(device, |script, _| unsafe { put(mode, script.persistence.into()) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetRetiredPagesPendingStatus(
    device: Device,
    pending: *mut c_int,
) -> Return {
    // SAFETY: nvml.h: `pending` is an enum to write to.
    of(device, |script, _| unsafe { put(pending, script.pages_pending.into()) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetRemappedRows(
    device: Device,
    corrected: *mut c_uint,
    uncorrected: *mut c_uint,
    pending: *mut c_uint,
    failed: *mut c_uint,
) -> Return {
    of(device, |script, _| {
        let answers = [
            (corrected, 0),
            (uncorrected, script.remap_pending.into()),
            (pending, script.remap_pending.into()),
            (failed, script.remap_failure.into()),
        ];
        // SAFETY: nvml.h: all four are unsigned ints to write to.
        answers.into_iter().map(|(at, value)| unsafe { put(at, value) }).max().unwrap_or(SUCCESS)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuFabricInfo(device: Device, info: *mut FabricInfo) -> Return {
    of(device, |script, _| {
        let Some(fabric) = &script.fabric else { return NOT_SUPPORTED };
        let (status, state) = (fabric.status, fabric.state);
        // SAFETY: nvml.h: `info` is an nvmlGpuFabricInfo_t to write to.
        unsafe { put(info, FabricInfo { cluster_uuid: [0; 16], status, clique_id: 0, state }) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGpuFabricInfoV(device: Device, info: *mut FabricInfoV) -> Return {
    of(device, |script, _| {
        let Some(fabric) = &script.fabric else { return NOT_SUPPORTED };
        if info.is_null() {
            return INVALID_ARGUMENT;
        }
        // SAFETY: nvml.h: the caller sets `version`, the first field of every version of the struct.
        let version = unsafe { (&raw const (*info).version).read() };
        let known = match fabric.api {
            3 => version == (40 | 3 << 24) || version == (36 | 2 << 24),
            2 => version == (36 | 2 << 24),
            _ => false,
        };
        if !known {
            return VERSION_MISMATCH;
        }
        // SAFETY: the caller's version says that the struct is there up to `health_mask`, for v3 up to its end.
        unsafe {
            (&raw mut (*info).status).write(fabric.status);
            (&raw mut (*info).state).write(fabric.state);
            (&raw mut (*info).health_mask).write(fabric.mask);
            if version >> 24 == 3 {
                (&raw mut (*info).health_summary).write(fabric.summary);
            }
        }
        SUCCESS
    })
}
