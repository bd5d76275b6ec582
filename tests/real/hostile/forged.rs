//! Images whose every byte and every promise can be said.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::Body;
use serde_json::{Value, json};
use stoker::types::{Digest, ImageRef};

use crate::parts::Registry;

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A layer, and what is said of it.
#[derive(Debug, Clone)]
pub(crate) struct Forged {
    pub(crate) blob: Vec<u8>,
    pub(crate) size: u64,
    pub(crate) diff: Digest,
}

/// An image, and the documents that are put in place of the right ones.
#[derive(Debug, Clone, Default)]
pub(crate) struct Image {
    pub(crate) layers: Vec<Forged>,
    pub(crate) config: Option<Vec<u8>>,
    pub(crate) manifest: Option<Vec<u8>>,
}

impl Forged {
    /// A tar stream, honestly packed.
    pub(crate) fn packed(tar: &[u8]) -> Self {
        Self { diff: Digest::of(tar), ..Self::blob(gzip(tar)) }
    }

    /// These bytes for a layer.
    pub(crate) fn blob(blob: Vec<u8>) -> Self {
        Self { size: blob.len() as u64, diff: Digest::of(b"nobody knows"), blob }
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.blob)
    }
}

impl Image {
    pub(crate) fn of(layers: impl IntoIterator<Item = Forged>) -> Self {
        Self { layers: layers.into_iter().collect(), ..Self::default() }
    }

    /// One layer upon an innocent one, where whiteouts mean something.
    pub(crate) fn above(layer: Forged) -> Self {
        Self::of([Forged::packed(&super::innocent()), layer])
    }

    pub(crate) fn config(&self) -> Vec<u8> {
        self.config.clone().unwrap_or_else(|| {
            let diffs: Vec<String> = self.layers.iter().map(|layer| layer.diff.to_string()).collect();
            let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
            let rootfs = json!({"type": "layers", "diff_ids": diffs});
            json!({"architecture": architecture, "os": "linux", "config": {}, "rootfs": rootfs})
                .to_string()
                .into_bytes()
        })
    }

    pub(crate) fn manifest(&self) -> Vec<u8> {
        self.manifest.clone().unwrap_or_else(|| {
            let layer = |layer: &Forged| descriptor(GZIP, layer.digest(), layer.size);
            let layers = self.layers.iter().map(layer).collect();
            self.manifest_of(layers).to_string().into_bytes()
        })
    }

    /// Its manifest with other layers.
    pub(crate) fn manifest_of(&self, layers: Vec<Value>) -> Value {
        let config = self.config();
        let config = descriptor(CONFIG, Digest::of(&config), config.len() as u64);
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers})
    }

    /// Has the real registry serve it.
    pub(crate) async fn push(&self, registry: &Registry, repository: &str) -> ImageRef {
        let config = self.config();
        let blobs = self.layers.iter().map(|layer| &layer.blob).chain([&config]);
        for blob in blobs {
            let (size, body) = (blob.len() as u64, Body::from(blob.clone()));
            registry.put_blob(repository, Digest::of(blob), size, body).await;
        }
        registry.put_manifest(repository, "v1", MANIFEST, &self.manifest()).await;
        format!("{}/{repository}:v1", registry.host()).parse().unwrap()
    }
}

pub(crate) fn descriptor(media_type: &str, digest: Digest, size: u64) -> Value {
    json!({"mediaType": media_type, "digest": digest.to_string(), "size": size})
}

pub(crate) fn layer(digest: Digest, size: u64) -> Value {
    descriptor(GZIP, digest, size)
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}
