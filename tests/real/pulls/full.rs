//! A disk that is too small, or becomes full in the middle.

use std::fs::File;
use std::time::Duration;

use stoker::types::{ErrorKind, ImageRef};

use crate::faulty::{files, image, refs};
use crate::parts::{Fault, FaultProxy, ImageBuilder, Layer, Options, Registry, Rule, Version, until};
use crate::pulling::Pulling;

const SOON: Duration = Duration::from_secs(60);

fn small_disk(mib: u32) -> Options {
    Options { root_mib: Some(mib), ..Options::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_cannot_fit_is_not_begun() {
    let (pulling, registry) =
        tokio::join!(Pulling::start_with(Version::newer(), small_disk(16)), Registry::start());
    pulling.hosts(&registry.host(), &[&registry.url()]);
    let image = image(&files());
    let tag: ImageRef = registry.push(&image, "team/app", "v1").await.by_tag().parse().unwrap();
    let error = pulling.pull(&tag).await.unwrap_err();
    let told = stoker::rt::chain(&error);
    assert_eq!((error.kind(), error.code()), (ErrorKind::NoSpace, "NoSpace"), "{told}");
    let layer = image.layers[0].digest.to_string();
    assert!(!registry.pulls().iter().any(|request| request.contains(&layer)), "{:?}", registry.pulls());
    pulling.assert_empty("an image that cannot fit").await;
    pulling.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_that_unpacks_to_more_than_the_disk_leaves_nothing() {
    let (pulling, registry) =
        tokio::join!(Pulling::start_with(Version::newer(), small_disk(48)), Registry::start());
    pulling.hosts(&registry.host(), &[&registry.url()]);
    let zeros = Layer::new().file("zeros", vec![0; 64 << 20], 0o644);
    let large = ImageBuilder::new().layer(Layer::new().file("small", "small", 0o644)).layer(zeros).build();
    let tag: ImageRef = registry.push(&large, "team/zeros", "v1").await.by_tag().parse().unwrap();
    let error = pulling.pull(&tag).await.unwrap_err();
    let told = stoker::rt::chain(&error);
    assert_eq!((error.kind(), error.code()), (ErrorKind::NoSpace, "NoSpace"), "{told}");
    pulling.assert_empty("zeros").await;

    // What fits still comes.
    let files = files();
    let image = image(&files[..2]);
    let tag: ImageRef = registry.push(&image, "team/app", "v1").await.by_tag().parse().unwrap();
    pulling.pull(&tag).await.unwrap();
    pulling.assert_holds(&image, &refs(&files[..2])).await;
    pulling.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_up_meanwhile_is_told_and_comes_right_with_room() {
    let (pulling, registry) =
        tokio::join!(Pulling::start_with(Version::newer(), small_disk(48)), Registry::start());
    let proxy = FaultProxy::start(&registry.host());
    pulling.hosts(&registry.host(), &[&proxy.url()]);
    let files = files();
    let image = image(&files);
    let tag: ImageRef = registry.push(&image, "team/app", "v1").await.by_tag().parse().unwrap();
    let top = image.layers.last().unwrap().digest;
    proxy.add(Rule::get(&format!("/blobs/{top}"), Fault::Stall(1000)).always());
    let filler = pulling.bench.containerd.root().join("filler");
    let fill = async {
        until("a pull under way", SOON, async || (proxy.stalled() > 0).then_some(())).await;
        // As large as it can be: nothing is left of the disk.
        let file = File::create(&filler).unwrap();
        let mut size = 64_u64 << 20;
        while size > 4096 {
            let there = file.metadata().unwrap().len();
            if rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), there, size).is_err() {
                size /= 2;
            }
        }
        proxy.clear();
    };
    let (pulled, ()) = tokio::join!(pulling.pull(&tag), fill);
    let error = pulled.unwrap_err();
    let told = stoker::rt::chain(&error);
    assert_eq!((error.kind(), error.code()), (ErrorKind::NoSpace, "NoSpace"), "{told}");
    std::fs::remove_file(filler).unwrap();
    pulling.pull(&tag).await.unwrap();
    pulling.assert_holds(&image, &refs(&files)).await;
    pulling.bench.is_empty_without(&tag).await;
    pulling.end().await;
}
