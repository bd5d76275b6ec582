use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request as HttpRequest};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::core::Request;
use kube::{Api, Resource as _};
use serde_json::{Map, Value, json};

use super::super::{Cluster, ClusterError, Fault};
use super::taints::removal;
use crate::node::{Condition, Desired, OnNode, Strays};

/// Who the API server says has written what we write.
const MANAGER: &str = "stoker";

/// Somebody else may write taints at the same moment, but not for ever.
const TAINT_TRIES: u32 = 5;

/// The requests about the own Node, each one round trip (the taint's are two). Each that writes names the Node's uid:
/// one that was made anew under the same name is another node, and what is warm on the old one isn't there.
pub(super) struct Requests {
    cluster: Cluster,
    api: Api<Node>,
    name: String,
}

impl Requests {
    pub(super) fn new(cluster: Cluster, name: &str) -> Self {
        let api = Api::all(cluster.client().clone());
        Self { cluster, api, name: name.to_owned() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The Node as it is now, from no cache.
    pub(super) async fn read(&self) -> Result<Node, ClusterError> {
        self.cluster.ask(&format!("read the Node {}", self.name), self.api.get(&self.name)).await
    }

    /// Puts all of our labels and annotations there, and takes off what we put there before.
    pub(super) async fn apply(&self, desired: &Desired, uid: &str) -> Result<Node, ClusterError> {
        let mut metadata = self.metadata(uid);
        metadata.insert("annotations".to_owned(), json!(desired.annotations));
        if !desired.labels.is_empty() {
            metadata.insert("labels".to_owned(), json!(desired.labels));
        }
        let body = Patch::Apply(json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata}));
        let params = PatchParams::apply(MANAGER).force();
        let request = self.api.patch(&self.name, &params, &body);
        self.cluster.ask(&format!("label the Node {}", self.name), request).await
    }

    /// Takes keys of ours off that somebody else has put there.
    pub(super) async fn strike(&self, strays: &Strays, uid: &str) -> Result<Node, ClusterError> {
        let nulls = |keys: &[String]| keys.iter().map(|key| (key.clone(), Value::Null)).collect();
        let nulls = |keys: &[String]| Value::Object(nulls(keys));
        let mut metadata = self.metadata(uid);
        metadata.insert("labels".to_owned(), nulls(&strays.labels));
        metadata.insert("annotations".to_owned(), nulls(&strays.annotations));
        let body = Patch::Merge(json!({"metadata": metadata}));
        let params = manager();
        let request = self.api.patch(&self.name, &params, &body);
        self.cluster.ask(&format!("take stray keys off the Node {}", self.name), request).await
    }

    /// Writes our conditions. A status that is as it was keeps the time since when it has been.
    pub(super) async fn set_conditions(
        &self,
        conditions: &[Condition],
        on: &OnNode,
        now: jiff::Timestamp,
    ) -> Result<Node, ClusterError> {
        let conditions: Vec<Value> =
            conditions.iter().map(|condition| condition_body(condition, on, now)).collect();
        let body = Patch::Apply(json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": self.metadata(&on.uid),
            "status": {"conditions": conditions},
        }));
        let params = PatchParams::apply(MANAGER).force();
        let request = self.api.patch_status(&self.name, &params, &body);
        self.cluster.ask(&format!("set conditions of the Node {}", self.name), request).await
    }

    /// Takes the taints with these keys off; gives the Node as it is then.
    pub(super) async fn untaint(&self, keys: &[String], uid: &str) -> Result<Node, ClusterError> {
        let what = format!("take the startup taint off the Node {}", self.name);
        let mut tries = 0;
        loop {
            tries += 1;
            let node: Value = self.cluster.ask(&what, async { self.api_request(self.get()?).await }).await?;
            // Another Node: the caller sees that, and decides anew.
            let steps = if node.pointer("/metadata/uid").and_then(Value::as_str) == Some(uid) {
                removal(&node, keys)
            } else {
                None
            };
            let Some(steps) = steps else { return self.parsed(&what, node) };
            let patched =
                self.cluster.ask(&what, async { self.api_request(self.json_patch(&steps)?).await }).await;
            match patched {
                Ok(node) => return self.parsed(&what, node),
                // A test in the patch failed: somebody else has written meanwhile.
                Err(error) if error.fault() == Fault::Invalid && tries < TAINT_TRIES => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn metadata(&self, uid: &str) -> Map<String, Value> {
        [("name", self.name.as_str()), ("uid", uid)]
            .map(|(key, value)| (key.to_owned(), Value::from(value)))
            .into_iter()
            .collect()
    }

    fn get(&self) -> Result<HttpRequest<Vec<u8>>, kube::Error> {
        let place = Request::new(Node::url_path(&(), None));
        place.get(&self.name, &kube::api::GetParams::default()).map_err(kube::Error::BuildRequest)
    }

    /// kube's own type for such a patch would bring a crate for what is a few lines of JSON here.
    fn json_patch(&self, steps: &[Value]) -> Result<HttpRequest<Vec<u8>>, kube::Error> {
        let place = Request::new(Node::url_path(&(), None));
        let mut request =
            place.patch(&self.name, &manager(), &Patch::Merge(steps)).map_err(kube::Error::BuildRequest)?;
        let json_patch = HeaderValue::from_static("application/json-patch+json");
        request.headers_mut().insert(CONTENT_TYPE, json_patch);
        Ok(request)
    }

    async fn api_request(&self, request: HttpRequest<Vec<u8>>) -> Result<Value, kube::Error> {
        self.cluster.client().request(request).await
    }

    fn parsed(&self, what: &str, node: Value) -> Result<Node, ClusterError> {
        serde_json::from_value(node)
            .map_err(|error| ClusterError::of(self.cluster.server(), what, &kube::Error::SerdeError(error)))
    }
}

fn manager() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}

fn condition_body(condition: &Condition, on: &OnNode, now: jiff::Timestamp) -> Value {
    let status = condition.status_word();
    let since = on
        .conditions
        .iter()
        .find(|standing| standing.kind == condition.kind && standing.status == status)
        .and_then(|standing| standing.since);
    let time = |time: jiff::Timestamp| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({
        "type": condition.kind,
        "status": status,
        "reason": condition.reason,
        "message": condition.message,
        "lastHeartbeatTime": time(now),
        "lastTransitionTime": time(since.unwrap_or(now)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::StandingCondition;

    #[test]
    fn the_time_of_a_status_moves_only_with_it() {
        let mut condition = Condition {
            kind: "stoker.dev/Warm",
            status: true,
            reason: "AllWarm".to_owned(),
            message: "2 of 2".to_owned(),
        };
        let since = "2026-01-01T00:00:00Z";
        let on = OnNode {
            conditions: vec![StandingCondition {
                kind: "stoker.dev/Warm".to_owned(),
                status: "True".to_owned(),
                reason: "AllWarm".to_owned(),
                message: "1 of 1".to_owned(),
                since: Some(since.parse().unwrap()),
            }],
            ..OnNode::default()
        };
        let now = "2026-01-02T03:04:05.678Z".parse().unwrap();
        let body = condition_body(&condition, &on, now);
        assert_eq!(body["lastTransitionTime"], since);
        assert_eq!(body["lastHeartbeatTime"], "2026-01-02T03:04:05Z");
        condition.status = false;
        assert_eq!(condition_body(&condition, &on, now)["lastTransitionTime"], "2026-01-02T03:04:05Z");
    }
}
