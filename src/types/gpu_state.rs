use serde::{Deserialize, Serialize};

/// Where the GPUs of this node stand. Serialised into the status as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GpuPhase {
    /// Nothing is known yet.
    Unknown,
    /// There is no NVIDIA device on the PCI bus.
    NotApplicable,
    /// The driver isn't there yet, or not done yet; time alone may mend it.
    Waiting,
    /// The driver, all expected GPUs and the fabric are usable.
    Ready,
    /// The driver answers, but fewer GPUs than expected do.
    Degraded,
    /// It won't become ready without somebody's doing: a reboot, a reset, a matching library.
    Failed,
}

/// Why the GPUs stand where they do: one CamelCase word each, as in a node condition's `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is explained by `GpuReason::advice`")]
pub enum GpuReason {
    NotProbedYet,
    NoNvidiaDevice,
    LibraryNotFound,
    LibraryLoadError,
    DriverNotLoaded,
    VersionMismatch,
    NoPermission,
    DriverBusy,
    GpuCountMismatch,
    GpuLost,
    ResetRequired,
    GpuFault,
    DriverError,
    FabricInProgress,
    FabricFailed,
    MigPending,
    RowRemapFailed,
    ProbeTimedOut,
    ProbeCrashed,
    ProbeFailed,
    ProbeMissing,
    ProbeUnreadable,
    DriverUpgrade,
    MigReconfiguration,
    DriverReady,
}

impl GpuReason {
    /// What it means and what to do next, for people.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::NotProbedYet => "the driver was not asked yet",
            Self::NoNvidiaDevice => "no NVIDIA device on the PCI bus; use --no-gpu=proceed to pull anyway",
            Self::LibraryNotFound => {
                "libnvidia-ml.so.1 was not found; the driver is still being installed, or name it with --nvml-path"
            }
            Self::LibraryLoadError => "libnvidia-ml.so.1 does not load; its installation may be half done",
            Self::DriverNotLoaded => "the nvidia kernel module is not loaded yet",
            Self::VersionMismatch => {
                "library and kernel module are of different versions; restart the driver pod or reboot the node"
            }
            Self::NoPermission => "NVML refuses us; the probe must run privileged, with /dev/nvidiactl",
            Self::DriverBusy => "the driver says that it is not ready yet",
            Self::GpuCountMismatch => "fewer GPUs answer than are expected; look for Xid errors in dmesg",
            Self::GpuLost => "a GPU has fallen off the bus; the node needs a reboot",
            Self::ResetRequired => "a GPU must be reset before it can be used",
            Self::GpuFault => "a GPU reports a hardware fault; the node needs a reboot or service",
            Self::DriverError => {
                "NVML reports an error of its own; look for NVRM in dmesg, and check that the probe may open /dev/nvidiactl"
            }
            Self::FabricInProgress => "the fabric manager is still setting up NVLink",
            Self::FabricFailed => "the fabric manager reports a failure; see its log",
            Self::MigPending => "a MIG mode change is pending; it needs a GPU reset",
            Self::RowRemapFailed => "row remapping failed; the GPU needs service",
            Self::ProbeTimedOut => "the probe hung and was killed; the driver may be wedged",
            Self::ProbeCrashed => "the probe crashed inside the library",
            Self::ProbeFailed => "the probe could not be run",
            Self::ProbeMissing => {
                "no answer from the probe container; is it running, and is its --out the agent's --gpu-probe-file?"
            }
            Self::ProbeUnreadable => {
                "the probe's file can't be used; run both containers from one image, and let only the probe write it"
            }
            Self::DriverUpgrade => {
                "the driver is being upgraded; the gate opens by a new probe once that is over"
            }
            Self::MigReconfiguration => {
                "the MIG layout is being changed; the gate opens by a new probe once that is over"
            }
            Self::DriverReady => "the driver and all expected GPUs answer",
        }
    }
}

/// The gate's view of the GPUs at one moment; what the gpu task publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuState {
    /// Where they stand.
    pub phase: GpuPhase,
    /// Why.
    pub reason: GpuReason,
    /// Details for people: versions, counts, NVML's own words.
    pub message: String,
    /// How many GPUs answered the last probe.
    pub devices: u32,
    /// How many should.
    pub expected: u32,
    /// The driver's version, when it answered.
    pub driver_version: Option<String>,
    /// Whether the gate is open now: ready at the last proof, and not yet closed by three failed probes
    /// in a row or by hard evidence.
    pub open: bool,
}

impl GpuState {
    /// Before the first probe.
    #[must_use]
    pub fn unknown() -> Self {
        Self {
            phase: GpuPhase::Unknown,
            reason: GpuReason::NotProbedYet,
            message: String::new(),
            devices: 0,
            expected: 0,
            driver_version: None,
            open: false,
        }
    }
}
