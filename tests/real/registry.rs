//! The registry client against the distribution project's registry: with a password, behind tokens and signed URLs
//! (fakes in front of the real one), as mirrors, and over TLS.

pub(crate) mod fakes;
mod tls;

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use futures::TryStreamExt as _;
use futures::future::join_all;
use stoker::source::registry::{HostTls, Registries, RegistryHost, Repository};
use stoker::source::{RangeSource, SourceConfig, SourceError};
use stoker::types::{ByteRange, Descriptor, Digest, ErrorKind, RegistryAuth, Secret};

use crate::parts::{
    BuiltImage, BuiltLayer, Fault, FaultProxy, ImageBuilder, Kind, Layer, PushedImage, Registry, Rule,
};
use fakes::Fakes;
use tls::TlsRegistry;

const REPOSITORY: &str = "team/app";
const RANGES: u64 = 16;

/// Two layers of bytes that don't compress.
fn image(kind: Kind) -> BuiltImage {
    let mut random = fastrand::Rng::with_seed(7);
    let mut bytes = |len: usize| std::iter::repeat_with(|| random.u8(..)).take(len).collect::<Vec<u8>>();
    let (large, small) = (bytes(3 << 20), bytes(1000));
    ImageBuilder::new()
        .kind(kind)
        .with_index()
        .layer(Layer::new().file("large", large, 0o644))
        .layer(Layer::new().file("small", small, 0o644))
        .build()
}

fn host(url: &str) -> RegistryHost {
    RegistryHost {
        base: format!("{url}/v2").parse().expect("a URL"),
        namespace: None,
        can_pull: true,
        can_resolve: true,
        tls: HostTls::default(),
        headers: http::HeaderMap::new(),
        dial_timeout: None,
    }
}

fn at(pushed: &PushedImage, hosts: Vec<RegistryHost>, auths: Vec<RegistryAuth>) -> Repository {
    let image = pushed.by_tag().parse().expect("a reference");
    Registries::new(SourceConfig::default()).expect("clients").repository(&image, hosts, auths)
}

fn password(registry: &Registry) -> RegistryAuth {
    let (user, password) = registry.credentials().expect("it has a password");
    RegistryAuth::Basic { username: user.to_owned(), password: Secret::new(password.to_owned()) }
}

fn of(layer: &BuiltLayer) -> Descriptor {
    Descriptor { media_type: "layer".to_owned(), digest: layer.digest, size: layer.size }
}

async fn range(blob: &dyn RangeSource, from: u64, to: u64) -> Result<Vec<u8>, SourceError> {
    let body = blob.get(ByteRange::new(from, to).expect("a range")).await?;
    Ok(body.bytes.try_collect::<Vec<_>>().await?.concat())
}

/// The whole of a layer, in ranges side by side.
async fn whole(blob: &Arc<dyn RangeSource>, size: u64) -> Vec<u8> {
    let piece = size.div_ceil(RANGES);
    let ranges = (0..RANGES).map(|at| range(&**blob, at * piece, ((at + 1) * piece).min(size)));
    join_all(ranges).await.into_iter().flat_map(|bytes| bytes.expect("a range")).collect()
}

/// Resolves the tag and reads all that it points at.
async fn pull(repository: &Repository, built: &BuiltImage) {
    let index = repository.resolve().await.expect("a descriptor");
    assert_eq!((index.digest, index.media_type.as_str()), (built.digest(), built.kind.index()));
    let bytes = repository.manifest(&index).await.expect("the index");
    assert_eq!(Some(bytes), built.index);
    let manifest = Descriptor {
        media_type: built.kind.manifest().to_owned(),
        digest: built.manifest_digest(),
        size: built.manifest.len() as u64,
    };
    assert_eq!(repository.manifest(&manifest).await.expect("the manifest"), built.manifest);
    let (digest, size) = (built.config_digest(), built.config.len() as u64);
    let config = Descriptor { media_type: "config".to_owned(), digest, size };
    assert_eq!(repository.small_blob(&config, 1 << 20).await.expect("the config"), built.config);
    for layer in &built.layers {
        let blob = repository.blob(&of(layer));
        assert_eq!(Digest::of(&whole(&blob, layer.size).await), layer.digest);
        assert!(blob.serves_ranges());
    }
}

#[tokio::test]
async fn an_image_comes_from_a_registry_with_a_password_and_only_with_the_right_one() {
    let registry = Registry::start_with_password().await;
    for kind in [Kind::Oci, Kind::Docker] {
        let built = image(kind);
        let pushed = registry.push(&built, REPOSITORY, "v1").await;
        let wrong =
            RegistryAuth::Basic { username: "stoker".to_owned(), password: Secret::new("cold".to_owned()) };
        pull(&at(&pushed, vec![host(&registry.url())], vec![wrong.clone(), password(&registry)]), &built)
            .await;
        for auths in [Vec::new(), vec![wrong]] {
            let refused = at(&pushed, vec![host(&registry.url())], auths);
            assert_eq!(refused.resolve().await.expect_err("no way in").kind(), ErrorKind::Denied);
            let layer = refused.blob(&of(&built.layers[0]));
            assert_eq!(range(&*layer, 0, 10).await.expect_err("no way in").kind(), ErrorKind::Denied);
        }
    }
    let absent = format!("{}/{REPOSITORY}:absent", registry.host()).parse().expect("a reference");
    let registries = Registries::new(SourceConfig::default()).expect("clients");
    let absent = registries.repository(&absent, vec![host(&registry.url())], vec![password(&registry)]);
    let error = absent.resolve().await.expect_err("no such tag");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[tokio::test]
async fn tokens_and_signed_urls_that_end_in_mid_pull_are_had_anew_and_shown_to_nobody_else() {
    let registry = Registry::start_with_password().await;
    let built = image(Kind::Oci);
    let pushed = registry.push(&built, REPOSITORY, "v1").await;
    let fakes = Fakes::start(&registry).await;
    let repository = at(&pushed, vec![host(&fakes.registry_url)], vec![password(&registry)]);
    pull(&repository, &built).await;
    assert_eq!(fakes.told.tokens.load(SeqCst), 1);
    let (layer, signed) = (&built.layers[0], fakes.told.signatures.load(SeqCst));
    let blob = repository.blob(&of(layer));
    let first = range(&*blob, 0, 1000).await.expect("a range");
    fakes.revoke();
    let rest = whole(&blob, layer.size).await;
    assert_eq!((Digest::of(&rest), &rest[..1000]), (layer.digest, &first[..]));
    // One signature for the first range, one for all the others after it ended, and one token to ask for it.
    assert_eq!(fakes.told.signatures.load(SeqCst), signed + 2);
    assert_eq!(fakes.told.tokens.load(SeqCst), 2);
    assert_eq!(fakes.told.leaks.load(SeqCst), 0, "the store was shown an Authorization");
    let nobody = at(&pushed, vec![host(&fakes.registry_url)], Vec::new());
    let error = nobody.resolve().await.expect_err("no way in");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
}

#[tokio::test]
async fn mirrors_serve_what_they_have_and_the_registry_the_rest() {
    let (mut mirror, registry) = (Registry::start().await, Registry::start_with_password().await);
    let built = image(Kind::Oci);
    let pushed = registry.push(&built, REPOSITORY, "v1").await;
    let hosts = || vec![host(&mirror.url()), host(&registry.url())];
    let auths = || vec![password(&registry)];
    pull(&at(&pushed, hosts(), auths()), &built).await;
    assert!(!mirror.pulls().is_empty(), "the mirror is asked first");
    mirror.push(&built, REPOSITORY, "v1").await;
    let before = registry.pulls().len();
    pull(&at(&pushed, hosts(), auths()), &built).await;
    assert_eq!(registry.pulls().len(), before, "the mirror has all of it");
    let hosts = hosts();
    let repository = at(&pushed, hosts, auths());
    let layer = &built.layers[0];
    let blob = repository.blob(&of(layer));
    range(&*blob, 0, 1000).await.expect("a range of the mirror's");
    mirror.stop();
    assert_eq!(Digest::of(&whole(&blob, layer.size).await), layer.digest, "the mirror died in mid-pull");
}

#[tokio::test]
async fn a_registry_that_lies_about_ranges_is_caught_and_one_that_has_none_is_noticed() {
    let registry = Registry::start().await;
    let built = image(Kind::Oci);
    let pushed = registry.push(&built, REPOSITORY, "v1").await;
    let proxy = FaultProxy::start(&registry.host());
    let repository = at(&pushed, vec![host(&proxy.url())], Vec::new());
    let layer = &built.layers[0];
    let size = layer.size;
    for lie in
        [format!("bytes 1-1000/{size}"), format!("bytes 0-999/{}", size + 1), "bytes 0-999/*".to_owned()]
    {
        proxy.add(Rule::get("/blobs/", Fault::Header("Content-Range", lie)));
        let error = range(&*repository.blob(&of(layer)), 0, 1000).await.expect_err("a lie");
        assert!(matches!(error, SourceError::Protocol { .. }), "{error}");
    }
    proxy.add(Rule::get("/blobs/", Fault::IgnoreRange));
    let blob = repository.blob(&of(layer));
    let file = std::fs::read(&layer.path).expect("the layer's file");
    assert_eq!(range(&*blob, 100, 200).await.expect("cut out of the whole"), &file[100..200]);
    assert!(!blob.serves_ranges());
    proxy.add(Rule::get("/blobs/", Fault::CutBody(500)));
    let error = range(&*blob, 0, 1000).await.expect_err("a cut");
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    let mut config = Descriptor {
        media_type: "config".to_owned(),
        digest: built.config_digest(),
        size: built.config.len() as u64,
    };
    // As often as it is asked for.
    proxy.add(Rule::get("/blobs/", Fault::FlipByte(3)).times(3));
    let error = repository.small_blob(&config, 1 << 20).await.expect_err("a flipped bit");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    config.size += 1;
    assert!(repository.small_blob(&config, 1 << 20).await.is_err(), "another size");
}

#[tokio::test]
async fn tls_is_as_hosts_toml_says() {
    let registry = TlsRegistry::start().await;
    let base = || RegistryHost { tls: HostTls::default(), ..host(&registry.url()) };
    let with = |tls: HostTls| RegistryHost { tls, ..base() };
    let (ca, client) = (vec![registry.file("ca.crt")], vec![registry.client()]);
    let ours = HostTls { ca: ca.clone(), client: client.clone(), skip_verify: false };
    let image = format!("{}/a:v1", registry.host()).parse().expect("a reference");
    let registries = Registries::new(SourceConfig::default()).expect("clients");
    let answer = async |host: RegistryHost| {
        let tag = registries.repository(&image, vec![host], Vec::new());
        // By a range: it's asked for once.
        let nothing = Descriptor { media_type: String::new(), digest: Digest::of(b""), size: 9 };
        range(&*tag.blob(&nothing), 0, 9).await.expect_err("it has no such blob").kind()
    };
    assert_eq!(answer(with(ours)).await, ErrorKind::NotFound, "a CA and a client certificate");
    let unchecked = HostTls { ca: Vec::new(), client: client.clone(), skip_verify: true };
    assert_eq!(answer(with(unchecked)).await, ErrorKind::NotFound, "any certificate will do");
    let nobody = HostTls { ca: ca.clone(), client: Vec::new(), skip_verify: false };
    assert_eq!(answer(with(nobody)).await, ErrorKind::Transient, "no client certificate");
    let stranger = HostTls { ca: Vec::new(), client: client.clone(), skip_verify: false };
    assert_eq!(answer(with(stranger.clone())).await, ErrorKind::Transient, "an unknown authority");
    let mut other = stranger;
    other.ca = vec![
        registry.scratch().file("rotated.crt", std::fs::read(registry.file("other.crt")).expect("a file")),
    ];
    assert_eq!(answer(with(other.clone())).await, ErrorKind::Transient, "another authority");
    let right = std::fs::read(registry.file("ca.crt")).expect("a file");
    registry.scratch().file("rotated.crt", [right, b"\n".to_vec()].concat());
    assert_eq!(answer(with(other.clone())).await, ErrorKind::NotFound, "the file was put right");
    registry.scratch().file("rotated.crt", "no certificate");
    assert_eq!(answer(with(other)).await, ErrorKind::Invalid, "the file was spoiled");
}
