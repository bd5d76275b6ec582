//! A registry that says what it's told to, true or not.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use stoker::types::{Digest, ImageRef};
use tokio::task::JoinSet;

use super::forged::{Image, MANIFEST};

/// What is at one path: a type, bytes, and the digest that is said to be theirs.
type Said = (&'static str, Vec<u8>, Option<Digest>);

/// Serves every path whole, without ranges.
pub(super) struct Liar {
    pub(super) host: String,
    _serving: JoinSet<()>,
}

/// What a liar will say.
#[derive(Default)]
pub(super) struct Lies(HashMap<String, Said>);

impl Lies {
    /// The answer to whoever asks for a manifest or an index.
    pub(super) fn manifest(
        mut self,
        reference: impl std::fmt::Display,
        media_type: &'static str,
        bytes: &[u8],
        digest: Option<Digest>,
    ) -> Self {
        self.0.insert(format!("/v2/team/app/manifests/{reference}"), (media_type, bytes.to_vec(), digest));
        self
    }

    /// The answer to whoever asks for a blob.
    pub(super) fn blob(mut self, digest: Digest, bytes: &[u8]) -> Self {
        let path = format!("/v2/team/app/blobs/{digest}");
        self.0.insert(path, ("application/octet-stream", bytes.to_vec(), None));
        self
    }

    /// All of an image, under the tag.
    pub(super) fn image(self, image: &Image) -> Self {
        let (manifest, config) = (image.manifest(), image.config());
        let digest = Digest::of(&manifest);
        let lies = self
            .manifest("v1", MANIFEST, &manifest, Some(digest))
            .manifest(digest, MANIFEST, &manifest, Some(digest))
            .blob(Digest::of(&config), &config);
        image.layers.iter().fold(lies, |lies, layer| lies.blob(layer.digest(), &layer.blob))
    }

    pub(super) async fn serve(self) -> Liar {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let router = Router::new().fallback(say).with_state(Arc::new(self.0));
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Liar { host, _serving: serving }
    }
}

impl Liar {
    pub(super) fn tag(&self) -> ImageRef {
        format!("{}/team/app:v1", self.host).parse().unwrap()
    }
}

async fn say(State(said): State<Arc<HashMap<String, Said>>>, request: Request) -> Response {
    let Some((media_type, bytes, digest)) = said.get(request.uri().path()) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if request.method() == Method::HEAD && digest.is_none() {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let mut answer = bytes.clone().into_response();
    answer.headers_mut().insert(CONTENT_TYPE, media_type.parse().unwrap());
    if let Some(digest) = digest {
        answer.headers_mut().insert("docker-content-digest", digest.to_string().parse().unwrap());
    }
    answer
}
