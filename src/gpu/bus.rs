//! What the kernel says of the GPUs, without NVIDIA's library: the PCI bus and the module, in sysfs.

use std::io;
use std::path::{Path, PathBuf};

/// NVIDIA's PCI vendor id, as sysfs writes it.
const NVIDIA: &str = "0x10de";
/// PCI base class and subclass: VGA controller, 3D controller.
const GPU_CLASSES: [&str; 2] = ["0x0300", "0x0302"];
/// Drivers that hold a GPU for a guest; NVML on this host doesn't show it.
const PASS_THROUGH: [&str; 3] = ["vfio-pci", "nvidia-vgpu-vfio", "pci-stub"];

/// The nvidia kernel module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Module {
    Missing,
    /// With its version, if the kernel tells it.
    Loaded(Option<String>),
}

/// sysfs can't be read: then nothing at all can be said.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}; is --sysfs-root right?", path.display())]
pub(super) struct SysfsError {
    path: PathBuf,
    #[source]
    cause: io::Error,
}

/// How many NVIDIA GPUs are on the PCI bus for this host to use: those handed to guests, and the virtual functions
/// of a physical GPU, are left out.
pub(super) fn gpus(sysfs: &Path) -> Result<u32, SysfsError> {
    let failed = |path: &Path, cause| SysfsError { path: path.to_owned(), cause };
    std::fs::read_dir(sysfs).map_err(|cause| failed(sysfs, cause))?;
    let bus = sysfs.join("bus/pci/devices");
    let devices = match std::fs::read_dir(&bus) {
        Ok(devices) => devices,
        // A machine without PCI.
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(cause) => return Err(failed(&bus, cause)),
    };
    let mut gpus = 0;
    for device in devices {
        let device = device.map_err(|cause| failed(&bus, cause))?.path();
        if is_usable_gpu(&device).map_err(|cause| failed(&device, cause))? {
            gpus += 1;
        }
    }
    Ok(gpus)
}

fn is_usable_gpu(device: &Path) -> io::Result<bool> {
    if attribute(&device.join("vendor"))?.as_deref() != Some(NVIDIA) {
        return Ok(false);
    }
    let class = attribute(&device.join("class"))?.unwrap_or_default();
    if !GPU_CLASSES.iter().any(|gpu| class.starts_with(gpu)) {
        return Ok(false);
    }
    // Seen from the host that owns the physical function, a virtual one is a guest's.
    if device.join("physfn").symlink_metadata().is_ok() {
        return Ok(false);
    }
    let driver = std::fs::read_link(device.join("driver")).ok();
    let driver = driver.as_deref().and_then(Path::file_name);
    Ok(!PASS_THROUGH.iter().any(|guest| driver == Some((*guest).as_ref())))
}

/// Whether the nvidia module is loaded, and its version.
pub(super) fn module(sysfs: &Path) -> Module {
    let module = sysfs.join("module/nvidia");
    if !module.is_dir() {
        return Module::Missing;
    }
    Module::Loaded(attribute(&module.join("version")).ok().flatten())
}

/// One sysfs attribute, trimmed; `None` when the device went away meanwhile.
fn attribute(path: &Path) -> io::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(sysfs: &Path, address: &str, vendor: &str, class: &str) -> PathBuf {
        let device = sysfs.join("bus/pci/devices").join(address);
        std::fs::create_dir_all(&device).unwrap();
        std::fs::write(device.join("vendor"), format!("{vendor}\n")).unwrap();
        std::fs::write(device.join("class"), format!("{class}\n")).unwrap();
        device
    }

    #[test]
    fn only_nvidia_gpus_of_this_host_count() {
        let sysfs = tempfile::tempdir().unwrap();
        device(sysfs.path(), "0000:01:00.0", "0x10de", "0x030200");
        device(sysfs.path(), "0000:02:00.0", "0x10de", "0x030000");
        device(sysfs.path(), "0000:03:00.0", "0x10de", "0x068000"); // an NVSwitch
        device(sysfs.path(), "0000:04:00.0", "0x10de", "0x040300"); // a GPU's audio
        device(sysfs.path(), "0000:05:00.0", "0x1002", "0x030200"); // not NVIDIA's
        let passed = device(sysfs.path(), "0000:06:00.0", "0x10de", "0x030200");
        std::os::unix::fs::symlink("../../../drivers/vfio-pci", passed.join("driver")).unwrap();
        let virtual_function = device(sysfs.path(), "0000:07:00.0", "0x10de", "0x030200");
        std::os::unix::fs::symlink("../0000:01:00.0", virtual_function.join("physfn")).unwrap();
        let ours = device(sysfs.path(), "0000:08:00.0", "0x10de", "0x030200");
        std::os::unix::fs::symlink("../../../drivers/nvidia", ours.join("driver")).unwrap();
        assert_eq!(gpus(sysfs.path()).unwrap(), 3);
    }

    #[test]
    fn no_pci_is_no_gpu_but_no_sysfs_is_an_error() {
        let sysfs = tempfile::tempdir().unwrap();
        assert_eq!(gpus(sysfs.path()).unwrap(), 0);
        let error = gpus(&sysfs.path().join("mistyped")).unwrap_err();
        assert!(error.to_string().contains("mistyped; is --sysfs-root right?"), "{error}");
    }

    #[test]
    fn the_module_and_its_version() {
        let sysfs = tempfile::tempdir().unwrap();
        assert_eq!(module(sysfs.path()), Module::Missing);
        let nvidia = sysfs.path().join("module/nvidia");
        std::fs::create_dir_all(&nvidia).unwrap();
        assert_eq!(module(sysfs.path()), Module::Loaded(None));
        std::fs::write(nvidia.join("version"), "550.54.15\n").unwrap();
        assert_eq!(module(sysfs.path()), Module::Loaded(Some("550.54.15".into())));
    }
}
