//! Several pulls at the same moment.

use std::time::Duration;

use stoker::types::ImageRef;

use super::asked_again;
use crate::faulty::{files, image, refs};
use crate::on_each_version::on_each_version;
use crate::parts::{FaultProxy, Registry, Version, until};
use crate::pulling::Pulling;

const SOON: Duration = Duration::from_secs(60);

on_each_version! {
    layers_that_images_share_are_asked_for_once
    an_image_of_several_names_is_brought_once
    a_kubelet_that_pulls_the_same_is_in_nobodys_way
}

/// A registry, reached through a proxy that shows what is asked.
async fn bed(version: Version) -> (Pulling, Registry, FaultProxy) {
    let (pulling, registry) = tokio::join!(Pulling::start_on(version), Registry::start());
    let proxy = FaultProxy::start(&registry.host());
    // 1.6 can't read a hosts.toml without a host.
    pulling.bench.containerd.trust(&registry.host(), &proxy.url());
    (pulling, registry, proxy)
}

mod scenario {
    use super::*;

    pub(super) async fn layers_that_images_share_are_asked_for_once(version: Version) {
        let (pulling, registry, proxy) = bed(version).await;
        let files = files();
        // The lowest three are the same, with another on top; then the same ones elsewhere, and one of them twice.
        let of = |numbers: &[usize]| {
            image(&numbers.iter().map(|&number| files[number].clone()).collect::<Vec<_>>())
        };
        let images = [of(&[0, 1, 2, 3]), of(&[0, 1, 2, 4]), of(&[2, 1, 0, 1])];
        let mut tags: Vec<ImageRef> = Vec::new();
        for (number, image) in images.iter().enumerate() {
            tags.push(
                registry.push(image, &format!("team/app-{number}"), "v1").await.by_tag().parse().unwrap(),
            );
        }
        let (one, two, three) =
            tokio::join!(pulling.pull(&tags[0]), pulling.pull(&tags[1]), pulling.pull(&tags[2]));
        for pulled in [one, two, three] {
            pulled.unwrap();
        }
        assert_eq!(asked_again(&proxy, &images.each_ref()), Default::default());
        pulling.bench.collect().await;
        assert_eq!(pulling.bench.snapshots().await.len(), 5 + 4);
        // Once all of them are gone, so is everything.
        for tag in &tags[1..] {
            pulling.bench.client.remove_image(tag).await.unwrap();
        }
        pulling.bench.collect().await;
        assert_eq!(pulling.bench.snapshots().await.len(), 4);
        pulling.bench.is_empty_without(&tags[0]).await;
        pulling.end().await;
    }

    pub(super) async fn an_image_of_several_names_is_brought_once(version: Version) {
        let (pulling, registry, proxy) = bed(version).await;
        let files = files();
        let image = image(&files);
        let pushed = registry.push(&image, "team/app", "v1").await;
        registry.push(&image, "team/app", "v2").await;
        registry.push(&image, "team/copy", "v1").await;
        let host = registry.host();
        let names: Vec<ImageRef> = [
            pushed.by_tag(),
            pushed.by_digest(),
            format!("{host}/team/app:v2"),
            format!("{host}/team/copy:v1"),
        ]
        .iter()
        .map(|name| name.parse().unwrap())
        .collect();
        let pulls = names.iter().map(|name| pulling.pull(name));
        for pulled in futures::future::join_all(pulls).await {
            pulled.unwrap();
        }
        // One of the repositories brings them.
        assert_eq!(asked_again(&proxy, &[&image]), Default::default());
        pulling.assert_holds(&image, &refs(&files)).await;
        for name in &names {
            let shown = pulling.bench.client.image_status(name).await.unwrap().unwrap();
            assert_eq!(shown.config, image.config_digest());
        }
        let layers: u64 = image.compressed_size();
        let sent = proxy.body_bytes();
        assert!(sent < layers + layers / 10, "{sent} bytes came of {layers}");
        pulling.end().await;
    }

    pub(super) async fn a_kubelet_that_pulls_the_same_is_in_nobodys_way(version: Version) {
        let (pulling, registry, proxy) = bed(version).await;
        let files = files();
        let image = image(&files);
        let pushed = registry.push(&image, "team/app", "v1").await;
        let tag: ImageRef = pushed.by_tag().parse().unwrap();
        let client = pulling.bench.client.clone();
        for round in 0..4 {
            // Now one of them is first, now the other, and how far it is differs.
            let begun = proxy.body_bytes() + image.compressed_size() * (round / 2) / 2;
            let come = async || (proxy.body_bytes() >= begun).then_some(());
            let under_way = async || until("some of it", SOON, come).await;
            let ours = async {
                if round % 2 == 1 {
                    under_way().await;
                }
                pulling.pull(&tag).await
            };
            let theirs = async {
                if round % 2 == 0 {
                    under_way().await;
                }
                client.pull_image(&tag, None).await
            };
            let (ours, theirs) = tokio::join!(ours, theirs);
            ours.unwrap_or_else(|error| panic!("round {round}: {}", stoker::rt::chain(&error)));
            theirs.unwrap_or_else(|error| panic!("round {round}: {}", stoker::rt::chain(&error)));
            pulling.assert_holds(&image, &refs(&files)).await;
            let shown = client.image_status(&tag).await.unwrap().unwrap();
            assert_eq!((shown.config, shown.pinned), (image.config_digest(), version.shows_pins()));
            pulling.bench.is_empty_without(&tag).await;
        }
        pulling.end().await;
    }
}
