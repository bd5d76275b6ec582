//! What the agent counts while it pulls images, and that the README names all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;

use crate::node::{Node, SOON, bytes, list};
use crate::parts::{
    Fault, FaultProxy, FreePort, ImageBuilder, Layer, PushedImage, Rule, Status, Version, until,
};

const PHASES: [&str; 6] = ["resolve", "fetch", "inflate", "unpack", "sync", "commit"];

/// One scrape: each series with its labels as it's written, and its value.
struct Scrape {
    series: BTreeMap<String, f64>,
    names: BTreeSet<String>,
}

impl Scrape {
    async fn of(port: &FreePort) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = client.get(format!("http://{}/metrics", port.address())).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let text = answer.text().await.unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let series: BTreeMap<String, f64> = lines
            .map(|line| line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}")))
            .map(|(series, value)| (series.to_owned(), value.parse().unwrap()))
            .collect();
        let name = |series: &String| series.split('{').next().unwrap().to_owned();
        let names = series.keys().map(name).collect();
        Self { series, names }
    }

    #[track_caller]
    fn value(&self, series: &str) -> f64 {
        *self.series.get(series).unwrap_or_else(|| panic!("{series} isn't among {:#?}", self.series))
    }

    /// A number of things.
    #[track_caller]
    fn count(&self, series: &str) -> u64 {
        let value = self.value(series);
        assert!(value >= 0.0 && value.fract() == 0.0, "{series}: {value}");
        format!("{value:.0}").parse().unwrap()
    }

    /// One of the two series of a phase, in microseconds or bytes.
    #[track_caller]
    fn phase_bytes(&self, phase: &str) -> u64 {
        self.count(&format!("stoker_image_phase_bytes_total{{phase=\"{phase}\"}}"))
    }
}

/// Two images that share their lower layer, behind a proxy: what is asked first of the upper blob of the first
/// comes only half.
struct Pulls {
    node: Node,
    port: FreePort,
    first: PushedImage,
    second: PushedImage,
    /// Bytes of all files in each layer that there is.
    files: u64,
}

impl Pulls {
    async fn start() -> Self {
        let mut node = Node::start(Version::V2_4).await;
        let (base, upper, other) = (bytes(1, 300_000), bytes(2, 200_000), b"other".to_vec());
        let files = base.len() + upper.len() + other.len();
        let image = |upper: Vec<u8>| {
            ImageBuilder::new()
                .layer(Layer::new().dir("etc", 0o755).file("etc/base", base.clone(), 0o644))
                .layer(Layer::new().file("app", upper, 0o755))
        };
        let first = node.registry.push(&image(upper).build(), "team/first", "v1").await;
        let second = node.registry.push(&image(other).build(), "team/second", "v1").await;
        let proxy = FaultProxy::start(&node.registry.host());
        node.containerd.trust(&node.registry.host(), &proxy.url());
        proxy.add(Rule::get(&format!("/blobs/{}", first.layers[1].digest), Fault::HalfBody));
        let port = FreePort::find();
        node.agent = node.agent.env("STOKER_HTTP", port.address());
        let entries = [("first", &first), ("second", &second)]
            .map(|(id, image)| format!("id: {id}, image: \"{}\"", image.by_tag()));
        node.agent.write_list(&list(&[&entries[0]]));
        node.agent.start().await;
        node.agent.wait_for("the first image", SOON, |status| status.all_warm() && status.done).await;
        assert_eq!(proxy.spoilt().len(), 1, "{:?}", proxy.spoilt());
        node.agent.write_list(&list(&[&entries[0], &entries[1]]));
        let both = |status: &Status| status.entries.len() == 2 && status.all_warm() && status.done;
        node.agent.wait_for("both images", SOON, both).await;
        Self { node, port, first, second, files: files.try_into().unwrap() }
    }
}

#[tokio::test]
async fn a_pull_tells_where_its_time_and_bytes_went() {
    let pulls = Pulls::start().await;
    let scrape = Scrape::of(&pulls.port).await;
    let layers = [&pulls.first.layers[0], &pulls.first.layers[1], &pulls.second.layers[1]];

    let packed: u64 = layers.iter().map(|layer| layer.size).sum();
    assert_eq!(scrape.phase_bytes("fetch"), packed);
    assert_eq!(scrape.count("stoker_entry_bytes_total{kind=\"image\"}"), packed);
    assert_eq!(scrape.phase_bytes("inflate"), layers.iter().map(|layer| layer.tar_size).sum::<u64>());
    assert_eq!(scrape.phase_bytes("unpack"), pulls.files);
    for phase in ["resolve", "sync", "commit"] {
        assert_eq!(scrape.phase_bytes(phase), 0, "{phase}");
    }
    for phase in PHASES {
        let seconds = scrape.value(&format!("stoker_image_phase_seconds_total{{phase=\"{phase}\"}}"));
        // Two pulls of three layers, each of which had less than the time that this test waits.
        assert!(seconds > 0.0 && seconds < 6.0 * SOON.as_secs_f64(), "{phase}: {seconds} s");
    }
    assert_eq!(scrape.count("stoker_image_layers_total{how=\"fetched\"}"), 3);
    assert_eq!(scrape.count("stoker_image_layers_total{how=\"reused\"}"), 1);
    assert_eq!(scrape.count("stoker_fetch_retries_total{reason=\"transient\"}"), 1);
    assert_eq!(scrape.count("stoker_fetch_retries_total{reason=\"corrupt\"}"), 0);
    assert_eq!(scrape.count("stoker_image_pulls_total{result=\"ok\"}"), 2);
    assert_eq!(scrape.count("stoker_images_left_to_containerd_total{reason=\"UnusualImage\"}"), 0);

    // The line is written when the pull is over, before the entry is warm; the file may have it a moment later.
    let line = async || {
        let log = pulls.node.agent.log();
        let of_it = |line: &&str| line.contains("pulled") && line.contains(&pulls.second.by_tag());
        log.lines().find(|line| of_it(line) && line.contains("resolve")).map(str::to_owned)
    };
    let line = until("the line about the second pull", SOON, line).await;
    for phase in PHASES {
        assert!(line.contains(&format!("{phase} ")), "{line}");
    }
    assert!(line.contains("fetched 1 layers, reused 1"), "{line}");
}

#[tokio::test]
async fn an_image_that_is_left_to_containerd_says_why() {
    let node = Node::start(Version::V2_4).await;
    let port = FreePort::find();
    let verifier = node.containerd.directory().join("verifiers/yes");
    std::fs::write(&verifier, "#!/bin/sh\necho fine\n").unwrap();
    std::fs::set_permissions(&verifier, std::fs::Permissions::from_mode(0o755)).unwrap();
    let app = node.push("team/app", "app").await;
    let host_root = node.containerd.host_root();
    let mut agent =
        node.agent.env("STOKER_HTTP", port.address()).arg("--host-root").arg(host_root.as_os_str());
    agent.write_list(&list(&[&format!("id: app, image: \"{}\"", app.by_tag())]));
    agent.start().await;
    let status = agent.wait_for("warmth", SOON, |status| status.all_warm() && status.done).await;
    let reason = status.entry("app").unwrap().reason.clone().unwrap();
    assert_eq!(reason.code, "ImageVerifiers");
    assert!(reason.message.contains(verifier.parent().unwrap().to_str().unwrap()), "{reason:?}");
    let scrape = Scrape::of(&port).await;
    assert_eq!(scrape.count("stoker_images_left_to_containerd_total{reason=\"ImageVerifiers\"}"), 1);
    assert_eq!(scrape.count("stoker_images_left_to_containerd_total{reason=\"UnusualImage\"}"), 0);
}

#[tokio::test]
async fn the_readme_names_what_is_measured_and_nothing_else() {
    let node = Node::start(Version::V2_4).await;
    let port = FreePort::find();
    let mut agent = node.agent.env("STOKER_HTTP", port.address());
    agent.start().await;
    let scrape = Scrape::of(&port).await;
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    assert_eq!(scrape.names, named(&readme));
}

/// The metrics that a text in Markdown has between backticks.
fn named(text: &str) -> BTreeSet<String> {
    let is_part = |char: char| char.is_ascii_lowercase() || char == '_';
    let is_name = |word: &&str| {
        let (ours, process) = (word.strip_prefix("stoker_"), word.strip_prefix("process_"));
        ours.or(process).is_some_and(|rest| !rest.is_empty()) && word.chars().all(is_part)
    };
    text.split('`').filter(is_name).map(str::to_owned).collect()
}
