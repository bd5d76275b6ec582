//! Pushes a built image into a registry (OCI distribution spec, "Pushing").

use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use reqwest::{Body, RequestBuilder, Response};
use stoker::types::Digest;

use super::http;
use super::image::{BuiltImage, BuiltLayer};
use super::registry::Registry;

/// An image that a registry has.
#[derive(Debug, Clone)]
pub(crate) struct PushedImage {
    /// The registry's host, `127.0.0.1:PORT`.
    pub(crate) host: String,
    /// The repository.
    pub(crate) repository: String,
    /// The tag.
    pub(crate) tag: String,
    /// What the tag points at: the index's digest, or the manifest's.
    pub(crate) digest: Digest,
    /// The manifest's digest.
    pub(crate) manifest: Digest,
    /// The config's digest.
    pub(crate) config: Digest,
    /// The layers, the lowest first.
    pub(crate) layers: Vec<BuiltLayer>,
    /// The key of the top snapshot.
    pub(crate) chain_id: Digest,
}

impl PushedImage {
    /// `HOST/REPOSITORY:TAG`.
    pub(crate) fn by_tag(&self) -> String {
        format!("{}/{}:{}", self.host, self.repository, self.tag)
    }

    /// `HOST/REPOSITORY@DIGEST`.
    pub(crate) fn by_digest(&self) -> String {
        format!("{}/{}@{}", self.host, self.repository, self.digest)
    }
}

impl Registry {
    /// Pushes `image` and has `tag` of `repository` point at it.
    ///
    /// # Panics
    /// When the registry refuses.
    pub(crate) async fn push(&self, image: &BuiltImage, repository: &str, tag: &str) -> PushedImage {
        for layer in &image.layers {
            let file = tokio::fs::File::open(&layer.path).await.expect("the layer's file is there");
            self.put_blob(repository, layer.digest, layer.size, Body::from(file)).await;
        }
        let config = image.config.clone();
        self.put_blob(repository, image.config_digest(), config.len() as u64, Body::from(config)).await;
        let manifest = image.manifest_digest().to_string();
        match &image.index {
            Some(index) => {
                self.put_manifest(repository, &manifest, image.kind.manifest(), &image.manifest).await;
                self.put_manifest(repository, tag, image.kind.index(), index).await;
            }
            None => self.put_manifest(repository, tag, image.kind.manifest(), &image.manifest).await,
        }
        PushedImage {
            host: self.host(),
            repository: repository.to_owned(),
            tag: tag.to_owned(),
            digest: image.digest(),
            manifest: image.manifest_digest(),
            config: image.config_digest(),
            layers: image.layers.clone(),
            chain_id: image.chain_id(),
        }
    }

    /// Gives it a blob; it refuses one of another digest.
    ///
    /// # Panics
    /// When the registry refuses.
    pub(crate) async fn put_blob(&self, repository: &str, digest: Digest, size: u64, body: Body) {
        let uploads = format!("{}/v2/{repository}/blobs/uploads/", self.url());
        let answer = self.send(http::client().post(uploads)).await;
        let location = answer.headers().get(LOCATION).expect("an upload has a location");
        let location = location.to_str().expect("a location is text");
        let next = if location.contains('?') { '&' } else { '?' };
        let put = http::client().put(format!("{location}{next}digest={digest}"));
        let put = put.header(CONTENT_LENGTH, size).header(CONTENT_TYPE, "application/octet-stream");
        self.send(put.body(body)).await;
    }

    /// Gives it a manifest or an index; it refuses what it can't read, and what names blobs that it doesn't have.
    ///
    /// # Panics
    /// When the registry refuses.
    pub(crate) async fn put_manifest(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        bytes: &[u8],
    ) {
        let url = format!("{}/v2/{repository}/manifests/{reference}", self.url());
        self.send(http::client().put(url).header(CONTENT_TYPE, media_type).body(bytes.to_vec())).await;
    }

    async fn send(&self, mut request: RequestBuilder) -> Response {
        if let Some((user, password)) = self.credentials() {
            request = request.basic_auth(user, Some(password));
        }
        let answer = request.send().await.expect("the registry answers");
        answer.error_for_status().expect("the registry takes it")
    }
}
