use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use crate::node::is_our_label;

/// Whose every annotation, condition and taint on a Node is ours.
const DOMAIN: &str = "stoker.dev";

/// What Stoker has written to a Node, and what of its taints may go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// The labels' keys.
    pub labels: Vec<String>,
    /// The annotations' keys.
    pub annotations: Vec<String>,
    /// The conditions' types.
    pub conditions: Vec<String>,
    /// The keys of the taints that were to be taken off.
    pub taints: Vec<String>,
}

impl Leftovers {
    /// What of ours is on `node`, with the taints in `taints` alone.
    pub(super) fn on(node: &Node, taints: &[String]) -> Self {
        let labels = node.metadata.labels.iter().flat_map(|labels| labels.keys());
        let annotations = node.metadata.annotations.iter().flat_map(|annotations| annotations.keys());
        Self {
            labels: labels.filter(|key| is_our_label(key)).cloned().collect(),
            annotations: annotations.filter(|key| is_of(key, DOMAIN)).cloned().collect(),
            conditions: condition_types(node).filter(|kind| is_of(kind, DOMAIN)).map(str::to_owned).collect(),
            taints: taint_keys(node)
                .filter(|key| taints.iter().any(|taint| taint == key))
                .map(str::to_owned)
                .collect(),
        }
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.is_empty_but_conditions() && self.conditions.is_empty()
    }

    fn is_empty_but_conditions(&self) -> bool {
        self.labels.is_empty() && self.annotations.is_empty() && self.taints.is_empty()
    }

    /// The JSON patch of the Node that takes off all but the conditions; `None` if there is nothing to take off. It
    /// holds for the very node that was looked at, and for its taints as they were: these are a list without keys.
    pub(super) fn patch(&self, node: &Node) -> Option<Value> {
        if self.is_empty_but_conditions() {
            return None;
        }
        let mut steps = vec![same_node(node)];
        let remove = |kind: &str, key: &String| json!({"op": "remove", "path": format!("/metadata/{kind}/{}", escaped(key))});
        steps.extend(self.labels.iter().map(|key| remove("labels", key)));
        steps.extend(self.annotations.iter().map(|key| remove("annotations", key)));
        let at = positions(taint_keys(node), &self.taints);
        steps.extend(remove_at("/spec/taints", "key", at));
        Some(Value::Array(steps))
    }

    /// The JSON patch of the Node's status that takes off the conditions.
    pub(super) fn status_patch(&self, node: &Node) -> Option<Value> {
        if self.conditions.is_empty() {
            return None;
        }
        let mut steps = vec![same_node(node)];
        let at = positions(condition_types(node), &self.conditions);
        steps.extend(remove_at("/status/conditions", "type", at));
        Some(Value::Array(steps))
    }
}

/// Taints of ours that are still there after those in `taken` are gone: they keep pods away, and nobody is left to take
/// them off.
pub(super) fn remaining_taints(node: &Node, taken: &[String]) -> Vec<String> {
    let ours = taint_keys(node).filter(|key| is_of(key, DOMAIN) && !taken.iter().any(|taint| taint == key));
    ours.map(str::to_owned).collect()
}

fn is_of(key: &str, domain: &str) -> bool {
    key.split_once('/').is_some_and(|(prefix, _)| prefix == domain)
}

fn taint_keys(node: &Node) -> impl Iterator<Item = &str> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.map(|taint| taint.key.as_str())
}

fn condition_types(node: &Node) -> impl Iterator<Item = &str> {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.map(|condition| condition.type_.as_str())
}

fn positions<'a>(keys: impl Iterator<Item = &'a str>, wanted: &[String]) -> Vec<(usize, &'a str)> {
    keys.enumerate().filter(|(_, key)| wanted.iter().any(|wanted| wanted == key)).collect()
}

fn same_node(node: &Node) -> Value {
    json!({"op": "test", "path": "/metadata/uid", "value": node.metadata.uid})
}

/// From the last to the first, so that no position moves before its turn.
fn remove_at(list: &str, name: &str, at: Vec<(usize, &str)>) -> Vec<Value> {
    let steps = at.into_iter().rev().flat_map(|(index, key)| {
        let path = format!("{list}/{index}");
        [
            json!({"op": "test", "path": format!("{path}/{name}"), "value": key}),
            json!({"op": "remove", "path": path}),
        ]
    });
    steps.collect()
}

/// A key as a part of a JSON pointer (RFC 6901).
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Node {
        let text = r#"{
            "metadata": {
                "name": "a",
                "uid": "u",
                "labels": {
                    "stoker.dev/gpu": "ready", "image.stoker.dev/vllm": "x", "weights.stoker.dev/l": "y",
                    "stoker.dev.example.com/z": "", "notstoker.dev/z": "", "other.stoker.dev/z": "", "stoker.dev": ""
                },
                "annotations": {"stoker.dev/status": "{}", "image.stoker.dev/no": "", "z": ""}
            },
            "spec": {"taints": [
                {"key": "stoker.dev/not-ready", "effect": "NoSchedule"},
                {"key": "other", "effect": "NoSchedule"},
                {"key": "stoker.dev/not-ready", "effect": "NoExecute"}
            ]},
            "status": {"conditions": [
                {"type": "Ready", "status": "True"},
                {"type": "stoker.dev/Warm", "status": "True"},
                {"type": "stoker.dev/GPUReady", "status": "True"}
            ]}
        }"#;
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn only_what_is_ours_is_found_and_taints_only_where_named() {
        let found = Leftovers::on(&node(), &[]);
        assert_eq!(found.labels, ["image.stoker.dev/vllm", "stoker.dev/gpu", "weights.stoker.dev/l"]);
        assert_eq!(found.annotations, ["stoker.dev/status"]);
        assert_eq!(found.conditions, ["stoker.dev/Warm", "stoker.dev/GPUReady"]);
        assert_eq!(found.taints, <[&str; 0]>::default());
        assert_eq!(remaining_taints(&node(), &[]), ["stoker.dev/not-ready", "stoker.dev/not-ready"]);
        let taints = ["stoker.dev/not-ready".to_owned(), "other".to_owned()];
        assert_eq!(Leftovers::on(&node(), &taints).taints.len(), 3);
        assert_eq!(remaining_taints(&node(), &taints), <[&str; 0]>::default());
    }

    #[test]
    fn a_patch_holds_for_the_node_that_was_looked_at() {
        let node = node();
        let found = Leftovers::on(&node, &["stoker.dev/not-ready".to_owned()]);
        let steps = found.patch(&node).unwrap();
        let expected = json!([
            {"op": "test", "path": "/metadata/uid", "value": "u"},
            {"op": "remove", "path": "/metadata/labels/image.stoker.dev~1vllm"},
            {"op": "remove", "path": "/metadata/labels/stoker.dev~1gpu"},
            {"op": "remove", "path": "/metadata/labels/weights.stoker.dev~1l"},
            {"op": "remove", "path": "/metadata/annotations/stoker.dev~1status"},
            {"op": "test", "path": "/spec/taints/2/key", "value": "stoker.dev/not-ready"},
            {"op": "remove", "path": "/spec/taints/2"},
            {"op": "test", "path": "/spec/taints/0/key", "value": "stoker.dev/not-ready"},
            {"op": "remove", "path": "/spec/taints/0"},
        ]);
        assert_eq!(steps, expected);
        let expected = json!([
            {"op": "test", "path": "/metadata/uid", "value": "u"},
            {"op": "test", "path": "/status/conditions/2/type", "value": "stoker.dev/GPUReady"},
            {"op": "remove", "path": "/status/conditions/2"},
            {"op": "test", "path": "/status/conditions/1/type", "value": "stoker.dev/Warm"},
            {"op": "remove", "path": "/status/conditions/1"},
        ]);
        assert_eq!(found.status_patch(&node).unwrap(), expected);
    }

    #[test]
    fn a_clean_node_is_left_alone() {
        let found = Leftovers::on(&Node::default(), &["x".to_owned()]);
        assert!(found.is_empty());
        assert_eq!((found.patch(&Node::default()), found.status_patch(&Node::default())), (None, None));
    }
}
