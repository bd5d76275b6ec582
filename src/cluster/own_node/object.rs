use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;

use crate::list::NodeFacts;
use crate::node::{OnNode, StandingCondition, is_our_annotation, is_our_label};

/// The version of an object. Of two that can be read as numbers the larger one is newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ObjectVersion(Option<u64>);

impl ObjectVersion {
    pub(super) fn of(node: &Node) -> Self {
        Self(node.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()))
    }

    pub(super) fn is_older_than(self, other: Self) -> bool {
        matches!((self.0, other.0), (Some(own), Some(other)) if own < other)
    }
}

/// What of a Node matters to us.
pub(super) fn on_node(node: &Node) -> OnNode {
    let ours = |all: &Option<BTreeMap<String, String>>, is_ours: fn(&str) -> bool| {
        let all = all.iter().flatten().filter(|(key, _)| is_ours(key));
        all.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    let conditions = node.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
    let conditions = conditions.filter(|condition| condition.type_.starts_with("stoker.dev/"));
    let taints = node.spec.iter().filter_map(|spec| spec.taints.as_ref()).flatten();
    OnNode {
        uid: node.metadata.uid.clone().unwrap_or_default(),
        labels: ours(&node.metadata.labels, is_our_label),
        annotations: ours(&node.metadata.annotations, is_our_annotation),
        conditions: conditions
            .map(|condition| StandingCondition {
                kind: condition.type_.clone(),
                status: condition.status.clone(),
                reason: condition.reason.clone().unwrap_or_default(),
                message: condition.message.clone().unwrap_or_default(),
                since: condition.last_transition_time.as_ref().map(|time| time.0),
            })
            .collect(),
        taints: taints.map(|taint| taint.key.clone()).collect(),
    }
}

/// The Node as the list's selectors see it.
pub(super) fn facts(name: &str, node: &Node) -> NodeFacts {
    NodeFacts { name: name.to_owned(), labels: node.metadata.labels.clone().unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(version: &str) -> Node {
        let node = json!({
            "metadata": {
                "uid": "u",
                "resourceVersion": version,
                "labels": {"stoker.dev/gpu": "ready", "xstoker.dev/a": "b", "zone": "z"},
                "annotations": {"stoker.dev/boot-id": "b", "stoker.dev/mine": "c", "other": "d"},
            },
            "spec": {"taints": [{"key": "k", "effect": "NoSchedule"}, {"key": "k", "effect": "NoExecute"}]},
            "status": {"conditions": [
                {"type": "Ready", "status": "True"},
                {"type": "stoker.dev/Warm", "status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z"},
            ]},
        });
        serde_json::from_value(node).unwrap()
    }

    #[test]
    fn only_what_is_ours_is_read() {
        let on = on_node(&node("1"));
        assert_eq!(on.labels.into_keys().collect::<Vec<_>>(), ["stoker.dev/gpu"]);
        assert_eq!(on.annotations.into_keys().collect::<Vec<_>>(), ["stoker.dev/boot-id"]);
        assert_eq!(on.taints.into_iter().collect::<Vec<_>>(), ["k"]);
        assert_eq!(on.conditions.len(), 1);
        assert_eq!(on.conditions[0].since, Some("2026-01-02T03:04:05Z".parse().unwrap()));
        assert_eq!(facts("n", &node("1")).labels.len(), 3);
    }

    #[test]
    fn versions_are_compared_as_numbers_where_they_are() {
        let of = |version| ObjectVersion::of(&node(version));
        assert!(of("9").is_older_than(of("10")) && !of("10").is_older_than(of("9")));
        assert!(!of("10").is_older_than(of("10")) && !of("x").is_older_than(of("10")));
    }
}
