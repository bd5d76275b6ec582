//! Images that are made unusually, as containerd itself has them.

use std::time::Duration;

use stoker::containerd::Containerd as Client;
use stoker::types::ImageRef;

use crate::commit::bench::collect;
use crate::hostile::forged::Image;
use crate::on_each_version::on_each_version;
use crate::parts::{BuiltImage, Containerd, ImageBuilder, Kind, Layer, Registry, Version, until};
use crate::pulling::Pulling;

const SOON: Duration = Duration::from_secs(30);

on_each_version! {
    an_image_is_as_containerd_has_it_whatever_its_layers
    an_image_without_layers_is_as_containerd_has_it
}

fn file(name: &str) -> Layer {
    Layer::new().file(&format!("dir/{name}"), name, 0o644)
}

/// One layer, one that holds nothing, one several times, and as many as an overlay takes.
fn images() -> Vec<(&'static str, BuiltImage)> {
    let program = || Layer::new().program("/usr/bin/sleep");
    let of = |layers: Vec<Layer>| layers.into_iter().fold(ImageBuilder::new(), ImageBuilder::layer);
    let many = (1..127).map(|number| file(&number.to_string()));
    let run = |image: ImageBuilder| image.entrypoint(&["/usr/bin/sleep", "1000"]);
    vec![
        ("one-layer", run(of(vec![program()])).kind(Kind::Docker).build()),
        ("an-empty-layer", run(of(vec![program(), Layer::new(), file("a")])).build()),
        ("a-layer-twice", run(of(vec![file("a"), program(), file("a"), file("a")])).with_index().build()),
        ("many-layers", run(of(std::iter::once(program()).chain(many).collect())).build()),
    ]
}

/// A containerd that we pull into, and one that pulls by itself, with a registry for both.
async fn side_by_side(version: Version) -> (Pulling, Registry, Containerd, Client) {
    let (pulling, registry, native) =
        tokio::join!(Pulling::start_on(version), Registry::start(), Containerd::start(version));
    pulling.bench.containerd.trust(&registry.host(), &registry.url());
    native.trust(&registry.host(), &registry.url());
    let peer = Client::new(&native.address());
    (pulling, registry, native, peer)
}

mod scenario {
    use super::*;

    pub(super) async fn an_image_is_as_containerd_has_it_whatever_its_layers(version: Version) {
        let (pulling, registry, native, peer) = side_by_side(version).await;
        for (name, image) in images() {
            let tag: ImageRef = registry.push(&image, name, "v1").await.by_tag().parse().unwrap();
            peer.pull_image(&tag, None).await.unwrap();
            let warm = pulling
                .pull(&tag)
                .await
                .unwrap_or_else(|error| panic!("{name}: {}", stoker::rt::chain(&error)));
            assert_eq!(warm.unable, None, "{name}");
            let (ours, theirs) = (
                pulling.bench.client.image_status(&tag).await.unwrap(),
                peer.image_status(&tag).await.unwrap(),
            );
            let unpinned = |mut status: stoker::containerd::CriImage| {
                status.pinned = false;
                status
            };
            assert_eq!(ours.map(unpinned), theirs.map(unpinned), "{name}");
            pulling.bench.collect().await;
            collect(&peer).await;
            for ask in [&["content", "ls", "-q"][..], &["snapshots", "ls"]] {
                let words = |text: String| {
                    let mut words: Vec<_> = text
                        .lines()
                        .filter_map(|line| Some(line.split_whitespace().next()?.to_owned()))
                        .collect();
                    words.sort();
                    words
                };
                let (ours, theirs) = (pulling.bench.containerd.ctr_ok(ask).await, native.ctr_ok(ask).await);
                assert_eq!(words(ours), words(theirs), "{name}: {ask:?}");
            }
            pulling.bench.containerd.run(&tag.to_string(), name).await;
            let running = async || {
                let tasks = pulling.bench.containerd.ctr_ok(&["tasks", "ls"]).await;
                tasks.lines().any(|line| line.contains(name) && line.contains("RUNNING")).then_some(())
            };
            until("the container", SOON, running).await;
            pulling.bench.containerd.ctr_ok(&["tasks", "rm", "--force", name]).await;
            pulling.bench.containerd.ctr_ok(&["containers", "rm", name]).await;
            peer.remove_image(&tag).await.unwrap();
            collect(&peer).await;
            pulling.bench.is_empty_without(&tag).await;
        }
        pulling.end().await;
    }

    pub(super) async fn an_image_without_layers_is_as_containerd_has_it(version: Version) {
        let (pulling, registry, _native, peer) = side_by_side(version).await;
        let tag = Image::of([]).push(&registry, "team/empty").await;
        peer.pull_image(&tag, None).await.unwrap();
        assert_eq!(pulling.pull(&tag).await.unwrap().unable, None);
        let (ours, theirs) =
            (pulling.bench.client.image_status(&tag).await.unwrap(), peer.image_status(&tag).await.unwrap());
        assert_eq!(ours.map(|ours| ours.config), theirs.map(|theirs| theirs.config));
        pulling.bench.collect().await;
        assert_eq!((pulling.bench.snapshots().await.len(), pulling.bench.blobs().await.len()), (0, 2));
        pulling.bench.is_empty_without(&tag).await;
        pulling.end().await;
    }
}
