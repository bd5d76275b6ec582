//! A registry behind a slow link, with one image.

use std::collections::HashMap;

use crate::made::{Image, Made};
use crate::measure::paced_server::{Pace, PacedServer, Served};
use crate::store::Store;

/// Starts it.
pub(crate) fn start(made: &Made, image: &Image, pace: Pace) -> PacedServer {
    let mut served = HashMap::new();
    let store = Store::at(&made.directory);
    let base = format!("/v2/{}", image.repository());
    served.insert("/v2/".to_owned(), Served::bytes(""));
    for digest in image.layers.iter().map(|layer| layer.digest).chain([image.config]) {
        let blob = Served::file(store.blob(digest)).header("Content-Type", "application/octet-stream");
        served.insert(format!("{base}/blobs/{digest}"), blob);
    }
    for name in ["v1".to_owned(), image.manifest.to_string()] {
        let manifest = Served::file(store.blob(image.manifest))
            .header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
            .header("Docker-Content-Digest", image.manifest);
        served.insert(format!("{base}/manifests/{name}"), manifest);
    }
    PacedServer::start(served, pace)
}
