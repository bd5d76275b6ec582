//! What is stored once, what is picked up anew, and what names may look like.

use std::os::unix::fs::MetadataExt as _;

use crate::node::{BUCKET, SOON, assert_current, blobs, bytes, code, index, label_of, leftovers, list, said};
use crate::parts::{Status, until};

use super::{Bed, gets};

#[tokio::test]
async fn a_file_that_two_entries_share_is_fetched_and_stored_once() {
    let mut bed = Bed::start().await;
    let (shared, own) = (bytes(1, 2_000_000), bytes(2, 1000));
    bed.nginx.put("a/shared.bin", &shared);
    bed.nginx.put("a/own.bin", &own);
    bed.nginx.put("a/index.json", index(&[("shared.bin", &shared), ("own.bin", &own)]));
    bed.nginx.put("b/index.json", index(&[("shared.bin", &shared)]));
    bed.nginx.put("b/shared.bin", &shared);
    bed.agent.write_list(&list(&[
        &format!("{}, index: true", bed.bare("a", "a/index.json")),
        &format!("{}, index: true", bed.bare("b", "b/index.json")),
    ]));
    bed.agent.start().await;
    bed.agent.wait_for("both", SOON, |status| status.entries.len() == 2 && status.all_warm()).await;
    assert_current(&bed.agent, "a", &[("own.bin", &own), ("shared.bin", &shared)]);
    assert_current(&bed.agent, "b", &[("shared.bin", &shared)]);
    let inode = |id: &str| {
        let file = bed.agent.cache().join(format!("weights/{id}/current/shared.bin"));
        file.metadata().unwrap().ino()
    };
    assert_eq!(inode("a"), inode("b"), "stored once");
    let sent = bed.http.body_bytes();
    assert!(sent < 2_100_000, "fetched once: {sent}; {:#?}", bed.http.seen());
    assert_eq!(blobs(&bed.agent), 2);
}

#[tokio::test]
async fn a_new_revision_is_picked_up_when_the_list_changes() {
    let mut bed = Bed::start().await;
    let (same, old, new) = (bytes(1, 500_000), bytes(2, 5000), bytes(3, 6000));
    bed.s3.put(BUCKET, "m/same.bin", &*same).await;
    bed.s3.put(BUCKET, "m/changes.bin", &*old).await;
    let entry = format!("id: m, weights: s3://{BUCKET}/m/");
    bed.agent.write_list(&list(&[&entry]));
    bed.agent.start().await;
    bed.agent.wait_entry("m", "Warm", SOON).await;
    let before: [(&str, &[u8]); 2] = [("changes.bin", &old), ("same.bin", &same)];
    assert_current(&bed.agent, "m", &before);
    // Held open by a pod: what it has opened doesn't change under it.
    let opened = std::fs::File::open(bed.agent.cache().join("weights/m/current/changes.bin")).unwrap();
    let tree = std::fs::canonicalize(bed.agent.cache().join("weights/m/current")).unwrap();
    assert_eq!(tree.file_name().unwrap().to_str(), Some(&*label_of(&before)));

    bed.s3.put(BUCKET, "m/changes.bin", &*new).await;
    bed.agent.write_list(&format!("# another time\n{}", list(&[&entry])));
    let after: [(&str, &[u8]); 2] = [("changes.bin", &new), ("same.bin", &same)];
    let label = label_of(&after);
    let switched = |status: &Status| status.labels.get("weights.stoker.dev/m") == Some(&label);
    bed.agent.wait_for("the new revision", SOON, switched).await;
    assert_current(&bed.agent, "m", &after);
    assert_eq!(gets(&bed.objects, "/m/same.bin").len(), 1, "{:#?}", bed.objects.seen());
    let mut kept = Vec::new();
    std::io::Read::read_to_end(&mut { opened }, &mut kept).unwrap();
    assert!(kept == old, "a pod that reads keeps what it reads");
    assert_eq!(leftovers(&bed.agent), Vec::<String>::new());
}

#[tokio::test]
async fn empty_files_and_odd_names_arrive_as_they_are() {
    let bed = Bed::start().await;
    let names = [
        "empty.bin",
        "with space.bin",
        "prozent 100%.bin",
        "ünïcödé/模型.safetensors",
        "a+b&c=d?.bin",
        "%41.bin",
    ];
    let files: Vec<(&str, Vec<u8>)> =
        names.iter().enumerate().map(|(seed, name)| (*name, bytes(seed as u64, seed * 1000))).collect();
    for (name, bytes) in &files {
        bed.s3.put(BUCKET, &format!("odd/{name}"), &**bytes).await;
        bed.nginx.put(&format!("odd/{name}"), bytes);
    }
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (*name, &**bytes)).collect();
    bed.nginx.put("odd/index.json", index(&files));
    bed.warm(&[&format!("id: s3, weights: s3://{BUCKET}/odd/")]).await;
    assert_current(&bed.agent, "s3", &files);
    let bed = Bed { agent: crate::node::agent(&bed.gpus), ..bed };
    bed.warm(&[
        &format!("{}, index: true", bed.bare("http", "odd/index.json")),
        &bed.bare("one", "odd/with%20space.bin"),
        &bed.bare("empty", "odd/empty.bin"),
    ])
    .await;
    assert_current(&bed.agent, "http", &files);
    assert_current(&bed.agent, "one", &[("with space.bin", files[1].1)]);
    assert_current(&bed.agent, "empty", &[("empty.bin", b"")]);
}

#[tokio::test]
async fn many_small_files_come_quickly_and_all() {
    let bed = Bed::start().await;
    let files: Vec<(String, Vec<u8>)> =
        (0..300).map(|n| (format!("d{}/f{n}.bin", n % 7), bytes(n, 200 + n as usize))).collect();
    for (name, bytes) in &files {
        bed.nginx.put(&format!("many/{name}"), bytes);
    }
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (&**name, &**bytes)).collect();
    bed.nginx.put("many/index.json", index(&files));
    bed.warm(&[&format!("{}, index: true", bed.bare("many", "many/index.json"))]).await;
    assert_current(&bed.agent, "many", &files);
}

#[tokio::test]
async fn weights_without_a_digest_are_recorded_and_refused_where_only_verified_ones_may_be() {
    let mut bed = Bed::start().await;
    bed.nginx.put("w.bin", b"weights");
    bed.agent.write_list(&list(&[&bed.bare("w", "w.bin")]));
    bed.agent.start().await;
    let entry = bed.agent.wait_entry("w", "Warm", SOON).await;
    assert!(!entry.verified, "{entry:?}");
    let label = label_of(&[("w.bin", b"weights")]);
    let labelled = |status: &Status| status.labels.get("weights.stoker.dev/w") == Some(&label);
    bed.agent.wait_for("its label", SOON, labelled).await;

    bed.agent.stop(SOON).await;
    let mut bed = Bed { agent: bed.agent.arg("--verified-only"), ..bed };
    bed.agent.start().await;
    let entry = bed.agent.wait_entry("w", "Failed", SOON).await;
    let reason = entry.reason.unwrap();
    assert!(reason.message.contains("--verified-only") && reason.message.contains("sha256"), "{reason:?}");
    let status = bed.agent.status().await.unwrap();
    assert!(!status.labels.contains_key("weights.stoker.dev/w"), "{status:?}");
    // With a digest in the list the same bytes are verified, without another transfer of them.
    bed.agent.write_list(&list(&[&bed.with_digest("w", "w.bin", b"weights")]));
    let status =
        bed.agent.wait_for("warmth", SOON, |status| status.all_warm() && status.entries[0].verified).await;
    assert_eq!(code(&status, "w"), None);
}

#[tokio::test]
async fn what_somebody_spoils_in_the_cache_is_not_called_warm_and_is_mended() {
    let mut bed = Bed::start().await;
    let weights = bytes(1, 100_000);
    bed.nginx.put("w.bin", &weights);
    bed.agent.write_list(&list(&[&bed.with_digest("w", "w.bin", &weights)]));
    let run = bed.agent.once(SOON).await;
    assert_eq!(run.status.code(), Some(0), "{}", said(&run));
    let link = bed.agent.cache().join("weights/w/current");
    let tree = std::fs::canonicalize(&link).unwrap();
    std::fs::remove_file(tree.join("w.bin")).unwrap();
    bed.agent.start().await;
    bed.agent.wait_entry("w", "Warm", SOON).await;
    let there = async || tree.join("w.bin").exists().then_some(());
    until("the file's return", SOON, there).await;
    assert_current(&bed.agent, "w", &[("w.bin", &weights)]);
    // The label was never there without the bytes: the blob itself was, so nothing had to travel.
    assert_eq!(gets(&bed.http, "w.bin").len(), 1, "{:#?}", bed.http.seen());
}
