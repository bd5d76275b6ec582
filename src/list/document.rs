//! The document as its writer sees it. The JSON Schema that is shipped is generated from these types; the parser
//! reads the same fields one by one, so that one bad field is one problem.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The only `apiVersion`.
pub const API_VERSION: &str = "stoker.dev/v1";

/// The only `kind`.
pub const KIND: &str = "PrefetchList";

/// What should be on the nodes before pods land there: container images and model weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "PrefetchList")]
pub struct ListDocument {
    /// Always `stoker.dev/v1`.
    #[schemars(extend("const" = "stoker.dev/v1"))]
    pub api_version: String,
    /// Always `PrefetchList`.
    #[schemars(extend("const" = "PrefetchList"))]
    pub kind: String,
    /// Past this time nothing new is started; nothing is dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub valid_until: Option<String>,
    /// While true, nothing is started and nothing is dropped. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// The entries. Only an empty list (`entries: []`) empties the nodes; a missing one is an error.
    #[schemars(length(max = 4096))]
    pub entries: Vec<EntryDocument>,
}

/// One image, or one set of weights: exactly one of `image` and `weights` is given.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend(
    "oneOf" = [
        {
            "required": ["image"],
            "properties": {"weights": false, "index": false, "include": false, "exclude": false, "sha256": false}
        },
        {"required": ["weights"], "properties": {"image": false, "pin": false}}
    ]
))]
pub struct EntryDocument {
    /// Names the entry, its node label (`image.stoker.dev/ID` or `weights.stoker.dev/ID`) and its directory. Unique
    /// in the list.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"))]
    pub id: String,
    /// A container image as in a pod's spec: tag, digest or both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1))]
    pub image: Option<String>,
    /// Where model weights (or any files) are: `hf://org/name@revision`, `s3://bucket/prefix/`, `gs://bucket/prefix/`,
    /// `az://container/prefix/` or `az://container@account/prefix/`, `https://…`, `oci://registry/repository:tag` or
    /// `file:///…`. A trailing `/` is a prefix or a directory; without it, it's one object or file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1), regex(pattern = "^(https?|s3|gs|az|hf|oci|file)://"))]
    pub weights: Option<String>,
    /// Whether the https:// URL is a JSON index of path, size and sha256, and not the file itself. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<bool>,
    /// Which files are wanted; `*` crosses `/`. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub include: Option<Vec<String>>,
    /// Which files are not wanted, even if `include` names them. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub exclude: Option<Vec<String>>,
    /// SHA-256 digests by path, in hex: used where the source publishes none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<BTreeMap<String, String>>,
    /// Whether the node becomes ready only once this is warm. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub required: Option<bool>,
    /// What goes first among the equally urgent: more is sooner. Default: 500.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub priority: Option<u16>,
    /// Whether kubelet's image garbage collection must leave the image alone while it is listed. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin: Option<bool>,
    /// When it should be warm; sooner goes first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub needed_by: Option<String>,
    /// When it stops being listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub expires_at: Option<String>,
    /// Which nodes it is for. Default: every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "NodesDocument")]
    pub nodes: Option<NodesDocument>,
    /// The name of a Secret that is mounted into the agent; never a secret itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]*$"))]
    pub credentials: Option<String>,
}

/// Which nodes an entry is for: those that have all the labels, and of them the given share.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub struct NodesDocument {
    /// Labels that the node must have, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "BTreeMap<String, String>", extend("minProperties" = 1))]
    pub match_labels: Option<BTreeMap<String, String>>,
    /// Which share of the matching nodes takes it: more than 0, at most 1. Nodes choose themselves, by a hash of
    /// their name and the entry's id. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "f64", range(max = 1), extend("exclusiveMinimum" = 0))]
    pub fraction: Option<f64>,
}

/// The JSON Schema of the document, generated from the types above: `deploy/prefetchlist.schema.json`.
#[must_use]
pub fn json_schema() -> serde_json::Value {
    schemars::schema_for!(ListDocument).to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(schema: &serde_json::Value) -> Vec<&str> {
        schema["properties"].as_object().unwrap().keys().map(String::as_str).collect()
    }

    fn sorted(names: &[&'static str]) -> Vec<&'static str> {
        let mut names = names.to_vec();
        names.sort_unstable();
        names
    }

    #[test]
    fn the_parser_knows_exactly_the_fields_of_the_schema() {
        let schema = json_schema();
        assert_eq!(properties(&schema), sorted(super::super::parse::LIST_FIELDS));
        let defs = &schema["$defs"];
        assert_eq!(properties(&defs["EntryDocument"]), sorted(super::super::parse_entry::ENTRY_FIELDS));
        assert_eq!(properties(&defs["NodesDocument"]), sorted(super::super::parse_entry::NODES_FIELDS));
        assert_eq!(defs["NodesDocument"]["additionalProperties"], false);
    }

    #[test]
    fn the_shipped_schema_is_the_generated_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prefetchlist.schema.json");
        let shipped = std::fs::read(path).unwrap_or_default();
        let shipped: serde_json::Value = serde_json::from_slice(&shipped).unwrap_or_default();
        assert!(
            shipped == json_schema(),
            "deploy/prefetchlist.schema.json is not what the types say; write it again with\n  \
             cargo run -- check --schema > deploy/prefetchlist.schema.json"
        );
    }
}
