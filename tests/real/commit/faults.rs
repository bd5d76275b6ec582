//! Crashes, collections and races in the middle of making an image.

use std::sync::Arc;
use std::time::Duration;

use stoker::containerd::Containerd as Client;
use stoker::image::Workplaces;
use stoker::types::ImageRef;

use super::SOON;
use super::bench::{Bench, chains, descriptors, small};
use crate::on_each_version::on_each_version;
use crate::parts::{Layer, Registry, Version, until};

on_each_version! {
    what_is_half_made_outlives_a_collection_and_goes_when_it_is_given_up
    a_crash_in_the_middle_leaves_nothing_that_is_in_the_way
    a_directory_that_a_killed_containerd_left_is_not_in_the_way
    killed_at_any_instant_a_second_run_makes_it
    images_with_the_same_layers_at_once
    a_native_pull_at_the_same_moment
    an_old_lease_is_replaced_and_one_that_ran_out_is_noticed
}

fn reference(name: &str) -> ImageRef {
    format!("example.com/team/{name}:v1").parse().unwrap()
}

mod scenario {
    use super::*;

    pub(super) async fn what_is_half_made_outlives_a_collection_and_goes_when_it_is_given_up(
        version: Version,
    ) {
        let bench = Bench::start(version).await;
        let image = small(&["a", "b", "c"]).build();
        let workplace = bench.open(&image).await;
        bench.make_layer(&workplace, &image, 0, &reference("app")).await.unwrap();
        let (scratch, layer) = bench.unpack(&workplace, &image, 1).await.unwrap();
        bench.collect().await;
        assert_eq!(bench.snapshots().await.len(), 2);
        assert_eq!(bench.blobs().await.len(), 1);
        workplace.commit(scratch, &layer).await.unwrap();
        assert!(workplace.holds(chains(&image)[1]).await.unwrap());
        assert!(!workplace.holds(chains(&image)[2]).await.unwrap());
        bench.collect().await;
        assert_eq!(bench.snapshots().await.len(), 2, "the scratch one has gone");
        workplace.abandon().await;
        assert_eq!((bench.snapshots().await, bench.blobs().await), Default::default());
    }

    pub(super) async fn a_crash_in_the_middle_leaves_nothing_that_is_in_the_way(version: Version) {
        let mut bench = Bench::start(version).await;
        let (image, name) = (small(&["a", "b", "c"]).build(), reference("app"));
        let workplace = bench.open(&image).await;
        bench.make_layer(&workplace, &image, 0, &name).await.unwrap();
        let (left, _) = bench.unpack(&workplace, &image, 1).await.unwrap();
        let blob = descriptors(&image).layers[1].clone();
        let mut half = workplace.write_blob(&blob).await.unwrap().expect("a new blob");
        half.write(b"half of it, and wrong").await.unwrap();
        drop((half, workplace));
        bench.containerd.kill9();
        bench.containerd.restart().await;

        let workplace = bench.open(&image).await;
        bench.collect().await;
        assert_eq!(bench.snapshots().await.len(), 1, "the layer that was committed");
        assert!(!left.dir.exists());
        assert!(workplace.holds(chains(&image)[0]).await.unwrap());
        drop(workplace);
        bench.make(&image, &name, false).await.unwrap();
        bench.collect().await;
        assert_eq!(bench.snapshots().await.len(), 3);
        assert_eq!(bench.blobs().await.len(), 5);
        bench.is_empty_without(&name).await;
    }

    pub(super) async fn a_directory_that_a_killed_containerd_left_is_not_in_the_way(version: Version) {
        let bench = Bench::start(version).await;
        let (image, name) = (small(&["a", "b"]).build(), reference("app"));
        let workplace = bench.open(&image).await;
        let first = workplace.scratch().await.unwrap();
        let number = first.dir.parent().and_then(|dir| dir.file_name()?.to_str()?.parse().ok());
        let number: u32 = number.expect("snapshots/N/fs");
        // The numbers of the next two snapshots, as a containerd leaves them that dies before it writes them down.
        for next in [number + 1, number + 2] {
            std::fs::create_dir_all(bench.containerd.snapshots().join(format!("{next}/fs"))).unwrap();
        }
        workplace.scratch().await.unwrap();
        drop(workplace);
        bench.make(&image, &name, false).await.unwrap();
        bench.is_empty_without(&name).await;
    }

    pub(super) async fn killed_at_any_instant_a_second_run_makes_it(version: Version) {
        let mut bench = Bench::start(version).await;
        let image = Arc::new(small(&["a", "b", "c", "d", "e", "f"]).build());
        let name = reference("app");
        // As long as it takes undisturbed, so that the instants are spread over all of it.
        let start = tokio::time::Instant::now();
        bench.make(&image, &name, true).await.unwrap();
        let whole = start.elapsed();
        bench.is_empty_without(&name).await;
        for round in 0..5 {
            let (maker, building, as_name) = (bench.maker.clone(), Arc::clone(&image), name.clone());
            let making = tokio::spawn(async move { maker.make(&building, &as_name, true).await });
            tokio::time::sleep(whole * round / 5 + whole.mul_f64(fastrand::f64() / 5.0)).await;
            // One time it is only containerd that dies, one time we do, too.
            if round % 2 == 0 {
                making.abort();
            }
            bench.containerd.kill9();
            let outcome = making.await;
            bench.containerd.restart().await;
            bench.make(&image, &name, true).await.unwrap_or_else(|error| panic!("{outcome:?}: {error}"));
            bench.collect().await;
            assert_eq!(bench.known_snapshots().await.len(), 6, "{outcome:?}");
            assert_eq!(bench.blobs().await.len(), 8, "{outcome:?}");
            let shown = bench.client.image_status(&name).await.unwrap().unwrap();
            assert_eq!(shown.pinned, version.shows_pins());
            bench.is_empty_without(&name).await;
        }
    }

    pub(super) async fn images_with_the_same_layers_at_once(version: Version) {
        let bench = Bench::start(version).await;
        let (one, other) =
            (small(&["a", "b", "c", "d", "e"]).build(), small(&["a", "b", "c", "d", "f"]).build());
        for _ in 0..4 {
            let names = ["one", "other", "again"].map(reference);
            let (first, second, third) = tokio::join!(
                bench.make(&one, &names[0], false),
                bench.make(&other, &names[1], false),
                // The very same image under another name.
                bench.make(&one, &names[2], false),
            );
            first.and(second).and(third).unwrap();
            bench.collect().await;
            assert_eq!(bench.snapshots().await.len(), 6);
            assert_eq!(bench.blobs().await.len(), 6 + 4);
            for name in &names {
                assert!(bench.client.image_status(name).await.unwrap().is_some());
            }
            bench.client.remove_image(&names[1]).await.unwrap();
            bench.collect().await;
            assert_eq!(bench.snapshots().await.len(), 5);
            // All names of one image go together.
            bench.is_empty_without(&names[0]).await;
        }
    }

    pub(super) async fn a_native_pull_at_the_same_moment(version: Version) {
        let registry = Registry::start().await;
        let bench = Bench::start(version).await;
        bench.containerd.trust(&registry.host(), &registry.url());
        let image = small(&["a", "b", "c", "d", "e", "f"]).with_index().build();
        let pushed = registry.push(&image, "team/app", "v1").await;
        let name: ImageRef = pushed.by_tag().parse().unwrap();
        let native = Client::new(&bench.containerd.address());
        for round in 0..6 {
            // By turns one and the other has a head start.
            let (ours, theirs) = if round % 2 == 0 {
                tokio::join!(bench.make(&image, &name, true), native.pull_image(&name, None))
            } else {
                let (theirs, ours) =
                    tokio::join!(native.pull_image(&name, None), bench.make(&image, &name, true));
                (ours, theirs)
            };
            ours.unwrap();
            assert_eq!(theirs.unwrap(), image.config_digest());
            bench.collect().await;
            assert_eq!(bench.snapshots().await.len(), 6);
            let shown = bench.client.image_status(&name).await.unwrap().unwrap();
            assert_eq!((shown.tags, shown.digests), (vec![pushed.by_tag()], vec![pushed.by_digest()]));
            bench.is_empty_without(&name).await;
        }
    }

    pub(super) async fn an_old_lease_is_replaced_and_one_that_ran_out_is_noticed(version: Version) {
        let mut bench = Bench::start(version).await;
        let (image, name) = (small(&["a", "b"]).build(), reference("app"));
        let workplace = bench.open(&image).await;
        bench.make_layer(&workplace, &image, 0, &name).await.unwrap();
        drop(workplace);
        bench.maker.workplaces = Workplaces::relying_on_leases_for(Duration::ZERO);
        let workplace = bench.open(&image).await;
        assert_eq!((bench.snapshots().await, bench.blobs().await), Default::default());
        drop(workplace);

        bench.maker.workplaces = Workplaces::default();
        let lease = format!("stoker-{}", image.manifest_digest());
        let left = bench.client.lease(&lease).await.unwrap().expect("the new lease");
        bench.client.delete_lease(&left, true).await.unwrap();
        // It runs out while we are at work, and the next collection takes it.
        let gone = bench.client.create_lease(&lease, Duration::ZERO).await.unwrap();
        assert_eq!(gone.expect("a new lease").id(), lease);
        assert!(bench.client.create_lease(&lease, Duration::ZERO).await.unwrap().is_none());
        let workplace = bench.open(&image).await;
        let collected = async || {
            bench.collect().await;
            bench.client.lease(&lease).await.unwrap().is_none().then_some(())
        };
        // A collection of containerd's own may be first.
        let error = match bench.make_layer(&workplace, &image, 0, &name).await {
            Err(error) => error,
            Ok(_) => {
                until("the lease to run out", SOON, collected).await;
                bench.make_layer(&workplace, &image, 1, &name).await.unwrap_err()
            }
        };
        assert!(stoker::rt::chain(&error).contains("lease"), "{error}");
        drop(workplace);
        bench.make(&image, &name, false).await.unwrap();
        bench.is_empty_without(&name).await;
    }
}

/// Nothing is committed then, and a second run makes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_that_cannot_be_put_in_its_place_is_told() {
    let bench = Bench::start(Version::V2_4).await;
    let image = small(&["a"]).layer(Layer::new().file("deep/b", "b", 0o644)).build();
    let workplace = bench.open(&image).await;
    bench.make_layer(&workplace, &image, 0, &reference("app")).await.unwrap();
    let (scratch, layer) = bench.unpack(&workplace, &image, 1).await.unwrap();
    // An implied directory that isn't there: the tree was changed under us.
    std::fs::remove_dir_all(scratch.dir.join("deep")).unwrap();
    std::os::unix::fs::symlink("/etc", scratch.dir.join("deep")).unwrap();
    let error = workplace.commit(scratch, &layer).await.unwrap_err();
    assert_eq!(error.code(), "CommitFailed");
    assert!(error.to_string().contains(&layer.chain.to_string()), "{error}");
    assert!(!workplace.holds(layer.chain).await.unwrap());
    drop(workplace);
    bench.make(&image, &reference("app"), false).await.unwrap();
    bench.is_empty_without(&reference("app")).await;
}
