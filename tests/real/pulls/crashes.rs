//! containerd collects its garbage, or dies, in the middle of a pull.

use std::time::Duration;

use stoker::types::ImageRef;

use crate::faulty::{files, image, refs};
use crate::on_each_version::on_each_version;
use crate::parts::{Fault, FaultProxy, ImageBuilder, Layer, Registry, Rule, Version, until};
use crate::pulling::Pulling;

const SOON: Duration = Duration::from_secs(60);

on_each_version! {
    a_collection_takes_nothing_of_what_is_under_way
    a_containerd_that_is_killed_is_pulled_into_again
    blobs_that_are_there_are_not_fetched
    layers_at_the_bottom_stand_while_the_others_come
}

mod scenario {
    use super::*;

    pub(super) async fn a_collection_takes_nothing_of_what_is_under_way(version: Version) {
        let (pulling, registry) = tokio::join!(Pulling::start_on(version), Registry::start());
        let proxy = FaultProxy::start(&registry.host());
        pulling.bench.containerd.trust(&registry.host(), &proxy.url());
        let files = files();
        let image = image(&files);
        let pushed = registry.push(&image, "team/app", "v1").await;
        let tag: ImageRef = pushed.by_tag().parse().unwrap();
        // The lowest layer comes last, so that none of the others has its name before.
        proxy.add(Rule::get(&format!("/blobs/{}", image.layers[0].digest), Fault::Stall(1000)).always());
        let others: u64 = image.layers[1..].iter().map(|layer| layer.size).sum();
        let collected = async {
            let most = async || (proxy.stalled() > 0 && proxy.body_bytes() >= others).then_some(());
            until("the other layers", SOON, most).await;
            for _ in 0..3 {
                pulling.bench.collect().await;
            }
            proxy.clear();
            for _ in 0..10 {
                pulling.bench.collect().await;
            }
        };
        let (pulled, ()) = tokio::join!(pulling.pull(&tag), collected);
        pulled.unwrap();
        pulling.assert_holds(&image, &refs(&files)).await;
        pulling.bench.is_empty_without(&tag).await;
        pulling.end().await;
    }

    pub(super) async fn a_containerd_that_is_killed_is_pulled_into_again(version: Version) {
        let (mut pulling, registry) = tokio::join!(Pulling::start_on(version), Registry::start());
        let proxy = FaultProxy::start(&registry.host());
        pulling.bench.containerd.trust(&registry.host(), &proxy.url());
        let files = files();
        let image = image(&files);
        let tag: ImageRef = registry.push(&image, "team/app", "v1").await.by_tag().parse().unwrap();
        let whole = image.compressed_size();
        for round in 0..6 {
            let (before, part) =
                (proxy.body_bytes(), fastrand::u64(whole * round / 6..whole * (round + 1) / 6));
            let pull = pulling.spawn(&tag);
            let come = async || (pull.is_finished() || proxy.body_bytes() >= before + part).then_some(());
            until("some of it", SOON, come).await;
            pulling.bench.containerd.kill9();
            let outcome = pull.await.unwrap().map_err(|error| stoker::rt::chain(&error));
            pulling.bench.containerd.restart().await;
            let again = pulling.pull(&tag).await.map_err(|error| stoker::rt::chain(&error));
            assert!(again.is_ok(), "{part} bytes, {outcome:?}: {again:?}");
            pulling.bench.collect().await;
            assert_eq!(pulling.bench.known_snapshots().await.len(), image.layers.len(), "{part} {outcome:?}");
            assert_eq!(pulling.bench.blobs().await.len(), image.layers.len() + 3, "{part} {outcome:?}");
            pulling.bench.is_empty_without(&tag).await;
        }
        pulling.end().await;
    }

    pub(super) async fn blobs_that_are_there_are_not_fetched(version: Version) {
        let (pulling, registry) = tokio::join!(Pulling::start_on(version), Registry::start());
        let proxy = FaultProxy::start(&registry.host());
        pulling.bench.containerd.trust(&registry.host(), &proxy.url());
        let files = files();
        let image = image(&files);
        let tag: ImageRef = registry.push(&image, "team/app", "v1").await.by_tag().parse().unwrap();
        pulling.pull(&tag).await.unwrap();
        for chain in crate::commit::bench::chains(&image).iter().rev() {
            // A collection may be faster with those below.
            pulling.bench.containerd.ctr(&["snapshots", "rm", &chain.to_string()]).await;
        }
        assert!(pulling.bench.known_snapshots().await.is_empty());
        let blobs = || proxy.seen().iter().filter(|seen| seen.path.contains("/blobs/")).count();
        let before = blobs();
        assert!(pulling.pull(&tag).await.unwrap().pulled);
        assert_eq!(blobs(), before, "{:?}", proxy.seen());
        pulling.assert_holds(&image, &refs(&files)).await;
        pulling.bench.is_empty_without(&tag).await;
        pulling.end().await;
    }

    pub(super) async fn layers_at_the_bottom_stand_while_the_others_come(version: Version) {
        let (mut pulling, registry) = tokio::join!(Pulling::start_on(version), Registry::start());
        let proxy = FaultProxy::start(&registry.host());
        pulling.bench.containerd.trust(&registry.host(), &proxy.url());
        let layer = |number: u8| {
            let bytes: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(50_000).collect();
            Layer::new().file(&format!("file-{number}"), bytes, 0o644)
        };
        let image = (0..12).fold(ImageBuilder::new(), |image, number| image.layer(layer(number))).build();
        let tag: ImageRef = registry.push(&image, "team/app", "v1").await.by_tag().parse().unwrap();
        let path = |layer: usize| format!("/blobs/{}", image.layers[layer].digest);
        proxy.add(Rule::get(&path(11), Fault::Stall(1000)).always());
        let pull = pulling.spawn(&tag);
        let chains = crate::commit::bench::chains(&image);
        let stands = async || {
            let known = pulling.bench.known_snapshots().await;
            chains[..8].iter().all(|chain| known.contains(&chain.to_string())).then_some(())
        };
        until("two thirds of the layers", SOON, stands).await;
        assert!(!pull.is_finished());

        // Whoever dies now has done that much.
        pulling.bench.containerd.kill9();
        pull.await.unwrap().unwrap_err();
        proxy.clear();
        pulling.bench.containerd.restart().await;
        // The registry writes a request down when it's over, which may be later than the pull.
        let before = proxy.seen().len();
        pulling.pull(&tag).await.unwrap();
        let asked: Vec<String> = proxy.seen().split_off(before).into_iter().map(|seen| seen.path).collect();
        let asked = asked.join("\n");
        assert!((0..8).all(|layer| !asked.contains(&path(layer))), "{asked}");
        pulling.bench.collect().await;
        assert_eq!(pulling.bench.snapshots().await.len(), 12);
        assert_eq!(pulling.bench.blobs().await.len(), 12 + 2);
        pulling.bench.is_empty_without(&tag).await;
        pulling.end().await;
    }
}
