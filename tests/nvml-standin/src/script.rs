use std::path::PathBuf;

use serde::Deserialize;

/// What the stand-in plays. Every field may be left out; an empty object is one healthy GPU.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Script {
    /// What init answers, as an `nvmlReturn_t`.
    pub init: u32,
    /// How many GPUs are counted.
    pub devices: u32,
    pub driver_version: String,
    /// Init never returns.
    pub hang: bool,
    /// Init aborts the process.
    pub abort: bool,
    /// Every GPU's fabric; left out: not supported.
    pub fabric: Option<Fabric>,
    /// Every GPU's MIG mode is to change at its next reset.
    pub mig_pending: bool,
    /// The handle of one GPU can't be had.
    pub device_error: Option<DeviceError>,
    pub remap_failure: bool,
    pub remap_pending: bool,
    pub pages_pending: bool,
    /// Left out: on.
    pub persistence: bool,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Fabric {
    /// 0 not supported, 1 not started, 2 in progress, 3 completed.
    pub state: u8,
    /// An `nvmlReturn_t`, of meaning once completed.
    pub status: u32,
    /// `NVML_GPU_FABRIC_HEALTH_SUMMARY_*`.
    pub summary: u8,
    /// `NVML_GPU_FABRIC_HEALTH_MASK_*`.
    pub mask: u32,
    /// The newest version of the call that this driver knows: 1, 2 or 3.
    pub api: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeviceError {
    pub index: u32,
    pub code: u32,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            init: 0,
            devices: 1,
            driver_version: "550.54.15".to_owned(),
            hang: false,
            abort: false,
            fabric: None,
            mig_pending: false,
            device_error: None,
            remap_failure: false,
            remap_pending: false,
            pages_pending: false,
            persistence: true,
        }
    }
}

impl Default for Fabric {
    fn default() -> Self {
        Self { state: 3, status: 0, summary: 1, mask: 0, api: 3 }
    }
}

/// Reads the script, or `None` when there is none or it can't be understood. `inside` is an address in this library.
pub(crate) fn read(inside: usize) -> Option<Script> {
    serde_json::from_slice(&std::fs::read(place(inside)?).ok()?).ok()
}

/// Where the script lies: where `STOKER_NVML_STANDIN` says, else beside the library's own file, so that several
/// stand-ins can play at once without touching anybody's environment.
fn place(inside: usize) -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("STOKER_NVML_STANDIN") {
        return Some(named.into());
    }
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let library = maps.lines().find_map(|line| holder(line, inside))?;
    Some(PathBuf::from(library).parent()?.join("nvml-standin.json"))
}

/// The file of one line of /proc/self/maps (proc_pid_maps(5)), if that mapping holds the address.
fn holder(line: &str, address: usize) -> Option<&str> {
    let (from, rest) = line.split_once('-')?;
    let (to, rest) = rest.split_once(' ')?;
    let range = usize::from_str_radix(from, 16).ok()?..usize::from_str_radix(to, 16).ok()?;
    range.contains(&address).then_some(())?;
    rest.find('/').map(|at| &rest[at..])
}
