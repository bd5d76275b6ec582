//! Images on a disk that becomes nearly full.

use std::fs::File;

use crate::node::{SOON, agent, code, list, our_pins, push};
use crate::parts::{Containerd, Gpus, Options, Registry, Status, Version, until};

/// Makes the disk below `dir` so full, in percent, with one file, which it gives.
fn fill(dir: &std::path::Path, percent: u64) -> std::path::PathBuf {
    let disk = rustix::fs::statvfs(dir).unwrap();
    let (total, free) = (disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize);
    let path = dir.join("filler");
    let file = File::create(&path).unwrap();
    let size = free - total * (100 - percent) / 100;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size).unwrap();
    path
}

#[tokio::test]
async fn images_that_are_not_required_give_way_and_come_back() {
    let gpus = Gpus::healthy(1);
    let small = Options { root_mib: Some(64), ..Options::default() };
    let (containerd, registry) =
        tokio::join!(Containerd::start_with(Version::newer(), small), Registry::start());
    containerd.trust(&registry.host(), &registry.url());
    let (must, least) =
        (push(&registry, "team/must", "must").await, push(&registry, "team/least", "least").await);
    let mut agent = agent(&gpus)
        .env("STOKER_CONTAINERD_ADDRESS", containerd.address().to_str().unwrap())
        .env("STOKER_IMAGE_GC_HIGH_THRESHOLD", "60");
    agent.write_list(&list(&[
        &format!("id: must, image: \"{}\", required: true", must.by_tag()),
        &format!("id: least, image: \"{}\"", least.by_tag()),
    ]));
    agent.start().await;
    agent.wait_for("warmth", SOON, |status| status.all_warm() && status.done).await;
    let of = |pins: &[String], name: &str| pins.iter().any(|pin| pin.contains(name));
    let pins = our_pins(&containerd).await;
    assert!(of(&pins, "team/must") && of(&pins, "team/least"), "{pins:?}");
    let pulls = registry.pulls().len();

    let filler = fill(&containerd.root(), 62);
    let gave_way = |status: &Status| code(status, "least").as_deref() == Some("DiskPressure");
    let status = agent.wait_for("that it gives way", SOON, gave_way).await;
    let entry = status.entry("least").unwrap();
    assert_eq!(entry.state, "Pending");
    let message = &entry.reason.as_ref().unwrap().message;
    assert!(message.contains("from 60 % on"), "{message}");
    assert!(!status.labels.contains_key("image.stoker.dev/least"), "{status:?}");
    assert!(status.labels.contains_key("image.stoker.dev/must") && status.ready, "{status:?}");
    let unpinned = async || {
        let pins = our_pins(&containerd).await;
        (!of(&pins, "team/least") && of(&pins, "team/must")).then_some(())
    };
    until("its pin to be off", SOON, unpinned).await;

    std::fs::remove_file(filler).unwrap();
    let status = agent.wait_for("warmth", SOON, |status| status.all_warm() && status.done).await;
    assert!(status.labels.contains_key("image.stoker.dev/least"), "{status:?}");
    let pinned = async || of(&our_pins(&containerd).await, "team/least").then_some(());
    until("its pin", SOON, pinned).await;
    let again: Vec<String> = registry.pulls().split_off(pulls);
    assert!(again.iter().all(|request| !request.contains("/blobs/")), "{again:?}");
}
