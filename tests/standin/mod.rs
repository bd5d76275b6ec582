//! A host with NVIDIA GPUs, or without, in a temporary directory: a fake sysfs, and the stand-in `libnvidia-ml.so.1`
//! with the file that it answers from. A test file takes it in by `mod standin;`.
#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::path::{Path, PathBuf};

/// The kernel module's version, and the stand-in's driver's where the script says nothing else.
pub(crate) const VERSION: &str = "550.54.15";

/// The stand-in library in a directory of its own, and its script beside it.
pub(crate) struct Standin {
    dir: PathBuf,
}

impl Standin {
    /// Copies the library into `dir` (made if missing), playing one healthy GPU.
    pub(crate) fn new(dir: impl Into<PathBuf>) -> Self {
        let standin = Self { dir: dir.into() };
        fs::create_dir_all(&standin.dir).unwrap();
        fs::copy(built(), standin.library()).unwrap();
        standin.answer("{}");
        standin
    }

    /// What to answer from now on; the fields are those of `tests/nvml-standin/src/script.rs`. Switched by rename:
    /// a probe reads the old or the new one, never half of one.
    pub(crate) fn answer(&self, json: &str) {
        let next = self.dir.join("next.json");
        fs::write(&next, json).unwrap();
        fs::rename(&next, self.dir.join("nvml-standin.json")).unwrap();
    }

    /// For `--nvml-path`.
    pub(crate) fn library(&self) -> PathBuf {
        self.dir.join("libnvidia-ml.so.1")
    }
}

/// The library as cargo built it for this test: it's a dev-dependency, so its cdylib lies where the test does.
fn built() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let library = test.parent().unwrap().join("libnvidia_ml.so");
    assert!(library.is_file(), "{} was not built beside the test", library.display());
    library
}

/// Makes a sysfs in `dir` that shows `gpus` NVIDIA GPUs and, if there is one, the module of version [`VERSION`].
/// Returns `dir`, for `--sysfs-root`.
pub(crate) fn sysfs(dir: &Path, gpus: u32) -> PathBuf {
    let bus = dir.join("bus/pci/devices");
    fs::create_dir_all(&bus).unwrap();
    pci_device(&bus, "0000:00:1f.0", "0x8086", "0x060100");
    for gpu in 0..gpus {
        pci_device(&bus, &format!("0000:{:02x}:00.0", gpu + 1), "0x10de", "0x030200");
    }
    if gpus > 0 {
        load_module(dir, VERSION);
    }
    dir.to_owned()
}

/// Loads the nvidia module of this version into that sysfs.
pub(crate) fn load_module(sysfs: &Path, version: &str) {
    let module = sysfs.join("module/nvidia");
    fs::create_dir_all(&module).unwrap();
    fs::write(module.join("version"), format!("{version}\n")).unwrap();
}

/// Unloads it.
pub(crate) fn unload_module(sysfs: &Path) {
    fs::remove_dir_all(sysfs.join("module/nvidia")).unwrap();
}

fn pci_device(bus: &Path, address: &str, vendor: &str, class: &str) {
    let device = bus.join(address);
    fs::create_dir_all(&device).unwrap();
    fs::write(device.join("vendor"), format!("{vendor}\n")).unwrap();
    fs::write(device.join("class"), format!("{class}\n")).unwrap();
}
