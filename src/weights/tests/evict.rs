//! What leaves for want of room, and what doesn't.

use std::fs::File;

use super::super::{Retired, WeightsError};
use super::bed::{Bed, id, large, served};
use crate::types::Digest;

/// One file of 3 MiB each; a cache that may hold so many of them.
fn bed_for(files: u64) -> Bed {
    let mut bed = Bed::new();
    bed.capacity.max = Some(files * (4 << 20));
    bed.reopen();
    bed
}

async fn bring(bed: &Bed, name: &str, seed: u8) -> Result<(), WeightsError> {
    bed.ensure(name, &[served(large(seed)).listed("model")]).await.map(drop)
}

fn has(bed: &Bed, seed: u8) -> bool {
    bed.blob(Digest::of(&large(seed))).exists()
}

fn manifests(bed: &Bed) -> usize {
    std::fs::read_dir(bed.path("v1/revisions")).unwrap().count()
}

#[tokio::test]
async fn a_newcomer_takes_the_room_of_what_no_entry_needs() {
    let bed = bed_for(3);
    for seed in 1..=3 {
        bring(&bed, &format!("e{seed}"), seed).await.unwrap();
    }
    let full = bring(&bed, "new", 4).await.unwrap_err();
    assert!(matches!(full, WeightsError::NoSpace { .. }), "{full}");
    assert!(full.to_string().contains("--cache-max"), "{full}");
    bed.cache().retire(&id("e2")).unwrap();
    bed.cache().retire(&id("e1")).unwrap();
    bring(&bed, "new", 4).await.unwrap();
    assert_eq!([1, 2, 3, 4].map(|seed| has(&bed, seed)), [true, false, true, true]);
    assert_eq!(manifests(&bed), 3, "its manifest is gone too");
    assert!(bed.read("weights/new/current/model") == large(4));
    bed.assert_tidy();
}

#[tokio::test]
async fn nothing_is_given_up_in_vain() {
    let bed = bed_for(3);
    for seed in 1..=3 {
        bring(&bed, &format!("e{seed}"), seed).await.unwrap();
    }
    bed.cache().retire(&id("e1")).unwrap();
    let two = [served(large(5)).listed("a"), served(large(6)).listed("b")];
    let full = bed.ensure("two", &two).await.unwrap_err();
    let shortage = full.shortage().unwrap();
    assert!(has(&bed, 1), "one would not have been enough");
    assert!(shortage.short > 0 && shortage.short < shortage.needed, "{shortage:?}");
    bed.cache().retire(&id("e2")).unwrap();
    bed.ensure("two", &two).await.unwrap();
    assert_eq!([1, 2, 3].map(|seed| has(&bed, seed)), [false, false, true]);
}

#[tokio::test]
async fn what_left_a_moment_ago_has_its_time_of_grace() {
    let mut bed = bed_for(1);
    bed.capacity.grace = std::time::Duration::from_secs(3600);
    bed.reopen();
    bring(&bed, "old", 1).await.unwrap();
    bed.cache().retire(&id("old")).unwrap();
    let full = bring(&bed, "new", 2).await.unwrap_err();
    assert!(full.to_string().contains("go soon"), "{full}");
    assert_eq!(full.shortage().unwrap().short, 0, "nobody else need go");
    // Listed again, it costs nothing.
    let model = served(large(1));
    bed.ensure("old", &[model.listed("model")]).await.unwrap();
    assert_eq!(model.gets(), 0);
}

#[tokio::test]
async fn what_entries_share_goes_with_the_last_of_them() {
    let bed = bed_for(1);
    bring(&bed, "one", 1).await.unwrap();
    bring(&bed, "two", 1).await.unwrap();
    bed.cache().retire(&id("one")).unwrap();
    assert_eq!(bed.cache().collect().unwrap().blobs, 0);
    assert!(bring(&bed, "new", 2).await.is_err() && has(&bed, 1));
    bed.cache().retire(&id("two")).unwrap();
    bring(&bed, "new", 2).await.unwrap();
    assert!(!has(&bed, 1));
}

#[tokio::test]
async fn a_blob_that_somebody_has_open_stays_and_the_newcomer_hears_why() {
    let bed = bed_for(1);
    bring(&bed, "old", 1).await.unwrap();
    bed.cache().retire(&id("old")).unwrap();
    let open = File::open(bed.blob(Digest::of(&large(1)))).unwrap();
    let full = bring(&bed, "new", 2).await.unwrap_err();
    assert!(full.to_string().contains("a process has them open"), "{full}");
    assert!(has(&bed, 1));
    drop(open);
    bring(&bed, "new", 2).await.unwrap();
}

#[tokio::test]
async fn what_a_job_counts_on_stays_although_nothing_shows_it_yet() {
    let bed = bed_for(3);
    bring(&bed, "old", 1).await.unwrap();
    bed.cache().retire(&id("old")).unwrap();
    let held = bed.cache().hold([Digest::of(&large(1))]);
    assert_eq!(bed.cache().collect().unwrap().blobs, 0);
    drop(held);
    assert_eq!(bed.cache().collect().unwrap().blobs, 1);
}

#[tokio::test]
async fn an_entry_with_an_open_file_keeps_all_its_names() {
    let bed = Bed::new();
    let files = [served(large(1)).listed("deep/a"), served(large(2)).listed("b")];
    bed.ensure("used", &files).await.unwrap();
    let before = bed.shown();
    let open = File::open(bed.path("weights/used/current/deep/a")).unwrap();
    let Retired::InUse(path) = bed.cache().retire(&id("used")).unwrap() else { panic!("it's in use") };
    assert!(path.ends_with("deep/a"), "{path:?}");
    assert_eq!(bed.shown(), before);
    drop(open);
    assert_eq!(bed.cache().retire(&id("used")).unwrap(), Retired::Gone);
    assert!(bed.shown().is_empty());
    bed.assert_tidy();
}

#[tokio::test]
async fn a_file_that_is_read_by_another_entrys_name_keeps_only_that_one() {
    let bed = Bed::new();
    bring(&bed, "one", 1).await.unwrap();
    bring(&bed, "two", 1).await.unwrap();
    let _open = File::open(bed.path("weights/two/current/model")).unwrap();
    assert_eq!(bed.cache().retire(&id("one")).unwrap(), Retired::Gone);
    assert!(matches!(bed.cache().retire(&id("two")).unwrap(), Retired::InUse(_)));
}

#[tokio::test]
async fn an_old_revision_stays_while_a_file_of_its_own_is_open() {
    let bed = Bed::new();
    let shared = served(large(9));
    bed.ensure("m", &[shared.listed("same"), served(large(1)).listed("changes")]).await.unwrap();
    let old = std::fs::canonicalize(bed.path("weights/m/current")).unwrap();
    bed.ensure("m", &[shared.listed("same"), served(large(2)).listed("changes")]).await.unwrap();
    // What both have may be read by the new one's name.
    let _same = File::open(bed.path("weights/m/current/same")).unwrap();
    let open = File::open(old.join("changes")).unwrap();
    assert_eq!(bed.cache().drop_old(&id("m")).unwrap(), Some(old.join("changes")));
    assert!(old.join("same").exists());
    drop(open);
    assert_eq!(bed.cache().drop_old(&id("m")).unwrap(), None);
    assert!(!old.exists() && bed.current("m").is_some());
    assert_eq!(bed.cache().collect().unwrap().blobs, 1);
    assert!(!has(&bed, 1) && has(&bed, 2));
}

#[tokio::test]
async fn it_shrinks_by_what_is_wanted_or_by_all_there_is() {
    let bed = Bed::new();
    for seed in 1..=3 {
        bring(&bed, &format!("e{seed}"), seed).await.unwrap();
    }
    bed.cache().retire(&id("e1")).unwrap();
    bed.cache().retire(&id("e2")).unwrap();
    let room = bed.cache().room().unwrap();
    assert!(room.spare >= 6 << 20 && room.total > room.free && room.full <= 100, "{room:?}");
    assert_eq!(bed.cache().shrink(1).unwrap().blobs, 1);
    assert!(!has(&bed, 1) && has(&bed, 2), "the longest unneeded");
    assert_eq!(bed.cache().shrink(u64::MAX).unwrap().blobs, 1);
    assert!(has(&bed, 3));
    assert_eq!(bed.cache().room().unwrap().spare, 0);
}
