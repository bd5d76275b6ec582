//! Images that are made in a real containerd from unpacked layers, against the same images pulled by containerd itself.

mod bench;

use std::time::Duration;

use stoker::containerd::Containerd as Client;
use stoker::types::ImageRef;

use self::bench::{Bench, chains, small};
use super::parts::{Containerd, ImageBuilder, Kind, Layer, Options, Registry, Version, until};

const SOON: Duration = Duration::from_secs(30);

/// Both lines of containerd, side by side.
macro_rules! on_each_version {
    ($($name:ident)*) => {$(
        mod $name {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_2_4() { super::scenario::$name(super::Version::V2_4).await }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_1_7() { super::scenario::$name(super::Version::V1_7).await }
        }
    )*};
}

on_each_version! {
    an_image_is_as_containerd_itself_pulls_it
    it_runs_and_outlives_a_crash
}

/// Layers with whiteouts, an opaque directory, hard links, and directories that only lower layers describe.
fn rich() -> ImageBuilder {
    let below = Layer::new()
        .dir("etc", 0o750)
        .file("etc/kept", "kept", 0o600)
        .file("etc/gone", "gone", 0o644)
        .dir("opt", 0o1777)
        .file("opt/hidden", "hidden", 0o644)
        .dir("srv", 0o700)
        .dir("srv/deep", 0o711)
        .hard_link("etc/again", "etc/kept")
        .symlink("etc/link", "kept");
    let above = Layer::new().whiteout("etc/gone").opaque("opt").file("opt/new", "new", 0o644);
    let top = Layer::new().file("srv/deep/file", vec![7; 300_000], 0o4755);
    ImageBuilder::new().layer(below).layer(above).layer(top)
}

mod scenario {
    use super::*;

    pub(super) async fn an_image_is_as_containerd_itself_pulls_it(version: Version) {
        let registry = Registry::start().await;
        for (discard, kind) in [(false, Kind::Oci), (true, Kind::Docker)] {
            let options = Options { discard_unpacked_layers: discard };
            let bench = Bench::start_with(version, options).await;
            let native = Containerd::start_with(version, options).await;
            let built = rich().kind(kind).with_index().build();
            let pushed = registry.push(&built, "team/app", "v1").await;
            let reference: ImageRef = pushed.by_tag().parse().unwrap();
            native.trust(&registry.host(), &registry.url());
            let peer = Client::new(&native.address());
            peer.pull_image(&reference, None).await.unwrap();

            bench.make(&built, &reference, false).await.unwrap();
            bench.collect().await;
            assert_eq!(
                bench.client.image_status(&reference).await.unwrap(),
                peer.image_status(&reference).await.unwrap()
            );
            let (mut records, mut theirs) =
                (bench.client.records().await.unwrap(), peer.records().await.unwrap());
            records.sort_by(|one, other| one.name.cmp(&other.name));
            theirs.sort_by(|one, other| one.name.cmp(&other.name));
            assert_eq!(records, theirs);
            assert_eq!(bench.snapshots().await.len(), 3);
            for chain in chains(&built).iter().map(ToString::to_string) {
                for question in ["usage", "info"] {
                    let ask = ["snapshots", question, &chain];
                    let (ours, theirs) = (bench.containerd.ctr_ok(&ask).await, native.ctr_ok(&ask).await);
                    assert_eq!(without_times(&ours, &chain), without_times(&theirs, &chain));
                }
            }
            for ask in [&["content", "ls"][..], &["images", "check"]] {
                let (ours, theirs) = (bench.containerd.ctr_ok(ask).await, native.ctr_ok(ask).await);
                let (ours, theirs) = (sorted_words(&ours), sorted_words(&theirs));
                assert_eq!(ours, theirs, "{ask:?}");
            }
            bench.is_empty_without(&reference).await;
        }
    }

    pub(super) async fn it_runs_and_outlives_a_crash(version: Version) {
        let mut bench = Bench::start(version).await;
        let layer = Layer::new().program("/usr/bin/sleep");
        let top = Layer::new().file("marker", "there", 0o644);
        let built =
            ImageBuilder::new().layer(layer).layer(top).entrypoint(&["/usr/bin/sleep", "1000"]).build();
        let reference: ImageRef = "example.com/team/sleeper:v1".parse().unwrap();
        bench.make(&built, &reference, true).await.unwrap();
        bench.containerd.kill9();
        bench.containerd.restart().await;
        bench.collect().await;
        let status = bench.client.image_status(&reference).await.unwrap().unwrap();
        assert!(status.pinned && status.config == built.config_digest(), "{status:?}");
        bench.containerd.run(&reference.to_string(), "sleeper").await;
        let running = async || {
            let tasks = bench.containerd.ctr_ok(&["tasks", "ls"]).await;
            (tasks.contains("sleeper") && tasks.contains("RUNNING")).then_some(())
        };
        until("the container", SOON, running).await;
    }
}

/// containerd 2.4's labels of diff and parent are on our snapshots of every version.
fn without_times(text: &str, chain: &str) -> Vec<String> {
    let ours =
        |line: &&str| !["Created", "Updated", "containerd.io/snapshot/"].iter().any(|key| line.contains(key));
    text.lines().filter(ours).map(|line| line.trim().trim_end_matches(',').replace(chain, "CHAIN")).collect()
}

/// Lines in order, and within a line the words: without times, and with labels in any order.
fn sorted_words(text: &str) -> Vec<Vec<String>> {
    let words = |line: &str| {
        let is_age = |word: &&str| {
            !["ago", "second", "seconds", "minute", "Less", "than", "About", "a"].contains(word)
        };
        let mut words: Vec<String> = line
            .split([' ', '\t', ','])
            .filter(|word| !word.is_empty() && word.parse::<u8>().is_err())
            .filter(is_age)
            .map(str::to_owned)
            .collect();
        words.sort();
        words
    };
    let mut lines: Vec<_> = text.lines().map(words).collect();
    lines.sort();
    lines
}
