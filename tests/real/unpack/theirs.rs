//! What containerd makes of layers: an image of them is imported, which unpacks it, and the directories of its snapshots
//! are looked up.

use std::cell::Cell;
use std::path::PathBuf;

use containerd_client::services::v1::snapshots::ViewSnapshotRequest;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use serde_json::json;
use stoker::types::Digest;

use super::super::parts::{Containerd, Scratch};
use super::tape::{Item, Tape};

pub(super) struct Theirs<'a> {
    containerd: &'a Containerd,
    scratch: Scratch,
    count: Cell<u32>,
}

impl<'a> Theirs<'a> {
    pub(super) fn new(containerd: &'a Containerd) -> Self {
        Self { containerd, scratch: Scratch::new("theirs"), count: Cell::new(0) }
    }

    /// The directories of `layers`, the lowest first, or what containerd said.
    pub(super) async fn unpack(&self, layers: &[Vec<u8>]) -> Result<Vec<PathBuf>, String> {
        let number = self.count.get();
        self.count.set(number + 1);
        let (archive, top) = archive(&format!("unpacked.test/case:{number}"), layers);
        let path = self.scratch.file(format!("{number}.tar"), archive);
        let import = ["images", "import", path.to_str().expect("a path")];
        let output = self.containerd.ctr(&import).await;
        std::fs::remove_file(&path).expect("the archive goes");
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let dirs = self.directories(&format!("view-{number}"), &top.to_string()).await;
        assert_eq!(dirs.len(), layers.len(), "{dirs:?}");
        Ok(dirs)
    }

    /// The directories of a snapshot and of those below it, the lowest first.
    async fn directories(&self, key: &str, top: &str) -> Vec<PathBuf> {
        let channel =
            containerd_client::connect(self.containerd.address()).await.expect("containerd answers");
        let view = ViewSnapshotRequest {
            snapshotter: "overlayfs".to_owned(),
            key: key.to_owned(),
            parent: top.to_owned(),
            // Else the next garbage collection takes it.
            labels: [("containerd.io/gc.root".to_owned(), "test".to_owned())].into(),
        };
        let mut request = tonic::Request::new(view);
        request.metadata_mut().insert("containerd-namespace", "k8s.io".parse().expect("a name"));
        let answer = SnapshotsClient::new(channel).view(request).await.expect("a view");
        let mount = answer.into_inner().mounts.pop().expect("a mount");
        if mount.r#type == "bind" {
            return vec![PathBuf::from(mount.source)];
        }
        let lower = mount.options.iter().find_map(|option| option.strip_prefix("lowerdir="));
        lower.expect("lowerdir=").split(':').rev().map(PathBuf::from).collect()
    }
}

/// An OCI image layout in an archive, and the top snapshot's name.
fn archive(name: &str, layers: &[Vec<u8>]) -> (Vec<u8>, Digest) {
    let digests: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let diffs: Vec<String> = digests.iter().map(ToString::to_string).collect();
    let config = json!({
        "architecture": arch, "os": "linux", "config": {},
        // Else two images of the same layers are one.
        "author": name,
        "rootfs": {"type": "layers", "diff_ids": diffs},
    })
    .to_string();
    let describe = |kind: &str, bytes: &[u8]| {
        json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": Digest::of(bytes).to_string(), "size": bytes.len(),
        })
    };
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": describe("config.v1+json", config.as_bytes()),
        "layers": layers.iter().map(|layer| describe("layer.v1.tar", layer)).collect::<Vec<_>>(),
    })
    .to_string();
    let mut pointer = describe("manifest.v1+json", manifest.as_bytes());
    pointer["annotations"] = json!({"io.containerd.image.name": name});
    let index = json!({"schemaVersion": 2, "manifests": [pointer]}).to_string();
    let blob = |bytes: &[u8]| {
        let digest = Digest::of(bytes).to_string();
        Item::file(format!("blobs/{}", digest.replace(':', "/")), bytes)
    };
    let mut tape = Tape::new()
        .item(Item::file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#))
        .item(Item::file("index.json", index))
        .item(blob(manifest.as_bytes()))
        .item(blob(config.as_bytes()));
    let mut seen = Vec::new();
    for (layer, digest) in layers.iter().zip(&digests) {
        if !seen.contains(digest) {
            seen.push(*digest);
            tape = tape.item(blob(layer));
        }
    }
    let top = digests
        .iter()
        .skip(1)
        .fold(digests[0], |chain, diff| Digest::of(format!("{chain} {diff}").as_bytes()));
    (tape.end(), top)
}
