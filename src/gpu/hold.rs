//! When nobody may probe: while NVIDIA's GPU Operator replaces the driver or changes the MIG layout. It writes both
//! into the Node's labels.

use std::collections::BTreeMap;

use crate::types::GpuReason;

/// Where the operator's upgrade controller is with this node.
const UPGRADE_STATE: &str = "nvidia.com/gpu-driver-upgrade-state";
/// Where its MIG manager is.
const MIG_STATE: &str = "nvidia.com/mig.config.state";
/// One label for each of the operator's own clients of the driver: whether it may run on this node.
const CLIENT_PREFIX: &str = "nvidia.com/gpu.deploy.";
/// What the driver's init container puts there, or appends to what somebody else put there.
const PAUSED_FOR_UPGRADE: &str = "paused-for-driver-upgrade";
/// What the MIG manager puts there.
const PAUSED_FOR_MIG: &str = "paused-for-mig-change";

/// The controller's states from the first step that touches the node to the proof of the new driver. Not among them:
/// `upgrade-required` (the node waits for its turn, perhaps for hours, with a driver that works), `uncordon-required`
/// (the new driver was found good), `upgrade-done`, and `upgrade-failed`, in which a node stays until somebody comes:
/// what works there a probe can tell.
const UPGRADING: [&str; 8] = [
    "cordon-required",
    "wait-for-jobs-required",
    "pod-deletion-required",
    "drain-required",
    "node-maintenance-required",
    "post-maintenance-required",
    "pod-restart-required",
    "validation-required",
];

/// Whether probing is held, and for what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Hold {
    /// Probe as usual.
    #[default]
    No,
    /// The driver is being replaced: a handle of ours would keep the old one from being unloaded.
    DriverUpgrade,
    /// The MIG layout is being changed, which needs GPUs that nobody uses.
    MigReconfiguration,
}

impl Hold {
    /// What the labels of the agent's own Node say.
    #[must_use]
    pub fn from_labels(labels: &BTreeMap<String, String>) -> Self {
        if is_upgrading(labels) {
            Self::DriverUpgrade
        } else if is_changing_mig(labels) {
            Self::MigReconfiguration
        } else {
            Self::No
        }
    }

    /// One word for it, as the file says it that holds the probe container.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::No => "No",
            Self::DriverUpgrade => "DriverUpgrade",
            Self::MigReconfiguration => "MigReconfiguration",
        }
    }

    /// Why the gate is closed; `None` when probing isn't held.
    #[must_use]
    pub fn reason(self) -> Option<GpuReason> {
        match self {
            Self::No => None,
            Self::DriverUpgrade => Some(GpuReason::DriverUpgrade),
            Self::MigReconfiguration => Some(GpuReason::MigReconfiguration),
        }
    }
}

/// Whether the Node's labels say that its driver is being replaced.
#[must_use]
pub fn is_upgrading(labels: &BTreeMap<String, String>) -> bool {
    labels.get(UPGRADE_STATE).is_some_and(|state| UPGRADING.contains(&state.as_str()))
        || a_client_is(labels, PAUSED_FOR_UPGRADE)
}

fn is_changing_mig(labels: &BTreeMap<String, String>) -> bool {
    labels.get(MIG_STATE).is_some_and(|state| ["pending", "rebooting"].contains(&state.as_str()))
        || a_client_is(labels, PAUSED_FOR_MIG)
}

fn a_client_is(labels: &BTreeMap<String, String>, paused: &str) -> bool {
    labels.iter().any(|(label, value)| label.starts_with(CLIENT_PREFIX) && value.contains(paused))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(labels: &[(&str, &str)]) -> Hold {
        let owned = |(label, value): &(&str, &str)| ((*label).to_owned(), (*value).to_owned());
        let labels = labels.iter().map(owned).collect();
        assert_eq!(is_upgrading(&labels), Hold::from_labels(&labels) == Hold::DriverUpgrade);
        Hold::from_labels(&labels)
    }

    #[test]
    fn an_upgrade_holds_from_its_first_step_to_the_proof_of_the_new_driver() {
        for state in UPGRADING {
            assert_eq!(hold(&[(UPGRADE_STATE, state)]), Hold::DriverUpgrade, "{state}");
        }
        for state in ["", "upgrade-required", "uncordon-required", "upgrade-done", "upgrade-failed"] {
            assert_eq!(hold(&[(UPGRADE_STATE, state)]), Hold::No, "{state}");
        }
        assert_eq!(hold(&[("example.com/gpu-driver-upgrade-state", "drain-required")]), Hold::No);
    }

    #[test]
    fn a_paused_client_of_the_driver_holds() {
        let plugin = "nvidia.com/gpu.deploy.device-plugin";
        let dcgm = ("nvidia.com/gpu.deploy.dcgm", "true");
        assert_eq!(hold(&[dcgm, (plugin, "true")]), Hold::No);
        assert_eq!(hold(&[dcgm, (plugin, "paused-for-driver-upgrade")]), Hold::DriverUpgrade);
        assert_eq!(hold(&[dcgm, (plugin, "mine_paused-for-driver-upgrade")]), Hold::DriverUpgrade);
        assert_eq!(hold(&[dcgm, (plugin, "paused-for-mig-change")]), Hold::MigReconfiguration);
        assert_eq!(hold(&[("example.com/note", "paused-for-driver-upgrade")]), Hold::No);
        let both = [(UPGRADE_STATE, "upgrade-done"), (plugin, "paused-for-driver-upgrade")];
        assert_eq!(hold(&both), Hold::DriverUpgrade, "a driver pod that starts again outside of an upgrade");
    }

    #[test]
    fn a_change_of_the_mig_layout_has_a_reason_of_its_own() {
        for state in ["pending", "rebooting"] {
            assert_eq!(hold(&[(MIG_STATE, state)]), Hold::MigReconfiguration, "{state}");
        }
        for state in ["success", "failed", ""] {
            assert_eq!(hold(&[(MIG_STATE, state)]), Hold::No, "{state}");
        }
        let both = [(MIG_STATE, "pending"), (UPGRADE_STATE, "drain-required")];
        assert_eq!(hold(&both).reason(), Some(GpuReason::DriverUpgrade));
        assert_eq!(hold(&[]).reason(), None);
    }
}
