//! GPUs that aren't there: the stand-in NVML library, what it answers, and a sysfs that shows NVIDIA devices.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::agent::built;
use super::scratch::Scratch;

const DRIVER: &str = "570.124.06";

/// A node with GPUs, as far as a probe can tell.
#[derive(Debug)]
pub(crate) struct Gpus {
    scratch: Scratch,
    count: u32,
}

impl Gpus {
    /// `count` GPUs with a healthy driver.
    pub(crate) fn healthy(count: u32) -> Self {
        let gpus = Self::without_driver(count);
        gpus.load_driver();
        gpus
    }

    /// `count` GPUs on the bus whose driver isn't loaded; [`Self::load_driver`] loads it.
    pub(crate) fn without_driver(count: u32) -> Self {
        let scratch = Scratch::new("gpus");
        scratch.dir("sysfs/bus/pci/devices");
        for slot in 1..=count {
            let device = format!("sysfs/bus/pci/devices/0000:{slot:02x}:00.0");
            scratch.file(format!("{device}/vendor"), "0x10de\n");
            scratch.file(format!("{device}/class"), "0x030200\n");
        }
        let gpus = Self { scratch, count };
        // NVML_ERROR_DRIVER_NOT_LOADED
        gpus.answer(&json!({"init": 9}));
        gpus
    }

    /// Loads the driver: from now on it answers, with all GPUs.
    pub(crate) fn load_driver(&self) {
        self.scratch.file("sysfs/module/nvidia/version", format!("{DRIVER}\n"));
        self.answer(&json!({"init": 0, "devices": self.count, "driver_version": DRIVER}));
    }

    /// Has the library answer as this script says, from its next init on.
    pub(crate) fn answer(&self, script: &Value) {
        let new = self.scratch.file("new.json", script.to_string());
        std::fs::rename(new, self.script()).expect("a rename within one directory");
    }

    /// What the agent is started with to see these GPUs.
    pub(crate) fn args(&self) -> Vec<String> {
        let library = built("libnvidia_ml.so");
        let sysfs = self.scratch.join("sysfs");
        vec![
            "--nvml-path".to_owned(),
            library.display().to_string(),
            "--sysfs-root".to_owned(),
            sysfs.display().to_string(),
        ]
    }

    /// The variable that tells the library where its script is.
    pub(crate) fn env(&self) -> (&'static str, String) {
        ("STOKER_NVML_STANDIN", self.script().display().to_string())
    }

    fn script(&self) -> PathBuf {
        self.scratch.join("nvml.json")
    }
}
