use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use tokio_util::sync::CancellationToken;

use super::super::{Reserve, Retired, Warmer, WeightsError, names_at};
use super::bed::{Bed, Served, engine, file, goods, id, large, mode, served, sources};
use crate::fetch::{Engine, Limits};
use crate::types::{Digest, ErrorKind, Progress};

async fn files_are_laid_out_as_drawn(bed: Bed) {
    let (model, config) = (large(1), b"{}".to_vec());
    let files = [
        served(model.clone()).listed("unet/model.safetensors"),
        served(config.clone()).listed("config.json"),
        file("empty", ""),
    ];
    let warm = bed.ensure("llama", &files).await.unwrap();
    assert_eq!((warm.verified, warm.files), (true, 3));
    assert_eq!(warm.fetched_bytes, model.len() as u64 + 2);

    let tree = format!("llama/{}", warm.revision.short());
    let expected = [
        "llama/".to_owned(),
        format!("llama/current -> {}", warm.revision.short()),
        format!("{tree}/"),
        format!("{tree}/config.json"),
        format!("{tree}/empty"),
        format!("{tree}/unet/"),
        format!("{tree}/unet/model.safetensors"),
    ];
    assert_eq!(bed.shown(), BTreeSet::from(expected));
    assert!(bed.read("weights/llama/current/unet/model.safetensors") == model);
    for dir in ["v1", "weights", "weights/llama", "weights/llama/current/", "weights/llama/current/unet"] {
        assert_eq!(mode(bed.path(dir)), 0o755, "{dir}");
    }
    let blob = bed.blob(Digest::of(&model));
    assert_eq!(mode(&blob), 0o444);
    let blob = blob.strip_prefix(&bed.home).unwrap().to_str().unwrap().to_owned();
    assert_eq!(bed.inode(&blob), bed.inode("weights/llama/current/unet/model.safetensors"));
    assert!(bed.path(&format!("v1/revisions/{}.json", warm.revision.hex())).is_file());
    bed.assert_tidy();

    let current = bed.current("llama").unwrap();
    assert_eq!((current.revision, current.verified), (warm.revision, true));
    assert_eq!(current.fingerprint, goods("llama").fingerprint());
    assert_eq!(current.bytes, model.len() as u64 + 2);
    assert_eq!(current.source, "s3://bucket/llama/");
}

#[tokio::test]
async fn the_layout_is_as_drawn_on_a_disk() {
    files_are_laid_out_as_drawn(Bed::new()).await;
}

#[tokio::test]
async fn the_layout_is_as_drawn_where_there_is_no_direct_io() {
    files_are_laid_out_as_drawn(Bed::under(Path::new("/dev/shm"))).await;
}

#[tokio::test]
async fn what_is_warm_is_not_fetched_again() {
    let bed = Bed::new();
    let (model, recorded) = (served(large(1)), served(large(2)));
    let files = [model.listed("model"), recorded.recorded("other", Some("e1"))];
    let first = bed.ensure("llama", &files).await.unwrap();
    let second = bed.ensure("llama", &files).await.unwrap();
    assert_eq!(second, super::super::WarmWeights { fetched_bytes: 0, ..first });
    assert_eq!((model.gets(), recorded.gets()), (1, 1));
}

#[tokio::test]
async fn a_flipped_byte_is_found_and_the_file_fetched_again() {
    let bed = Bed::new();
    let model = served(large(1));
    model.flips.store(1, SeqCst);
    let warm = bed.ensure("llama", &[model.listed("model")]).await.unwrap();
    assert!(bed.read("weights/llama/current/model") == large(1));
    assert_eq!((model.gets(), warm.fetched_bytes), (2, large(1).len() as u64));
    bed.assert_tidy();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_ranges_written_at_once_make_one_file() {
    let bed = Bed::new();
    let limits = Limits { range: 256 << 10, per_blob: 8, ..Limits::default() };
    let warmer = Warmer::new(bed.cache().clone(), Engine::new(limits), sources(), true);
    let (model, other) = (served(large(1)), served(large(2)));
    let files = vec![model.listed("model"), other.listed("other")];
    let (progress, stop) = (Progress::default(), CancellationToken::new());
    let warmer = warmer.with_reserve(Reserve { percent: 0, bytes: 0 });
    warmer.ensure_files(&id("llama"), &goods("llama"), files, &progress, &stop).await.unwrap();
    assert!(model.gets() > 8, "{}", model.gets());
    assert!(bed.read("weights/llama/current/model") == large(1));
    assert!(bed.read("weights/llama/current/other") == large(2));
}

#[tokio::test]
async fn three_times_wrong_bytes_fail_and_leave_nothing() {
    let bed = Bed::new();
    let model = served(large(1));
    model.flips.store(100, SeqCst);
    let error = bed.ensure("llama", &[file("config.json", "{}"), model.listed("model")]).await.unwrap_err();
    assert!(matches!(&error, WeightsError::Corrupt { path, tries: 3, .. } if path.as_str() == "model"));
    assert_eq!((error.kind(), model.gets()), (ErrorKind::Corrupt, 3));
    assert_eq!(bed.shown(), BTreeSet::new());
    bed.assert_tidy();
}

#[tokio::test]
async fn a_shard_that_two_entries_share_is_fetched_once_and_stored_once() {
    let bed = Bed::new();
    let hold = CancellationToken::new();
    let shard = Arc::new(Served { hold: Some(hold.clone()), ..Served::new(large(1)) });
    let (a, b) = ([shard.listed("a")], [shard.listed("deep/b"), file("own", "own")]);
    let both = async { tokio::join!(bed.ensure("one", &a), bed.ensure("two", &b)) };
    let release = async {
        while shard.gets() == 0 {
            tokio::task::yield_now().await;
        }
        hold.cancel();
    };
    let ((one, two), ()) = tokio::join!(both, release);
    one.unwrap();
    assert_eq!(two.unwrap().files, 2);
    assert_eq!(shard.gets(), 1);
    assert_eq!(bed.inode("weights/one/current/a"), bed.inode("weights/two/current/deep/b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_current_sees_one_revision_or_the_other() {
    let bed = Bed::new();
    let revision = |text: &str| [file("a", text), file("dir/b", text)];
    bed.ensure("llama", &revision("old")).await.unwrap();
    let (done, entry) = (Arc::new(AtomicBool::new(false)), bed.path("weights/llama"));
    let reader = std::thread::spawn({
        let done = done.clone();
        move || {
            let mut seen = BTreeSet::new();
            while !done.load(SeqCst) {
                let tree = entry.join(std::fs::read_link(entry.join("current")).unwrap());
                let (a, b) =
                    (std::fs::read(tree.join("a")).unwrap(), std::fs::read(tree.join("dir/b")).unwrap());
                assert_eq!(a, b);
                seen.insert(a);
            }
            seen
        }
    });
    for _ in 0..10 {
        bed.ensure("llama", &revision("new")).await.unwrap();
        bed.ensure("llama", &revision("old")).await.unwrap();
    }
    done.store(true, SeqCst);
    assert_eq!(reader.join().unwrap().len(), 2);
}

#[tokio::test]
async fn the_revision_before_stays_until_the_next_or_until_dropped() {
    let bed = Bed::new();
    let mut names = Vec::new();
    for text in ["1", "2", "3"] {
        names.push(bed.ensure("llama", &[file("a", text)]).await.unwrap().revision.short());
    }
    assert_eq!(bed.named("llama").unwrap().other, [names[1].clone()]);
    bed.cache().drop_old(&id("llama")).unwrap();
    assert_eq!(bed.named("llama").unwrap().other, Vec::<String>::new());
    assert_eq!(bed.current("llama").unwrap().revision.short(), names[2]);
}

#[tokio::test]
async fn a_retired_entry_shows_nothing_and_comes_back_without_a_transfer() {
    let bed = Bed::new();
    let (model, recorded) = (served(large(1)), served(large(2)));
    let files = [model.listed("model"), recorded.recorded("deep/er/other", Some("e1"))];
    bed.ensure("llama", &files).await.unwrap();
    bed.ensure("other", &[file("x", "y")]).await.unwrap();
    assert_eq!(bed.cache().retire(&id("llama")).unwrap(), Retired::Gone);
    assert!(bed.shown().iter().all(|name| name.starts_with("other/")), "{:?}", bed.shown());
    bed.cache().retire(&id("llama")).unwrap();
    bed.assert_tidy();

    let again = bed.ensure("llama", &files).await.unwrap();
    assert_eq!((again.fetched_bytes, model.gets(), recorded.gets()), (0, 1, 1));
    assert!(bed.read("weights/llama/current/deep/er/other") == large(2));
}

#[tokio::test]
async fn a_file_without_a_digest_is_recorded_and_said_so() {
    let bed = Bed::new();
    let model = served(large(1));
    let files = |version| [model.recorded("model", version), file("config.json", "{}")];
    let warm = bed.ensure("llama", &files(Some("e1"))).await.unwrap();
    assert!(!warm.verified && !bed.current("llama").unwrap().verified);
    // Another version is another file, whatever its length.
    bed.ensure("llama", &files(Some("e2"))).await.unwrap();
    assert_eq!(model.gets(), 2);
    // The digest gets published: the bytes are there already, and are verified from now on.
    let warm = bed.ensure("llama", &[model.listed("model"), file("config.json", "{}")]).await.unwrap();
    assert_eq!((warm.verified, warm.fetched_bytes), (true, 0));
    assert!(bed.current("llama").unwrap().verified);
}

#[tokio::test]
async fn verified_only_refuses_before_the_first_byte() {
    let bed = Bed::new();
    let model = served(large(1));
    let warmer = Warmer::new(bed.cache().clone(), engine(), sources(), true);
    let files = vec![model.recorded("model", Some("e1"))];
    let (progress, stop) = (Progress::default(), CancellationToken::new());
    let refused = warmer.ensure_files(&id("llama"), &goods("llama"), files, &progress, &stop).await;
    assert!(matches!(refused, Err(WeightsError::Unverified { path }) if path.as_str() == "model"));
    assert_eq!(model.gets(), 0);
}

#[tokio::test]
async fn what_does_not_fit_is_refused_before_the_first_byte() {
    let bed = Bed::new();
    let model = served(large(1));
    let warmer = bed.warmer().with_reserve(Reserve { percent: 100, bytes: 0 });
    let (progress, stop) = (Progress::default(), CancellationToken::new());
    let files = vec![model.listed("model")];
    let refused = warmer.ensure_files(&id("llama"), &goods("llama"), files, &progress, &stop).await;
    let refused = refused.unwrap_err();
    assert_eq!((refused.kind(), model.gets()), (ErrorKind::NoSpace, 0));
    assert!(refused.to_string().starts_with(&format!("{} more bytes", large(1).len())), "{refused}");
}

#[tokio::test]
async fn a_stop_leaves_the_former_revision_and_no_leftovers() {
    let bed = Bed::new();
    let before = bed.ensure("llama", &[file("a", "old")]).await.unwrap();
    let held = Arc::new(Served { hold: Some(CancellationToken::new()), ..Served::new(large(1)) });
    let (progress, stop) = (Progress::default(), CancellationToken::new());
    let warmer = bed.warmer();
    let files = vec![held.listed("a"), file("b", "new")];
    let (id, goods) = (id("llama"), goods("llama"));
    let job = warmer.ensure_files(&id, &goods, files, &progress, &stop);
    let stopper = async {
        while held.gets() == 0 {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    let (outcome, ()) = tokio::join!(job, stopper);
    assert!(matches!(outcome, Err(WeightsError::Stopped)));
    assert_eq!(bed.current("llama").unwrap().revision, before.revision);
    bed.assert_tidy();
}

#[tokio::test]
async fn whoever_only_looks_needs_no_lock() {
    let bed = Bed::new();
    let warm = bed.ensure("llama", &[file("a", "x")]).await.unwrap();
    let names = names_at(&bed.home).unwrap();
    assert_eq!(names[&id("llama")].current.as_ref().unwrap().revision, warm.revision);
    let nowhere = names_at(&bed.path("weights")).unwrap_err();
    assert!(nowhere.to_string().contains("--cache-dir"), "{nowhere}");
    assert!(!bed.path("weights/weights").exists());
}

#[test]
fn jobs_can_be_spawned() {
    fn spawnable<T: Send>(_: &T) {}
    let bed = Bed::new();
    let (progress, stop) = (Progress::default(), CancellationToken::new());
    let (warmer, id, goods) = (bed.warmer(), id("llama"), goods("llama"));
    spawnable(&warmer.ensure(&id, &goods, None, &progress, &stop));
}
