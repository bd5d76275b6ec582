//! A cache on a disk that is too small for all that was ever listed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use stoker::types::Digest;

use crate::node::{assert_current, bytes, code, leftovers, list};
use crate::parts::{Agent, Fault, Rule, Status, until};

use super::Bed;

pub(super) const MIB: usize = 1 << 20;

/// What is in use, and the room that there is, are looked at every so often.
pub(super) const PATIENT: Duration = Duration::from_secs(150);

/// A bed whose agent has a cache of 64 MiB, of which 6.4 stay free, and gives nothing time of grace.
pub(super) async fn small_bed() -> Bed {
    let bed = Bed::start().await;
    let agent = bed.agent.with_small_cache(64).env("STOKER_CACHE_GRACE", "0");
    Bed { agent, ..bed }
}

/// The entry of one file of so many MiB, and its bytes.
pub(super) fn entry(bed: &Bed, id: &str, mib: usize, more: &str) -> (String, Vec<u8>) {
    let weights = bytes(id.bytes().map(u64::from).sum(), mib * MIB);
    let path = format!("{id}.bin");
    bed.nginx.put(&path, &weights);
    (format!("{}{more}", bed.with_digest(id, &path, &weights)), weights)
}

/// Where the blob of these bytes is.
pub(super) fn blob(agent: &Agent, weights: &[u8]) -> PathBuf {
    let digest = Digest::of(weights).hex();
    agent.cache().join("v1/blobs/sha256").join(&digest[..2]).join(digest)
}

pub(super) async fn names_go(agent: &Agent, id: &str) {
    let names = agent.cache().join("weights").join(id);
    until("its names to go", PATIENT, async || (!names.exists()).then_some(())).await;
}

/// Leaves so many MiB of the disk to others.
fn fill(dir: &Path, leave: usize) -> PathBuf {
    let disk = rustix::fs::statvfs(dir).unwrap();
    let path = dir.join("filler");
    let file = std::fs::File::create(&path).unwrap();
    let size = disk.f_bavail * disk.f_frsize - (leave * MIB) as u64;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size).unwrap();
    path
}

#[tokio::test]
async fn a_newcomer_takes_the_room_of_what_was_longest_unneeded() {
    let mut bed = small_bed().await;
    let (a, a_bytes) = entry(&bed, "a", 12, "");
    let (b, b_bytes) = entry(&bed, "b", 12, "");
    let (c, c_bytes) = entry(&bed, "c", 12, "");
    let (d, d_bytes) = entry(&bed, "d", 30, "");
    bed.agent.write_list(&list(&[&a, &b, &c]));
    bed.agent.start().await;
    bed.agent.wait_for("all three", PATIENT, |status| status.entries.len() == 3 && status.all_warm()).await;
    // b leaves before a, so that neither names nor ages are alphabetical.
    bed.agent.write_list(&list(&[&a, &c]));
    names_go(&bed.agent, "b").await;
    bed.agent.write_list(&list(&[&c]));
    names_go(&bed.agent, "a").await;
    assert!(blob(&bed.agent, &a_bytes).exists() && blob(&bed.agent, &b_bytes).exists(), "room is there");
    // When they were last needed outlives the agent.
    bed.agent.kill9();
    bed.agent.start().await;

    bed.agent.write_list(&list(&[&c, &d]));
    bed.agent
        .wait_for("the newcomer", PATIENT, |status| status.entries.len() == 2 && status.all_warm())
        .await;
    assert_current(&bed.agent, "d", &[("d.bin", &d_bytes)]);
    assert_current(&bed.agent, "c", &[("c.bin", &c_bytes)]);
    assert!(!blob(&bed.agent, &b_bytes).exists(), "the longest unneeded is gone");
    assert!(blob(&bed.agent, &a_bytes).exists(), "the other one need not go");
    let manifests = std::fs::read_dir(bed.agent.cache().join("v1/revisions")).unwrap().count();
    assert_eq!(manifests, 3, "its manifest went with it");
    assert_eq!(leftovers(&bed.agent), Vec::<String>::new());
}

#[tokio::test]
async fn a_limit_of_its_own_is_kept_on_a_large_disk() {
    let bed = Bed::start().await;
    let agent = bed.agent.env("STOKER_CACHE_GRACE", "0").env("STOKER_CACHE_MAX", "20Mi");
    let mut bed = Bed { agent, ..bed };
    let (a, a_bytes) = entry(&bed, "a", 12, "");
    let (b, b_bytes) = entry(&bed, "b", 12, "");
    bed.agent.write_list(&list(&[&a]));
    bed.agent.start().await;
    bed.agent.wait_entry("a", "Warm", PATIENT).await;
    bed.agent.write_list(&list(&[&a, &b]));
    let full = |status: &Status| code(status, "b").as_deref() == Some("NoSpace");
    let status = bed.agent.wait_for("that one fits", PATIENT, full).await;
    let message = &status.entry("b").unwrap().reason.as_ref().unwrap().message;
    assert!(message.contains("--cache-max") && message.contains("12582912"), "{message}");
    assert!(blob(&bed.agent, &a_bytes).exists());
    bed.agent.write_list(&list(&[&b]));
    bed.agent.wait_for("the other", PATIENT, |status| status.entries.len() == 1 && status.all_warm()).await;
    assert_current(&bed.agent, "b", &[("b.bin", &b_bytes)]);
    assert!(!blob(&bed.agent, &a_bytes).exists());
}

#[tokio::test]
async fn the_less_urgent_gives_way_label_first_and_comes_back() {
    let mut bed = small_bed().await;
    let (low, low_bytes) = entry(&bed, "low", 20, ", priority: 100");
    let (mid, _) = entry(&bed, "mid", 20, ", priority: 500");
    let (high, high_bytes) = entry(&bed, "high", 30, ", priority: 900");
    bed.agent.write_list(&list(&[&low, &mid]));
    bed.agent.start().await;
    bed.agent.wait_for("both", PATIENT, |status| status.entries.len() == 2 && status.all_warm()).await;

    bed.agent.write_list(&list(&[&low, &mid, &high]));
    let names = bed.agent.cache().join("weights/low");
    let gone = async || {
        // In this order: what is missing was missing before it was asked which labels there are.
        let missing = !names.exists() || !blob(&bed.agent, &low_bytes).exists();
        let status = bed.agent.status().await?;
        let labelled = status.labels.contains_key("weights.stoker.dev/low");
        assert!(!(missing && labelled), "a label for bytes that aren't there: {status:?}");
        missing.then_some(status)
    };
    let status = until("that it gives way", PATIENT, gone).await;
    assert_eq!(code(&status, "low").as_deref(), Some("GivesWay"), "{status:?}");
    bed.agent.wait_entry("high", "Warm", PATIENT).await;
    assert_current(&bed.agent, "high", &[("high.bin", &high_bytes)]);
    let status = bed
        .agent
        .wait_for("that it waits", PATIENT, |status| code(status, "low").as_deref() == Some("NoSpace"));
    let status = status.await;
    assert!(
        status.labels.contains_key("weights.stoker.dev/mid"),
        "the more urgent of the two stays: {status:?}"
    );

    bed.agent.write_list(&list(&[&low, &mid]));
    bed.agent.wait_for("its return", PATIENT, |status| status.entries.len() == 2 && status.all_warm()).await;
    assert_current(&bed.agent, "low", &[("low.bin", &low_bytes)]);
}

#[tokio::test]
async fn a_disk_that_somebody_else_fills_in_mid_flight_is_waited_for() {
    let mut bed = small_bed().await;
    let files: Vec<(String, Vec<u8>)> = (0..6).map(|n| (format!("f{n}.bin"), bytes(n, 5 * MIB))).collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (&**name, &**bytes)).collect();
    for (name, bytes) in &files {
        bed.nginx.put(&format!("set/{name}"), bytes);
    }
    bed.nginx.put("set/index.json", crate::node::index(&files));
    // Four files are under way and have their room; the others come when it's gone.
    bed.http.add(Rule::get(".bin", Fault::Stall(1000)).always());
    bed.agent.write_list(&list(&[&format!("{}, index: true", bed.bare("set", "set/index.json"))]));
    bed.agent.start().await;
    // What is late is asked for twice.
    let under_way = || -> BTreeSet<String> {
        let stalled = bed.http.seen().into_iter().filter(|seen| seen.fault.is_some());
        stalled.map(|seen| seen.path).collect()
    };
    until("four under way", PATIENT, async || (under_way().len() >= 4).then_some(())).await;
    let filler = fill(&bed.agent.cache(), 2);
    bed.http.clear();
    let full = |status: &Status| code(status, "set").as_deref() == Some("NoSpace");
    let status = bed.agent.wait_for("that it says so", PATIENT, full).await;
    // It may have been let in, and refused, once more since the disk filled up under it.
    let reason = status.entry("set").unwrap().reason.as_ref().unwrap();
    assert!(reason.message.contains("it goes on when there is room"), "{reason:?}");
    assert!(!status.labels.contains_key("weights.stoker.dev/set"), "{status:?}");

    std::fs::remove_file(filler).unwrap();
    bed.agent.wait_entry("set", "Warm", PATIENT).await;
    assert_current(&bed.agent, "set", &files);
    assert_eq!(leftovers(&bed.agent), Vec::<String>::new());
}

#[tokio::test]
async fn a_kill_while_room_is_made_leaves_nothing_half() {
    let mut bed = small_bed().await;
    let files: Vec<(String, Vec<u8>)> = (0..300).map(|n| (format!("f{n}.bin"), bytes(n, 100_000))).collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (&**name, &**bytes)).collect();
    for (name, bytes) in &files {
        bed.nginx.put(&format!("many/{name}"), bytes);
    }
    bed.nginx.put("many/index.json", crate::node::index(&files));
    let many = format!("{}, index: true", bed.bare("many", "many/index.json"));
    let (big, big_bytes) = entry(&bed, "big", 50, "");
    // Some 220 of them have to go.
    for left in [299, 200, 100] {
        bed.agent.write_list(&list(&[&many]));
        bed.agent.start().await;
        bed.agent
            .wait_for("the many", PATIENT, |status| status.entries.len() == 1 && status.all_warm())
            .await;
        assert_current(&bed.agent, "many", &files);
        bed.agent.write_list(&list(&[&big]));
        let blobs = || files.iter().filter(|(_, bytes)| blob(&bed.agent, bytes).exists()).count();
        until("room being made", PATIENT, async || (blobs() <= left).then_some(())).await;
        bed.agent.kill9();
        for (name, bytes) in files.iter().filter(|(_, bytes)| blob(&bed.agent, bytes).exists()) {
            let found = std::fs::read(blob(&bed.agent, bytes)).unwrap();
            assert!(found == *bytes, "{name} is half there");
        }
    }
    bed.agent.start().await;
    bed.agent.wait_for("the big one", PATIENT, |status| status.entries.len() == 1 && status.all_warm()).await;
    assert_current(&bed.agent, "big", &[("big.bin", &big_bytes)]);
    assert_eq!(leftovers(&bed.agent), Vec::<String>::new());
}

#[tokio::test]
async fn on_a_disk_of_the_kubelets_it_shrinks_to_the_low_water_mark() {
    let bed = small_bed().await;
    // The disk is the one that the host's kubelet has its directory on.
    let host = bed.agent.scratch().dir("host/var/lib");
    std::os::unix::fs::symlink(bed.agent.cache(), host.join("kubelet")).unwrap();
    let host = bed.agent.scratch().join("host");
    let agent = bed.agent.arg("--host-root").arg(&host).env("STOKER_IMAGE_GC_HIGH_THRESHOLD", "60");
    let mut bed = Bed { agent, ..bed };
    let (a, a_bytes) = entry(&bed, "a", 8, "");
    let (b, b_bytes) = entry(&bed, "b", 8, "");
    bed.agent.write_list(&list(&[&a, &b]));
    bed.agent.start().await;
    bed.agent.wait_for("both", PATIENT, |status| status.entries.len() == 2 && status.all_warm()).await;
    bed.agent.write_list(&list(&[&b]));
    names_go(&bed.agent, "a").await;
    assert!(blob(&bed.agent, &a_bytes).exists());
    let filler = fill(&bed.agent.cache(), 20);
    until("that it shrinks", PATIENT, async || (!blob(&bed.agent, &a_bytes).exists()).then_some(())).await;
    let status = bed.agent.status().await.unwrap();
    assert!(status.all_warm(), "what is listed stays, {status:?}");
    assert_current(&bed.agent, "b", &[("b.bin", &b_bytes)]);
    std::fs::remove_file(filler).unwrap();
}

#[tokio::test]
async fn a_disk_that_goes_takes_its_labels_with_it() {
    let bed = Bed::start().await;
    let (disk, place) = (bed.agent.scratch().dir("disk"), bed.agent.scratch().dir("cache"));
    let bind = || rustix::mount::mount_bind(&disk, &place).unwrap();
    bind();
    let mut bed = bed;
    let (a, a_bytes) = entry(&bed, "a", 1, "");
    bed.agent.write_list(&list(&[&a]));
    bed.agent.start().await;
    bed.agent.wait_entry("a", "Warm", PATIENT).await;
    rustix::mount::unmount(&place, rustix::mount::UnmountFlags::DETACH).unwrap();
    let moved = |status: &Status| code(status, "a").as_deref() == Some("CacheMoved");
    let status = bed.agent.wait_for("that it's noticed", PATIENT, moved).await;
    assert!(!status.labels.contains_key("weights.stoker.dev/a"), "{status:?}");
    let left: Vec<_> = std::fs::read_dir(&place).unwrap().collect();
    assert!(left.is_empty(), "nothing is written where the disk was: {left:?}");
    bind();
    bed.agent.wait_entry("a", "Warm", PATIENT).await;
    assert_current(&bed.agent, "a", &[("a.bin", &a_bytes)]);
}
