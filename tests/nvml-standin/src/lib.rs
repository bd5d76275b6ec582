//! A stand-in for NVIDIA's `libnvidia-ml.so.1`, for hosts without a GPU. It exports the C symbols that the probe
//! calls and answers from a JSON file (see [`script::Script`]), read again at each init. It drives no hardware and
//! knows nothing of the project that it tests.
//!
//! Signatures, codes and layouts are those of NVIDIA's public `nvml.h`.
#![allow(non_snake_case, reason = "the names are NVML's")]
#![allow(clippy::missing_safety_doc, reason = "the contract of each function is nvml.h's")]

mod device;
mod script;

use std::ffi::{c_char, c_int, c_uint};
use std::sync::{Mutex, PoisonError};

use script::Script;

/// `nvmlReturn_t`.
type Return = c_uint;

const SUCCESS: Return = 0;
const UNINITIALIZED: Return = 1;
const INVALID_ARGUMENT: Return = 2;
const NOT_SUPPORTED: Return = 3;
const INSUFFICIENT_SIZE: Return = 7;
const VERSION_MISMATCH: Return = 25;
const UNKNOWN: Return = 999;

/// What the last init read; `None` before it and after shutdown.
static IN_FORCE: Mutex<Option<Script>> = Mutex::new(None);

/// Answers by the script in force.
fn with(answer: impl FnOnce(&Script) -> Return) -> Return {
    match IN_FORCE.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
        Some(script) => answer(script),
        None => UNINITIALIZED,
    }
}

/// Writes an out parameter.
///
/// # Safety
/// `at` is null, or valid for a write of `T`.
unsafe fn put<T>(at: *mut T, value: T) -> Return {
    if at.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: not null, and else valid by the caller's promise.
    unsafe { at.write_unaligned(value) };
    SUCCESS
}

/// Writes a C string.
///
/// # Safety
/// `at` is null, or valid for writes of `room` bytes.
unsafe fn put_text(at: *mut c_char, room: c_uint, text: &str) -> Return {
    if at.is_null() {
        return INVALID_ARGUMENT;
    }
    if text.len() >= room as usize {
        return INSUFFICIENT_SIZE;
    }
    // SAFETY: the text and its closing zero fit into `room`, which the caller promises.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast::<c_char>(), at, text.len());
        at.add(text.len()).write(0);
    }
    SUCCESS
}

fn init() -> Return {
    let Some(script) = script::read(nvmlInit_v2 as *const () as usize) else {
        return UNKNOWN;
    };
    if script.abort {
        std::process::abort();
    }
    if script.hang {
        // park() may return for no reason; the hang may not.
        loop {
            std::thread::park();
        }
    }
    let code = script.init;
    if code == SUCCESS {
        *IN_FORCE.lock().unwrap_or_else(PoisonError::into_inner) = Some(script);
    }
    code
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> Return {
    init()
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> Return {
    init()
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> Return {
    match IN_FORCE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(_) => SUCCESS,
        None => UNINITIALIZED,
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlErrorString(code: Return) -> *const c_char {
    let words = match code {
        SUCCESS => c"Success",
        4 => c"Insufficient Permissions",
        9 => c"Driver Not Loaded",
        12 => c"Shared Library Not Found",
        15 => c"GPU is lost",
        18 => c"Driver/library version mismatch",
        27 => c"Not Ready",
        _ => c"Unknown Error",
    };
    words.as_ptr()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) -> Return {
    // SAFETY: nvml.h: `version` holds `length` bytes.
    with(|script| unsafe { put_text(version, length, &script.driver_version) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetNVMLVersion(version: *mut c_char, length: c_uint) -> Return {
    // SAFETY: nvml.h: `version` holds `length` bytes.
    with(|script| unsafe { put_text(version, length, &format!("12.{}", script.driver_version)) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetCudaDriverVersion(version: *mut c_int) -> Return {
    // SAFETY: nvml.h: `version` is an int to write to.
    with(|_| unsafe { put(version, 12_040) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) -> Return {
    // SAFETY: nvml.h: `version` is an int to write to.
    with(|_| unsafe { put(version, 12_040) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> Return {
    // SAFETY: nvml.h: `count` is an unsigned int to write to.
    with(|script| unsafe { put(count, script.devices) })
}
