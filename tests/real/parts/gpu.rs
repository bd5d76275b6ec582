//! GPUs that aren't there: the stand-in NVML library, what it answers, and a sysfs that shows NVIDIA devices.

use std::path::{Path, PathBuf};

use super::scratch::Scratch;
use super::standin::{self, Standin};

/// A node with GPUs, as far as a probe can tell.
pub(crate) struct Gpus {
    standin: Standin,
    sysfs: PathBuf,
    count: u32,
    scratch: Scratch,
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
        let sysfs = standin::sysfs(&scratch.join("sysfs"), count);
        let standin = Standin::new(scratch.join("driver"));
        let gpus = Self { standin, sysfs, count, scratch };
        gpus.unload_driver();
        gpus
    }

    /// No NVIDIA device on the bus.
    pub(crate) fn none() -> Self {
        let scratch = Scratch::new("gpus");
        let sysfs = standin::sysfs(&scratch.join("sysfs"), 0);
        let standin = Standin::new(scratch.join("driver"));
        Self { standin, sysfs, count: 0, scratch }
    }

    /// Loads the driver: from now on it answers, with all GPUs.
    pub(crate) fn load_driver(&self) {
        standin::load_module(&self.sysfs, standin::VERSION);
        self.answer(&format!(r#"{{"devices": {}}}"#, self.count));
    }

    /// Unloads it.
    pub(crate) fn unload_driver(&self) {
        standin::unload_module(&self.sysfs);
        // NVML_ERROR_DRIVER_NOT_LOADED
        self.answer(r#"{"init": 9}"#);
    }

    /// A shell script that loads it as [`Self::load_driver`] does, for a pod that installs drivers. It needs `mkdir`,
    /// `mv`, and [`Self::directory`] at the same path.
    pub(crate) fn loading_script(&self) -> String {
        let (module, driver) = (self.sysfs.join("module/nvidia"), self.scratch.join("driver"));
        let (module, driver) = (module.display(), driver.display());
        format!(
            "set -eu\nmkdir -p {module}\necho {} > {module}/version\n\
             echo '{{\"devices\": {}}}' > {driver}/loaded.json\nmv {driver}/loaded.json {driver}/nvml-standin.json\n",
            standin::VERSION,
            self.count
        )
    }

    /// Has the library answer as this script says (`tests/nvml-standin/src/script.rs`), from its next init on.
    pub(crate) fn answer(&self, script: &str) {
        self.standin.answer(script);
    }

    /// Where all that a probe sees of them lies.
    pub(crate) fn directory(&self) -> &Path {
        self.scratch.path()
    }

    /// What a probe is started with to see these GPUs, as variables of its environment.
    pub(crate) fn envs(&self) -> [(&'static str, PathBuf); 2] {
        [("STOKER_NVML_PATH", self.standin.library()), ("STOKER_SYSFS_ROOT", self.sysfs.clone())]
    }

    /// What the agent is started with to see these GPUs.
    pub(crate) fn args(&self) -> [String; 4] {
        let library = self.standin.library().display().to_string();
        let sysfs = self.sysfs.display().to_string();
        ["--nvml-path".to_owned(), library, "--sysfs-root".to_owned(), sysfs]
    }
}
