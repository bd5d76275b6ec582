//! How a startup taint is taken off. Pure.

use serde_json::{Value, json};

/// The JSON patch that takes the taints with these keys off, whatever their effect; `None` if there are none. Taints
/// are one list, so a place in it may be another taint's by the time the patch arrives: each is tested to be what it
/// was, and the Node to be the same, and then all of the patch is done or nothing.
pub(super) fn removal(node: &Value, keys: &[String]) -> Option<Vec<Value>> {
    let taints = node.pointer("/spec/taints")?.as_array()?;
    let is_ours = |taint: &Value| {
        let key = taint.get("key").and_then(Value::as_str);
        key.is_some_and(|key| keys.iter().any(|own| own == key))
    };
    // From the end, so that no removal moves what a later one names.
    let ours = taints.iter().enumerate().rev().filter(|(_, taint)| is_ours(taint));
    let steps: Vec<Value> = ours
        .flat_map(|(index, taint)| {
            let path = format!("/spec/taints/{index}");
            [json!({"op": "test", "path": path, "value": taint}), json!({"op": "remove", "path": path})]
        })
        .collect();
    let uid = node.pointer("/metadata/uid")?;
    let same = json!({"op": "test", "path": "/metadata/uid", "value": uid});
    (!steps.is_empty()).then(|| std::iter::once(same).chain(steps).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ours_go_each_tested_at_its_place() {
        let ours = json!({"key": "stoker.dev/not-ready", "effect": "NoSchedule"});
        let also = json!({"key": "stoker.dev/not-ready", "effect": "NoExecute", "timeAdded": "2026-01-02T03:04:05Z"});
        let other = json!({"key": "other", "effect": "NoSchedule", "value": "stoker.dev/not-ready"});
        let node = json!({"metadata": {"uid": "u"}, "spec": {"taints": [ours, other, also]}});
        let patch = removal(&node, &["stoker.dev/not-ready".to_owned()]).unwrap();
        assert_eq!(
            patch,
            [
                json!({"op": "test", "path": "/metadata/uid", "value": "u"}),
                json!({"op": "test", "path": "/spec/taints/2", "value": also}),
                json!({"op": "remove", "path": "/spec/taints/2"}),
                json!({"op": "test", "path": "/spec/taints/0", "value": ours}),
                json!({"op": "remove", "path": "/spec/taints/0"}),
            ]
        );
        assert_eq!(removal(&node, &["else".to_owned()]), None);
        assert_eq!(removal(&json!({"metadata": {"uid": "u"}}), &["other".to_owned()]), None);
    }
}
