//! Images pulled over a network that fails: whatever goes wrong on the way, what ends in containerd is right, and nothing
//! else is left there.

mod mirrors;
mod one;

use stoker::types::ImageRef;

use crate::node::bytes;
use crate::parts::{
    BuiltImage, Fault, FaultProxy, ImageBuilder, Layer, PushedImage, Registry, Rule, Trouble,
};
use crate::pulling::Pulling;
use crate::registry::fakes::Fakes;

/// One request in twenty.
const SHARE: f64 = 0.05;

/// Each is other trouble. A seed that once failed belongs here.
const SEEDS: [u64; 6] = [1, 2, 3, 4, 5, 6];

const LAYERS: [&str; 5] = ["zero", "one", "two", "three", "four"];

/// Their content doesn't compress, so each layer has many ranges.
pub(crate) fn files() -> Vec<(&'static str, Vec<u8>)> {
    LAYERS.iter().zip(0..).map(|(name, seed)| (*name, bytes(seed, 900_000))).collect()
}

pub(crate) fn image(files: &[(&'static str, Vec<u8>)]) -> BuiltImage {
    let layer = |(name, bytes): &(&str, Vec<u8>)| Layer::new().file(name, bytes.clone(), 0o644);
    files.iter().map(layer).fold(ImageBuilder::new().with_index(), ImageBuilder::layer).build()
}

pub(crate) fn refs<'a>(files: &'a [(&'static str, Vec<u8>)]) -> Vec<(&'static str, &'a [u8])> {
    files.iter().map(|(name, bytes)| (*name, &bytes[..])).collect()
}

fn tag(pushed: &PushedImage) -> ImageRef {
    pushed.by_tag().parse().unwrap()
}

/// An image at a registry that is reached through proxies.
struct Near {
    pulling: Pulling,
    files: Vec<(&'static str, Vec<u8>)>,
    image: BuiltImage,
    pushed: PushedImage,
    proxies: Vec<FaultProxy>,
    _registry: Registry,
}

impl Near {
    /// So many proxies: the last one is in the registry's place, those before it in the places of mirrors.
    async fn start(
        registry: impl Future<Output = Registry>,
        files: Vec<(&'static str, Vec<u8>)>,
        proxies: usize,
    ) -> Self {
        let (registry, pulling) = tokio::join!(registry, Pulling::start());
        let image = image(&files);
        let pushed = registry.push(&image, "team/app", "v1").await;
        let proxies: Vec<FaultProxy> = (0..proxies).map(|_| FaultProxy::start(&registry.host())).collect();
        let urls: Vec<String> = proxies.iter().map(FaultProxy::url).collect();
        pulling.hosts(&pushed.host, &urls.iter().map(String::as_str).collect::<Vec<_>>());
        Self { pulling, files, image, pushed, proxies, _registry: registry }
    }

    /// It must come, and be right.
    async fn comes(&self, what: &str, credentials: Option<&str>) {
        let pulled = self.pulling.pull_as(&tag(&self.pushed), credentials).await;
        let told = pulled.map_err(|error| stoker::rt::chain(&error));
        assert!(told.is_ok(), "{what}: {told:?}");
        self.pulling.assert_holds(&self.image, &refs(&self.files)).await;
    }

    /// Which requests for the image's layer are meant.
    fn layer(&self, number: usize) -> String {
        format!("/blobs/{}", self.image.layers[number].digest)
    }
}

/// A registry behind tokens, whose blobs are at a store with signed URLs; a proxy before each of the two.
struct Far {
    registry: Registry,
    _fakes: Fakes,
    front: FaultProxy,
    store: FaultProxy,
}

impl Far {
    async fn start() -> Self {
        let registry = Registry::start_with_password().await;
        let store = std::cell::OnceCell::new();
        let fakes = Fakes::start_with(&registry, |url| {
            store.get_or_init(|| FaultProxy::start(url.trim_start_matches("http://"))).url()
        })
        .await;
        let front = FaultProxy::start(fakes.registry_url.trim_start_matches("http://"));
        Self { registry, _fakes: fakes, front, store: store.into_inner().unwrap() }
    }

    fn proxies(&self) -> [&FaultProxy; 2] {
        [&self.front, &self.store]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_faults_on_one_request_in_twenty_every_pull_ends_warm() {
    let (far, pulling) = tokio::join!(Far::start(), Pulling::start());
    let files = files();
    let image = image(&files);
    let pushed = far.registry.push(&image, "team/app", "v1").await;
    pulling.hosts(&pushed.host, &[&far.front.url()]);
    let credentials = pulling.password(&pushed.host);
    for seed in SEEDS {
        let trouble = Trouble::new(SHARE, seed).on("/v2/").and([Fault::FlipByte(100_000)]);
        for proxy in far.proxies() {
            proxy.clear();
            proxy.trouble(trouble.clone());
        }
        let pulled = pulling.pull_as(&tag(&pushed), Some(credentials)).await;
        if let Err(error) = pulled {
            let met = far.proxies().map(FaultProxy::spoilt);
            panic!("with the seed {seed}: {}\nmet: {met:#?}", stoker::rt::chain(&error));
        }
        println!("the seed {seed} is through");
        pulling.assert_holds(&image, &refs(&files)).await;
        pulling.bench.is_empty_without(&tag(&pushed)).await;
        pulling.assert_empty(&format!("the seed {seed}")).await;
    }
    let asked: usize = far.proxies().map(|proxy| proxy.seen().len()).iter().sum();
    let spoilt: Vec<_> = far.proxies().iter().flat_map(|proxy| proxy.spoilt()).collect();
    let kinds: std::collections::HashSet<_> =
        spoilt.iter().map(|seen| std::mem::discriminant(seen.fault.as_ref().unwrap())).collect();
    println!("{asked} requests, {} spoilt, in {} ways", spoilt.len(), kinds.len());
    // Else it says little.
    assert!(asked > 300 && spoilt.len() > 20 && kinds.len() > 8, "{asked} {} {}", spoilt.len(), kinds.len());
    pulling.end().await;
}
