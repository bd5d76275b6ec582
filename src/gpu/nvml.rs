//! Opens NVML, reads what the gate needs, closes it. Blocks, and may hang or crash with the library: only a probe's
//! child process comes here.

use std::path::Path;

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use super::code::NvmlCode;
use super::fabric::{self, Fabric, RemappedRows};

/// What NVML says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Reading {
    pub(super) driver_version: Option<String>,
    pub(super) devices: Vec<DeviceReading>,
}

/// What NVML says of one GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeviceReading {
    pub(super) index: u32,
    /// Why it can't be used: its handle, or a question about it, brought an error of the device.
    pub(super) fault: Option<NvmlCode>,
    pub(super) fabric: Fabric,
    pub(super) rows: RemappedRows,
    pub(super) pages_pending: bool,
    pub(super) mig_pending: bool,
    /// `None` where it isn't told.
    pub(super) persistence: Option<bool>,
    /// Questions that weren't answered, though they are supported.
    pub(super) unanswered: Vec<(&'static str, NvmlCode)>,
}

/// Why NVML says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Silence {
    /// The library doesn't load, or lacks what every NVML has; in the dynamic linker's words.
    Load(String),
    /// NVML refuses.
    Code(NvmlCode),
}

impl From<NvmlError> for Silence {
    fn from(error: NvmlError) -> Self {
        match error {
            NvmlError::LibloadingError(_) | NvmlError::FailedToLoadSymbol(_) => Self::Load(error.to_string()),
            // Errors of the wrapper itself become 999.
            error => Self::Code(NvmlCode(error.into())),
        }
    }
}

/// Asks the library everything, once.
///
/// # Errors
/// When it doesn't load, or doesn't initialise, or can't count.
pub(super) fn read(library: &Path) -> Result<Reading, Silence> {
    // Without flags, init attaches no GPU; each handle does, and so proves its GPU.
    let nvml = Nvml::builder().lib_path(library.as_os_str()).init()?;
    if let Err(error) = &nvml.lib().nvmlShutdown {
        let silence = Silence::Load(error.to_string());
        // Dropping it would call the missing function.
        std::mem::forget(nvml);
        return Err(silence);
    }
    let reading = read_all(&nvml);
    // What it has said stands, even if it closes badly: this process ends.
    let _ = nvml.shutdown();
    reading
}

fn read_all(nvml: &Nvml) -> Result<Reading, Silence> {
    let driver_version = nvml.sys_driver_version().ok();
    let devices = (0..nvml.device_count()?).map(|index| read_device(nvml, index)).collect();
    Ok(Reading { driver_version, devices })
}

fn read_device(nvml: &Nvml, index: u32) -> DeviceReading {
    let mut reading = DeviceReading {
        index,
        fault: None,
        fabric: Fabric::NotSupported,
        rows: RemappedRows::default(),
        pages_pending: false,
        mig_pending: false,
        persistence: None,
        unanswered: Vec::new(),
    };
    match nvml.device_by_index(index) {
        Ok(device) => ask(nvml, &device, &mut reading),
        Err(error) => reading.fault = Some(NvmlCode(error.into())),
    }
    reading
}

fn ask(nvml: &Nvml, device: &Device<'_>, reading: &mut DeviceReading) {
    let persistence = optional(device.is_in_persistent_mode());
    reading.persistence = reading.note("persistence mode", persistence).flatten();
    let pages = optional(device.are_pages_pending_retired());
    reading.pages_pending = reading.note("retired pages", pages).flatten().unwrap_or(false);
    let mig = optional(device.mig_mode());
    reading.mig_pending =
        reading.note("MIG mode", mig).flatten().is_some_and(|mode| mode.current != mode.pending);
    let rows = fabric::remapped_rows(nvml, device);
    reading.rows = reading.note("remapped rows", rows).flatten().unwrap_or_default();
    let fabric = fabric::fabric(nvml, device);
    reading.fabric = reading.note("fabric", fabric).unwrap_or(Fabric::NotSupported);
}

/// `None` for what this GPU or this driver doesn't have.
fn optional<T>(answer: Result<T, NvmlError>) -> Result<Option<T>, NvmlCode> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound) => {
            Ok(None)
        }
        Err(error) => Err(NvmlCode(error.into())),
    }
}

impl DeviceReading {
    /// The answer, or a note of why there is none.
    fn note<T>(&mut self, question: &'static str, answer: Result<T, NvmlCode>) -> Option<T> {
        match answer {
            Ok(value) => return Some(value),
            Err(code) if code.is_device_fault() => self.fault = self.fault.or(Some(code)),
            Err(code) => self.unanswered.push((question, code)),
        }
        None
    }
}
