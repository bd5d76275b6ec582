//! What a reading means. Pure.

use super::code::NvmlCode;
use super::fabric::{Fabric, FabricHealth};
use super::nvml::{DeviceReading, Reading};
use crate::types::{GpuPhase, GpuReason};

/// A phase, its reason, and the details.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) phase: GpuPhase,
    pub(super) reason: GpuReason,
    pub(super) message: String,
}

/// Judges what NVML said, given how many GPUs there should be and the version of the kernel module. The worst that
/// is true of any GPU decides: what only somebody's doing mends, then missing GPUs, then what time may mend.
pub(super) fn judge(reading: &Reading, expected: u32, module_version: Option<&str>) -> Verdict {
    if let Some(verdict) = versions_differ(reading, module_version) {
        return verdict;
    }
    let found = reading.devices.iter().flat_map(findings);
    let worst = found.min_by_key(|verdict| rank(verdict.phase));
    let missing = count_differs(reading, expected);
    if let Some(verdict) = worst.into_iter().chain(missing).min_by_key(|verdict| rank(verdict.phase)) {
        return verdict;
    }
    let driver = reading.driver_version.as_deref().unwrap_or("of unknown version");
    let remarks: Vec<String> = reading.devices.iter().flat_map(remarks).collect();
    let mut message = format!("driver {driver}, {}", gpus(answering(reading)));
    if !remarks.is_empty() {
        message = format!("{message}; {}", remarks.join("; "));
    }
    Verdict { phase: GpuPhase::Ready, reason: GpuReason::DriverReady, message }
}

/// How many GPUs gave a handle and have no fault.
pub(super) fn answering(reading: &Reading) -> u32 {
    let answering = reading.devices.iter().filter(|device| device.fault.is_none()).count();
    u32::try_from(answering).unwrap_or(u32::MAX)
}

fn rank(phase: GpuPhase) -> u8 {
    match phase {
        GpuPhase::Failed => 0,
        GpuPhase::Degraded => 1,
        GpuPhase::Waiting | GpuPhase::Unknown | GpuPhase::NotApplicable => 2,
        GpuPhase::Ready => 3,
    }
}

fn gpus(count: u32) -> String {
    if count == 1 { "1 GPU".to_owned() } else { format!("{count} GPUs") }
}

/// NVML can still work with a module of another version than it was built for; CUDA then doesn't.
fn versions_differ(reading: &Reading, module_version: Option<&str>) -> Option<Verdict> {
    let (driver, module) = (reading.driver_version.as_deref()?, module_version?);
    (driver != module).then(|| Verdict {
        phase: GpuPhase::Failed,
        reason: GpuReason::VersionMismatch,
        message: format!("the driver says {driver}, the loaded kernel module is {module}"),
    })
}

fn count_differs(reading: &Reading, expected: u32) -> Option<Verdict> {
    let answering = answering(reading);
    (answering < expected).then(|| Verdict {
        phase: GpuPhase::Degraded,
        reason: GpuReason::GpuCountMismatch,
        message: format!("{answering} of {} answer", gpus(expected)),
    })
}

/// What keeps a GPU from being usable.
fn findings(device: &DeviceReading) -> Vec<Verdict> {
    let mut found = Vec::new();
    let mut add = |phase, reason, what: String| {
        found.push(Verdict { phase, reason, message: format!("GPU {}: {what}", device.index) });
    };
    if let Some(code) = device.fault {
        let (phase, reason) = code.verdict();
        add(phase, reason, code.to_string());
    }
    if device.rows.failed {
        add(GpuPhase::Failed, GpuReason::RowRemapFailed, "no spare row is left to remap a bad one to".into());
    }
    match device.fabric {
        Fabric::NotSupported
        | Fabric::Completed { status: 0, health: FabricHealth::Fine | FabricHealth::Limited } => {}
        Fabric::NotStarted => {
            add(GpuPhase::Waiting, GpuReason::FabricInProgress, "its fabric isn't started".into());
        }
        Fabric::InProgress => {
            add(GpuPhase::Waiting, GpuReason::FabricInProgress, "its fabric is being set up".into());
        }
        Fabric::Other(state) => {
            let what = format!("its fabric is in state {state}, which this version doesn't know");
            add(GpuPhase::Waiting, GpuReason::FabricInProgress, what);
        }
        Fabric::Completed { status: 0, health: FabricHealth::Unhealthy } => {
            add(GpuPhase::Failed, GpuReason::FabricFailed, "its fabric is unhealthy".into());
        }
        Fabric::Completed { status, .. } => {
            let what = format!("its fabric ended with {}", NvmlCode(status));
            add(GpuPhase::Failed, GpuReason::FabricFailed, what);
        }
    }
    if device.mig_pending {
        add(GpuPhase::Waiting, GpuReason::MigPending, "a change of its MIG mode waits for a reset".into());
    }
    found
}

/// What is worth knowing of a GPU that is usable all the same.
fn remarks(device: &DeviceReading) -> Vec<String> {
    let mut remarks = Vec::new();
    if matches!(device.fabric, Fabric::Completed { health: FabricHealth::Limited, .. }) {
        remarks.push("its fabric has limited capacity".to_owned());
    }
    if device.rows.pending {
        remarks.push("a row remapping waits for a reset".to_owned());
    }
    if device.pages_pending {
        remarks.push("a page retirement waits for a reset".to_owned());
    }
    if device.persistence == Some(false) {
        remarks.push("persistence mode is off".to_owned());
    }
    remarks.extend(device.unanswered.iter().map(|(question, code)| format!("{question}: {code}")));
    remarks.into_iter().map(|remark| format!("GPU {}: {remark}", device.index)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fabric::RemappedRows;
    use super::*;

    fn healthy(index: u32) -> DeviceReading {
        DeviceReading {
            index,
            fault: None,
            fabric: Fabric::NotSupported,
            rows: RemappedRows::default(),
            pages_pending: false,
            mig_pending: false,
            persistence: Some(true),
            unanswered: Vec::new(),
        }
    }

    fn reading(count: u32) -> Reading {
        Reading { driver_version: Some("550.54.15".into()), devices: (0..count).map(healthy).collect() }
    }

    fn judged(change: impl FnOnce(&mut Reading)) -> (GpuPhase, GpuReason, String) {
        let mut reading = reading(2);
        change(&mut reading);
        let verdict = judge(&reading, 2, Some("550.54.15"));
        (verdict.phase, verdict.reason, verdict.message)
    }

    #[test]
    fn all_there() {
        let (phase, reason, message) = judged(|_| ());
        assert_eq!((phase, reason), (GpuPhase::Ready, GpuReason::DriverReady));
        assert_eq!(message, "driver 550.54.15, 2 GPUs");
    }

    #[test]
    fn oddities_are_told_and_do_not_close() {
        let (phase, _, message) = judged(|reading| {
            reading.devices[0].persistence = Some(false);
            reading.devices[1].rows.pending = true;
            reading.devices[1].pages_pending = true;
            reading.devices[1].unanswered.push(("MIG mode", NvmlCode(999)));
        });
        assert_eq!(phase, GpuPhase::Ready);
        assert_eq!(
            message,
            "driver 550.54.15, 2 GPUs; GPU 0: persistence mode is off; GPU 1: a row remapping waits for a reset; \
             GPU 1: a page retirement waits for a reset; GPU 1: MIG mode: NVML 999 (unknown error)"
        );
    }

    #[test]
    fn the_module_must_be_of_the_same_version() {
        let verdict = judge(&reading(2), 2, Some("535.161.08"));
        assert_eq!((verdict.phase, verdict.reason), (GpuPhase::Failed, GpuReason::VersionMismatch));
        assert_eq!(judge(&reading(2), 2, None).phase, GpuPhase::Ready);
    }

    #[test]
    fn missing_gpus_and_extra_ones() {
        let verdict = judge(&reading(7), 8, None);
        assert_eq!((verdict.phase, verdict.reason), (GpuPhase::Degraded, GpuReason::GpuCountMismatch));
        assert_eq!(verdict.message, "7 of 8 GPUs answer");
        assert_eq!(judge(&reading(9), 8, None).phase, GpuPhase::Ready);
    }

    #[test]
    fn the_worst_decides() {
        let (phase, reason, message) = judged(|reading| {
            reading.devices[0].mig_pending = true;
            reading.devices[1].fault = Some(NvmlCode(15));
        });
        assert_eq!((phase, reason), (GpuPhase::Failed, GpuReason::GpuLost));
        assert_eq!(message, "GPU 1: NVML 15 (GPU is lost)");

        // A GPU that is merely busy still leaves the count short: that is the worse of the two.
        let (phase, reason, _) = judged(|reading| reading.devices[1].fault = Some(NvmlCode(27)));
        assert_eq!((phase, reason), (GpuPhase::Degraded, GpuReason::GpuCountMismatch));
    }

    #[test]
    fn every_state_of_the_fabric() {
        let with = |fabric| {
            let (phase, reason, _) = judged(|reading| reading.devices[0].fabric = fabric);
            (phase, reason)
        };
        let completed = |status, health| with(Fabric::Completed { status, health });
        let waiting = (GpuPhase::Waiting, GpuReason::FabricInProgress);
        let failed = (GpuPhase::Failed, GpuReason::FabricFailed);
        let ready = (GpuPhase::Ready, GpuReason::DriverReady);
        for state in [Fabric::NotStarted, Fabric::InProgress, Fabric::Other(9)] {
            assert_eq!(with(state), waiting, "{state:?}");
        }
        assert_eq!(completed(0, FabricHealth::Fine), ready);
        assert_eq!(completed(0, FabricHealth::Limited), ready);
        assert_eq!(completed(0, FabricHealth::Unhealthy), failed);
        assert_eq!(completed(999, FabricHealth::Fine), failed);
    }

    #[test]
    fn rows_and_mig() {
        let (phase, reason, _) = judged(|reading| reading.devices[1].rows.failed = true);
        assert_eq!((phase, reason), (GpuPhase::Failed, GpuReason::RowRemapFailed));
        let (phase, reason, _) = judged(|reading| reading.devices[1].mig_pending = true);
        assert_eq!((phase, reason), (GpuPhase::Waiting, GpuReason::MigPending));
    }
}
