use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use tokio::sync::OnceCell;
use tokio::time::{Duration, Instant};

use super::RegistryHost;
use super::blob::Blob;
use super::endpoint::{Answer, Endpoint};
use super::registries::Shared;
use super::wire::Words;
use crate::source::patience::patiently;
use crate::source::{RangeSource, SourceError, answer, client, dns};
use crate::types::{Descriptor, Digest, ErrorKind, ImageRef, RegistryAuth};

/// Bytes of a manifest or an index at most (distribution spec, "Pushing Manifests").
const LONGEST_MANIFEST: usize = 4 << 20;

/// A document whose bytes came wrong from every host is asked for this often in all.
const TRIES: u32 = 3;

/// For how long a host that couldn't be reached is asked after all others.
const BENCH: Duration = Duration::from_secs(30);

/// Everything that a tag may point at.
const MANIFESTS: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// One image's repository at the hosts that may serve it. Small requests are tried again a few times; ranges of
/// blobs aren't.
#[derive(Clone)]
pub struct Repository(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    image: ImageRef,
    hosts: Vec<Host>,
    auths: Vec<RegistryAuth>,
}

struct Host {
    config: RegistryHost,
    endpoint: OnceCell<Arc<Endpoint>>,
    benched_until: Mutex<Option<Instant>>,
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Repository").field(&self.0.image.name()).finish()
    }
}

/// What a host is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    Resolve,
    Pull,
}

/// Of which hosts a blob is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hosts {
    /// Of all that may serve it, in their order.
    All,
    /// Of the last of those: the registry itself, where it's one of them.
    Last,
}

impl Repository {
    pub(super) fn new(
        shared: Arc<Shared>,
        image: ImageRef,
        hosts: Vec<RegistryHost>,
        auths: Vec<RegistryAuth>,
    ) -> Self {
        let host = |config| Host { config, endpoint: OnceCell::new(), benched_until: Mutex::default() };
        let hosts = hosts.into_iter().map(host).collect();
        Self(Arc::new(Inner { shared, image, hosts, auths }))
    }

    /// What the reference points at now, by one HEAD where the registry answers it well. Of a reference with a
    /// digest, only type and size are asked for.
    ///
    /// # Errors
    /// When no host that may say so answers, or none knows the reference.
    pub async fn resolve(&self) -> Result<Descriptor, SourceError> {
        let digest = self.0.image.digest();
        let want = if digest.is_some() { Want::Pull } else { Want::Resolve };
        let reference = match &digest {
            Some(digest) => digest.to_string(),
            None => self.0.image.tag().unwrap_or("latest").to_owned(),
        };
        patiently(|| {
            self.walk(self.order(want, None), Vec::new(), |_, endpoint| {
                resolve_at(endpoint, reference.clone(), digest)
            })
        })
        .await
    }

    /// A manifest or an index, checked against its digest and size.
    ///
    /// # Errors
    /// When it's longer than 4 MiB, or no host serves it whole.
    pub async fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>, SourceError> {
        self.document("manifests", descriptor, LONGEST_MANIFEST).await
    }

    /// A small blob (the config), checked against its digest and size.
    ///
    /// # Errors
    /// When it's longer than `limit` bytes, or no host serves it whole.
    pub async fn small_blob(&self, descriptor: &Descriptor, limit: usize) -> Result<Vec<u8>, SourceError> {
        self.document("blobs", descriptor, limit).await
    }

    /// A layer, by ranges. Its digest is for the reader to check.
    #[must_use]
    pub fn blob(&self, descriptor: &Descriptor) -> Arc<dyn RangeSource> {
        Arc::new(Blob::new(self.clone(), (descriptor.digest, descriptor.size), Hosts::All))
    }

    /// The same from the registry itself, whatever its mirrors say: for a layer that came with wrong bytes.
    #[must_use]
    pub fn blob_past_mirrors(&self, descriptor: &Descriptor) -> Arc<dyn RangeSource> {
        Arc::new(Blob::new(self.clone(), (descriptor.digest, descriptor.size), Hosts::Last))
    }

    /// Whether blobs may come from more than one host.
    #[must_use]
    pub fn has_mirrors(&self) -> bool {
        self.order(Want::Pull, None).len() > 1
    }

    async fn document(
        &self,
        kind: &'static str,
        descriptor: &Descriptor,
        limit: usize,
    ) -> Result<Vec<u8>, SourceError> {
        if descriptor.size > limit as u64 {
            return Err(SourceError::Invalid {
                what: format!("{}@{}", self.0.image.name(), descriptor.digest),
                problem: format!("it has {} bytes, and {limit} are allowed", descriptor.size),
            });
        }
        let mut tries = 1;
        loop {
            let ask = || {
                self.walk(self.order(Want::Pull, None), Vec::new(), |_, endpoint| {
                    document_at(endpoint, kind, descriptor)
                })
            };
            match patiently(ask).await {
                Err(error) if error.kind() == ErrorKind::Corrupt && tries < TRIES => {
                    tracing::warn!(
                        error = crate::rt::chain(&error),
                        "a document came wrong; it's fetched anew"
                    );
                    tries += 1;
                }
                done => return done,
            }
        }
    }

    /// `host:port` of the first of these hosts that serves blobs, or the image's registry where none does.
    pub(super) fn origin(&self, hosts: Hosts) -> String {
        let mut able = self.0.hosts.iter().filter(|host| host.config.can_pull);
        let first = if hosts == Hosts::Last { able.next_back() } else { able.next() };
        first.map_or_else(|| self.0.image.domain().to_owned(), |host| client::origin(&host.config.base))
    }

    pub(super) fn stall(&self) -> Duration {
        self.0.shared.config.stall
    }

    /// Which hosts to ask, by their places in the list: those that couldn't be reached lately last, and not `but`
    /// where there is another.
    pub(super) fn order(&self, want: Want, but: Option<usize>) -> Vec<usize> {
        let may = |host: &Host| match want {
            Want::Resolve => host.config.can_resolve,
            Want::Pull => host.config.can_pull,
        };
        let able = self.0.hosts.iter().enumerate().filter(|(_, host)| may(host));
        let mut order: Vec<usize> = able.map(|(at, _)| at).collect();
        if order.len() > 1 {
            order.retain(|at| Some(*at) != but);
        }
        order.sort_by_key(|at| self.0.hosts[*at].is_benched());
        order
    }

    /// Asks one host after the other until one answers well. The error is that of the last in the list, the registry
    /// itself; what its mirrors said stands beside it. `failed`: those that were asked already.
    pub(super) async fn walk<T, F>(
        &self,
        order: Vec<usize>,
        mut failed: Vec<(usize, SourceError)>,
        ask: impl Fn(usize, Arc<Endpoint>) -> F,
    ) -> Result<T, SourceError>
    where
        F: Future<Output = Result<T, SourceError>>,
    {
        for at in order {
            let answer = match self.endpoint(at).await {
                Ok(endpoint) => ask(at, endpoint).await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    self.0.hosts[at].note(&error);
                    failed.push((at, error));
                }
            }
        }
        Err(told(failed).unwrap_or_else(|| SourceError::Invalid {
            what: self.0.image.name(),
            problem: "no host in its hosts.toml may be asked; give one the capabilities pull and resolve"
                .to_owned(),
        }))
    }

    pub(super) async fn endpoint(&self, at: usize) -> Result<Arc<Endpoint>, SourceError> {
        let Inner { shared, image, auths, hosts } = &*self.0;
        let host = &hosts[at];
        let make = || async {
            if dns::names_link_local(&host.config.base) {
                return Err(SourceError::Invalid {
                    what: client::origin(&host.config.base),
                    problem: "a link-local address is never asked".to_owned(),
                });
            }
            shared.endpoint(&host.config, image.repository(), auths).await.map(Arc::new)
        };
        host.endpoint.get_or_try_init(make).await.cloned()
    }

    /// Notes that a host failed outside of [`Self::walk`].
    pub(super) fn note(&self, at: usize, error: &SourceError) {
        self.0.hosts[at].note(error);
    }

    /// Whether another host could serve what this one didn't.
    pub(super) fn has_other(&self, at: usize) -> bool {
        self.0.hosts.iter().enumerate().any(|(other, host)| other != at && host.config.can_pull)
    }
}

impl Host {
    fn is_benched(&self) -> bool {
        let until = *self.benched_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    fn note(&self, error: &SourceError) {
        tracing::debug!(
            host = client::origin(&self.config.base),
            error = crate::rt::chain(error),
            "no answer"
        );
        if matches!(error, SourceError::Connect { .. } | SourceError::Stalled { .. }) {
            let until = Some(Instant::now() + BENCH);
            *self.benched_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
        }
    }
}

/// One error out of those of several hosts.
fn told(mut failed: Vec<(usize, SourceError)>) -> Option<SourceError> {
    failed.sort_by_key(|(at, _)| *at);
    let (_, last) = failed.pop()?;
    if failed.is_empty() {
        return Some(last);
    }
    let mirrors: Vec<String> = failed.iter().map(|(_, error)| error.to_string()).collect();
    Some(SourceError::Mirrors { mirrors: mirrors.join("; "), cause: Box::new(last) })
}

async fn resolve_at(
    endpoint: Arc<Endpoint>,
    reference: String,
    pinned: Option<Digest>,
) -> Result<Descriptor, SourceError> {
    let accept = accept(&MANIFESTS.join(", "));
    let words = Words { method: Method::HEAD, headers: accept.clone(), form: None };
    let answer = endpoint.ask(endpoint.place("manifests", &reference), &words).await?;
    let status = answer.response.status();
    if status == StatusCode::OK {
        let headers = answer.response.headers();
        let digest = told_digest(&answer, pinned)?;
        let known = media_type(headers).filter(|kind| MANIFESTS.contains(&kind.as_str()));
        if let Some(((digest, media_type), size)) = digest.zip(known).zip(answer::content_length(headers)) {
            return Ok(Descriptor { media_type, digest, size });
        }
    } else if !matches!(status.as_u16(), 405 | 501) {
        // An answer to HEAD has no body that says more.
        return Err(endpoint.refusal(answer).await);
    }
    let words = Words { headers: accept, ..Words::get() };
    let answer = endpoint.ask(endpoint.place("manifests", &reference), &words).await?;
    if answer.response.status() != StatusCode::OK {
        return Err(endpoint.refusal(answer).await);
    }
    let told = told_digest(&answer, pinned)?;
    let Answer { response, stop } = answer;
    let by_header = media_type(response.headers());
    let document = endpoint.wire.read(&stop, response, LONGEST_MANIFEST).await?;
    let digest = Digest::of(&document);
    if told.is_some_and(|told| told != digest) {
        let problem = "its bytes are not those of the digest that it tells".to_owned();
        return Err(SourceError::Corrupt { what: stop.what, problem });
    }
    let known = by_header.clone().filter(|kind| MANIFESTS.contains(&kind.as_str()));
    let Some(media_type) = known.or_else(|| own_type(&document)).or(by_header) else {
        return Err(stop.protocol("it doesn't say of which type its answer is"));
    };
    Ok(Descriptor { media_type, digest, size: document.len() as u64 })
}

/// The digest in the answer's header; an error where it can't be used, or isn't the one that was asked for.
fn told_digest(answer: &Answer, pinned: Option<Digest>) -> Result<Option<Digest>, SourceError> {
    let Some(text) = answer.response.headers().get("docker-content-digest") else { return Ok(pinned) };
    let text = text.to_str().unwrap_or_default();
    let digest: Option<Digest> = text.starts_with("sha256:").then(|| text.parse().ok()).flatten();
    match (digest, pinned) {
        (Some(digest), Some(pinned)) if digest != pinned => {
            Err(answer.stop.protocol(format!("it answers with {digest}, which was not asked for")))
        }
        (Some(digest), _) => Ok(Some(digest)),
        (None, _) => Err(answer.stop.invalid("it names the image by another digest than SHA-256")),
    }
}

/// A manifest's own word on its type, where the server's header says something else (OCI image spec, `mediaType`).
fn own_type(document: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Typed {
        #[serde(rename = "mediaType")]
        media_type: String,
    }
    let Typed { media_type } = serde_json::from_slice(document).ok()?;
    MANIFESTS.contains(&media_type.as_str()).then_some(media_type)
}

async fn document_at(
    endpoint: Arc<Endpoint>,
    kind: &'static str,
    descriptor: &Descriptor,
) -> Result<Vec<u8>, SourceError> {
    let place = endpoint.place(kind, &descriptor.digest.to_string());
    let words = Words { headers: accept(&format!("{}, */*", descriptor.media_type)), ..Words::get() };
    let answer = endpoint.ask(place, &words).await?;
    if answer.response.status() != StatusCode::OK {
        return Err(endpoint.refusal(answer).await);
    }
    let Answer { response, stop } = answer;
    if answer::is_encoded(response.headers()) {
        return Err(stop.protocol(crate::source::ranged::ENCODED));
    }
    let size = usize::try_from(descriptor.size).unwrap_or(usize::MAX);
    let document = endpoint.wire.read(&stop, response, size).await?;
    if document.len() != size || Digest::of(&document) != descriptor.digest {
        let problem = format!("its bytes are not those of {}", descriptor.digest);
        return Err(SourceError::Corrupt { what: stop.what, problem });
    }
    Ok(document)
}

fn accept(types: &str) -> HeaderMap {
    HeaderValue::from_str(types).map(|types| HeaderMap::from_iter([(ACCEPT, types)])).unwrap_or_default()
}

fn media_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let kind = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    (!kind.is_empty()).then_some(kind)
}
