use std::path::{Path, PathBuf};

use super::answer::ProbeAnswer;
use super::bus::{self, Module};
use super::nvml::{self, Silence};
use super::{library, verdict};
use crate::rt;
use crate::types::{GpuPhase, GpuReason};

/// What to probe, and where things are on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeTarget {
    /// The library to load, and no other; `None` looks in the known places.
    pub nvml_path: Option<PathBuf>,
    /// Where the host's root is mounted.
    pub host_root: PathBuf,
    /// Where sysfs is mounted.
    pub sysfs_root: PathBuf,
    /// How many GPUs there must be; `None`: as many as the PCI bus shows.
    pub expected: Option<u32>,
}

impl Default for ProbeTarget {
    fn default() -> Self {
        Self { nvml_path: None, host_root: "/".into(), sysfs_root: "/sys".into(), expected: None }
    }
}

/// Asks this host once. It blocks, loads NVIDIA's library into this process, and hangs or crashes when that does:
/// only a process that may die should call it. It changes nothing on the host.
///
/// The library is loaded only when there is a GPU on the bus and the kernel module is loaded: without the module it
/// can only fail, and NVML would try to load the module, in the way of whoever is just replacing the driver.
#[must_use]
pub fn probe(target: &ProbeTarget) -> ProbeAnswer {
    let on_bus = match bus::gpus(&target.sysfs_root) {
        Ok(gpus) => gpus,
        Err(error) => {
            return ProbeAnswer::new(GpuPhase::Failed, GpuReason::ProbeFailed, rt::chain(&error));
        }
    };
    let module = bus::module(&target.sysfs_root);
    let answer = if on_bus == 0 { no_gpu(target) } else { with_gpus(target, &module, on_bus) };
    ProbeAnswer { module_loaded: module != Module::Missing, ..answer }
}

fn no_gpu(target: &ProbeTarget) -> ProbeAnswer {
    let bus = target.sysfs_root.join("bus/pci/devices");
    match target.expected {
        None | Some(0) => {
            let message = format!("no NVIDIA GPU in {}", bus.display());
            ProbeAnswer::new(GpuPhase::NotApplicable, GpuReason::NoNvidiaDevice, message)
        }
        Some(expected) => {
            let message = format!("{expected} expected, none in {}", bus.display());
            let answer = ProbeAnswer::new(GpuPhase::Degraded, GpuReason::GpuCountMismatch, message);
            ProbeAnswer { expected, ..answer }
        }
    }
}

fn with_gpus(target: &ProbeTarget, module: &Module, on_bus: u32) -> ProbeAnswer {
    let expected = target.expected.unwrap_or(on_bus);
    let waiting = |reason, message: String| ProbeAnswer {
        expected,
        ..ProbeAnswer::new(GpuPhase::Waiting, reason, message)
    };
    let library = match library::find(target.nvml_path.as_deref(), &target.host_root) {
        Ok(library) => library,
        Err(places) => return waiting(GpuReason::LibraryNotFound, not_in(&places)),
    };
    let Module::Loaded(module_version) = module else {
        let message = format!("no module/nvidia in {}", target.sysfs_root.display());
        return ProbeAnswer { library: Some(library), ..waiting(GpuReason::DriverNotLoaded, message) };
    };
    let answer = ask_nvml(&library, module_version.as_deref(), expected);
    ProbeAnswer { expected, library: Some(library), ..answer }
}

fn ask_nvml(library: &Path, module_version: Option<&str>, expected: u32) -> ProbeAnswer {
    match nvml::read(library) {
        Ok(reading) => {
            let verdict = verdict::judge(&reading, expected, module_version);
            ProbeAnswer {
                devices: verdict::answering(&reading),
                driver_version: reading.driver_version,
                ..ProbeAnswer::new(verdict.phase, verdict.reason, verdict.message)
            }
        }
        Err(Silence::Load(words)) => ProbeAnswer::new(GpuPhase::Waiting, GpuReason::LibraryLoadError, words),
        Err(Silence::Code(code)) => {
            let (phase, reason) = code.verdict();
            let mut message = code.to_string();
            if code == super::code::NvmlCode::VERSION_MISMATCH {
                let module = module_version.unwrap_or("of unknown version");
                message = format!("{message}: {}, kernel module {module}", library.display());
            }
            ProbeAnswer::new(phase, reason, message)
        }
    }
}

fn not_in(places: &[PathBuf]) -> String {
    match places {
        [only] => format!("{} is not there", only.display()),
        [first, .., last] => {
            format!("not in {} places, from {} to {}", places.len(), first.display(), last.display())
        }
        [] => String::new(),
    }
}
