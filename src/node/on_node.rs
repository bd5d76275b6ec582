use std::collections::{BTreeMap, BTreeSet};

use super::{BOOT_ID_ANNOTATION, STATUS_ANNOTATION};

/// What the Node carries of ours, and what of it matters to us, as last read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OnNode {
    /// Which Node this is: another one made under the same name has another uid.
    pub uid: String,
    /// Labels of ours, whoever wrote them.
    pub labels: BTreeMap<String, String>,
    /// Annotations of ours, whoever wrote them.
    pub annotations: BTreeMap<String, String>,
    /// Conditions of ours.
    pub conditions: Vec<StandingCondition>,
    /// The keys of all taints.
    pub taints: BTreeSet<String>,
}

/// A condition of ours, as it stands on the Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandingCondition {
    /// Its type.
    pub kind: String,
    /// True, False or Unknown.
    pub status: String,
    /// One CamelCase word.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// When its status last changed.
    pub since: Option<jiff::Timestamp>,
}

/// Whether a label is the agent's to write and to take off. Presence means warm, so nobody else's label may stand
/// under these prefixes; one that the agent must leave alone would be named here.
#[must_use]
pub fn is_our_label(key: &str) -> bool {
    matches!(key.split_once('/'), Some(("stoker.dev" | "image.stoker.dev" | "weights.stoker.dev", _)))
}

/// Whether an annotation is the agent's to write and to take off.
#[must_use]
pub fn is_our_annotation(key: &str) -> bool {
    key == STATUS_ANNOTATION || key == BOOT_ID_ANNOTATION
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn look_alikes_are_not_ours() {
        for ours in ["stoker.dev/gpu", "image.stoker.dev/a", "weights.stoker.dev/b"] {
            assert!(is_our_label(ours), "{ours}");
        }
        for other in ["stoker.dev", "xstoker.dev/a", "stoker.dev.example.com/a", "a.stoker.dev/b", "gpu", ""]
        {
            assert!(!is_our_label(other), "{other}");
        }
        assert!(is_our_annotation("stoker.dev/status") && !is_our_annotation("stoker.dev/other"));
    }
}
