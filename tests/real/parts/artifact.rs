//! Pushes artifacts of weights into a registry, as the tools that people use make them: ModelPack (CNCF model-spec) and
//! ORAS.

use reqwest::Body;
use serde_json::{Value, json};
use stoker::types::Digest;

use super::registry::Registry;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// One layer of an artifact that is to be pushed.
#[derive(Debug, Clone)]
pub(crate) struct ArtifactLayer {
    media_type: String,
    bytes: Vec<u8>,
    annotations: Value,
}

impl ArtifactLayer {
    /// A layer as it's said.
    pub(crate) fn new(media_type: &str, bytes: &[u8], annotations: Value) -> Self {
        Self { media_type: media_type.to_owned(), bytes: bytes.to_vec(), annotations }
    }

    /// A file of a ModelPack.
    pub(crate) fn raw(path: &str, bytes: &[u8]) -> Self {
        let kind = "application/vnd.cncf.model.weight.v1.raw";
        Self::new(kind, bytes, json!({"org.cncf.model.filepath": path}))
    }

    /// A file that `oras push` was given without a type.
    pub(crate) fn oras(path: &str, bytes: &[u8]) -> Self {
        let kind = "application/vnd.oci.image.layer.v1.tar";
        Self::new(kind, bytes, json!({"org.opencontainers.image.title": path}))
    }
}

impl Registry {
    /// Pushes a ModelPack of these layers and has `tag` of `repository` point at it.
    ///
    /// # Panics
    /// When the registry refuses.
    pub(crate) async fn push_model(&self, repository: &str, tag: &str, layers: &[ArtifactLayer]) -> Digest {
        let config = ("application/vnd.cncf.model.config.v1+json", &br#"{"modelfs":{"type":"layers"}}"#[..]);
        let kind = "application/vnd.cncf.model.manifest.v1+json";
        self.push_artifact(repository, tag, kind, config, layers).await
    }

    /// The same as `oras push` makes it.
    ///
    /// # Panics
    /// When the registry refuses.
    pub(crate) async fn push_files(&self, repository: &str, tag: &str, layers: &[ArtifactLayer]) -> Digest {
        let kind = "application/vnd.unknown.artifact.v1";
        self.push_artifact(repository, tag, kind, (EMPTY, &b"{}"[..]), layers).await
    }

    async fn push_artifact(
        &self,
        repository: &str,
        tag: &str,
        kind: &str,
        (config_type, config): (&str, &[u8]),
        layers: &[ArtifactLayer],
    ) -> Digest {
        self.put_bytes(repository, config).await;
        let mut named = Vec::new();
        for ArtifactLayer { media_type, bytes, annotations } in layers {
            self.put_bytes(repository, bytes).await;
            let mut layer = descriptor(media_type, bytes);
            layer["annotations"] = annotations.clone();
            named.push(layer);
        }
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind,
            "config": descriptor(config_type, config), "layers": named,
        });
        let bytes = manifest.to_string().into_bytes();
        self.put_manifest(repository, tag, MANIFEST, &bytes).await;
        Digest::of(&bytes)
    }

    /// Has `tag` point at an index of manifests that it has already.
    ///
    /// # Panics
    /// When the registry refuses.
    pub(crate) async fn push_index(&self, repository: &str, tag: &str, manifests: &[(Digest, u64)]) {
        let kind = "application/vnd.oci.image.index.v1+json";
        let manifest = |(digest, size): &(Digest, u64)| json!({"mediaType": MANIFEST, "digest": digest.to_string(), "size": size});
        let manifests: Vec<Value> = manifests.iter().map(manifest).collect();
        let index = json!({"schemaVersion": 2, "mediaType": kind, "manifests": manifests});
        self.put_manifest(repository, tag, kind, index.to_string().as_bytes()).await;
    }

    async fn put_bytes(&self, repository: &str, bytes: &[u8]) {
        self.put_blob(repository, Digest::of(bytes), bytes.len() as u64, Body::from(bytes.to_vec())).await;
    }
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(bytes).to_string(), "size": bytes.len()})
}
