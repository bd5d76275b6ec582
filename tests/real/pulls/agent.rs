//! The agent itself, killed again and again.

use crate::commit::bench::Bench;
use crate::faulty::{files, image};
use crate::node::{SOON, agent, list};
use crate::parts::{FaultProxy, Gpus, Registry, Version, until};

const KILLS: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_twenty_instants_it_ends_warm_and_leaves_nothing_on_the_newer() {
    killed(Version::newer()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_twenty_instants_it_ends_warm_and_leaves_nothing_on_the_older() {
    killed(Version::older()).await;
}

async fn killed(version: Version) {
    let (gpus, bench, registry) = (Gpus::healthy(1), Bench::start(version).await, Registry::start().await);
    let proxy = FaultProxy::start(&registry.host());
    bench.containerd.trust(&registry.host(), &proxy.url());
    let image = image(&files());
    let pushed = registry.push(&image, "team/app", "v1").await;
    let mut agent =
        agent(&gpus).env("STOKER_CONTAINERD_ADDRESS", bench.containerd.address().to_str().unwrap());
    agent.write_list(&list(&[&format!("id: app, image: \"{}\"", pushed.by_tag())]));
    let whole = image.compressed_size();
    // Slow enough that instants can be told apart.
    proxy.throttle(Some(2 * whole));
    for kill in 0..KILLS {
        let enough = proxy.body_bytes() + fastrand::u64(0..whole * (kill + 1) / KILLS);
        agent.spawn();
        // Some of the last ones are killed while they name things, or when all is done.
        let warm = async || agent.status().await.is_some_and(|status| status.all_warm());
        let come = async || (proxy.body_bytes() >= enough || warm().await).then_some(());
        until("some of it", SOON, come).await;
        agent.kill9();
    }
    proxy.throttle(None);
    agent.start().await;
    agent.wait_entry("app", "Warm", SOON).await;
    agent.stop(SOON).await;
    let reference = pushed.by_tag().parse().unwrap();
    bench.collect().await;
    assert_eq!(bench.snapshots().await.len(), image.layers.len());
    assert_eq!(bench.blobs().await.len(), image.layers.len() + 3);
    let shown = bench.client.image_status(&reference).await.unwrap().unwrap();
    assert_eq!((shown.config, shown.pinned), (image.config_digest(), version.shows_pins()));
    bench.is_empty_without(&reference).await;
}
