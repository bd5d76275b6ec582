//! Images that are made in a real containerd from unpacked layers, against the same images pulled by containerd itself.

pub(crate) mod bench;
mod faults;
mod rooms;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use stoker::containerd::Containerd as Client;
use stoker::types::ImageRef;

use self::bench::{Bench, chains, collect, small};
use super::on_each_version::on_each_version;
use super::parts::{Containerd, ImageBuilder, Kind, Layer, Options, Registry, Version, until};

const SOON: Duration = Duration::from_secs(30);

on_each_version! {
    an_image_is_as_containerd_itself_pulls_it
    it_runs_and_outlives_a_crash
    an_image_of_128_layers_runs
    pins_are_ours_from_the_first_moment_and_others_stay_theirs
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
            let options = Options { discard_unpacked_layers: discard, ..Options::default() };
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
            // Where blobs are discarded, that is when they go.
            collect(&peer).await;
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
                assert!(!ours.is_empty());
            }
            let words = sorted_words(&bench.containerd.ctr_ok(&["content", "ls"]).await).concat();
            let layer = format!("containerd.io/gc.ref.content.l.0={}", pushed.layers[0].digest);
            assert_eq!(words.contains(&layer), !discard, "{words:?}");
            let complete = if discard { "incomplete" } else { "complete" };
            let check = sorted_words(&bench.containerd.ctr_ok(&["images", "check"]).await).concat();
            assert!(check.iter().any(|word| word == complete), "{check:?}");
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
        assert_eq!((status.pinned, status.config), (version.shows_pins(), built.config_digest()));
        bench.containerd.run(&reference.to_string(), "sleeper").await;
        let running = async || {
            let tasks = bench.containerd.ctr_ok(&["tasks", "ls"]).await;
            (tasks.contains("sleeper") && tasks.contains("RUNNING")).then_some(())
        };
        until("the container", SOON, running).await;
    }

    pub(super) async fn an_image_of_128_layers_runs(version: Version) {
        let bench =
            Bench::start_with(version, Options { discard_unpacked_layers: true, ..Options::default() }).await;
        let layer = |number: u32| Layer::new().file(&format!("dir/file-{number}"), number.to_string(), 0o644);
        let program = Layer::new().dir("dir", 0o700).program("/usr/bin/sleep");
        let image = (1..128).map(layer).fold(ImageBuilder::new().layer(program), ImageBuilder::layer);
        let built = image.entrypoint(&["/usr/bin/sleep", "1000"]).build();
        let reference: ImageRef = "example.com/team/tall:v1".parse().unwrap();
        bench.make(&built, &reference, false).await.unwrap();
        bench.collect().await;
        assert_eq!(bench.snapshots().await.len(), 128);
        // The directory that only the lowest layer describes is as it is there in each.
        let usage = bench.containerd.ctr_ok(&["snapshots", "usage", &built.chain_id().to_string()]).await;
        assert!(usage.contains(" 3"), "the root, the directory and a file: {usage}");
        for snapshot in std::fs::read_dir(bench.containerd.snapshots()).unwrap().flatten() {
            let dir = snapshot.path().join("fs/dir").metadata().unwrap();
            assert_eq!(dir.permissions().mode() & 0o7777, 0o700);
        }
        bench.containerd.run(&reference.to_string(), "tall").await;
        let running = async || {
            let tasks = bench.containerd.ctr_ok(&["tasks", "ls"]).await;
            (tasks.contains("tall") && tasks.contains("RUNNING")).then_some(())
        };
        until("the container", SOON, running).await;
    }

    pub(super) async fn pins_are_ours_from_the_first_moment_and_others_stay_theirs(version: Version) {
        let bench = Bench::start(version).await;
        let reference: ImageRef = "example.com/team/app:v1".parse().unwrap();
        let labels = async || {
            let records = bench.client.records().await.unwrap();
            let of = |key: &str| {
                let labelled = records.iter().filter(|record| record.labels.contains_key(key));
                labelled.map(|record| record.name.clone()).collect::<BTreeSet<_>>()
            };
            (of("io.cri-containerd.pinned"), of("stoker.dev/pinned"), records.len())
        };
        let pinned = async || bench.client.image_status(&reference).await.unwrap().unwrap().pinned;
        let (old, new) = (small(&["a"]).build(), small(&["a", "b"]).build());
        bench.make(&old, &reference, false).await.unwrap();
        assert_eq!(labels().await, (BTreeSet::new(), BTreeSet::new(), 3));
        assert!(!pinned().await);
        let digest = format!("example.com/team/app@{}", old.digest());
        bench.containerd.ctr_ok(&["images", "label", &digest, "io.cri-containerd.pinned=pinned"]).await;
        bench.make(&old, &reference, true).await.unwrap();
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>();
        let (tag, id) = (reference.to_string(), old.config_digest().to_string());
        assert_eq!(labels().await, (names(&[&tag, &id, &digest]), names(&[&tag, &id]), 3));
        assert_eq!(pinned().await, version.shows_pins());
        // The tag moves: it stays pinned, as do the old one's other names until somebody takes their pins off.
        bench.make(&new, &reference, true).await.unwrap();
        let shown = bench.client.image_status(&reference).await.unwrap().unwrap();
        assert_eq!((shown.pinned, shown.config), (version.shows_pins(), new.config_digest()));
        let (pins, marks, records) = labels().await;
        assert_eq!((pins.len(), marks.len(), records), (5, 4, 5));
        let by_digest: ImageRef = digest.parse().unwrap();
        assert_eq!(bench.client.image_status(&by_digest).await.unwrap().unwrap().config, old.config_digest());
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
