//! Power cuts. A whole run is recorded, operation by operation: files in ranges out of order, with journals, published,
//! switched to, replaced by the next revision. Then the power goes after each operation, and of what nothing had made
//! durable any part may be lost or torn. Whatever is left, nothing incomplete is visible in it, no journal says more
//! than is true, and the next run ends right without asking for what was marked.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::super::journal::crc;
use super::bed::{Bed, Served, goods, id, served};
use super::cuts::Run;
use super::halfway::{RANGE, journals, long, marked, warmer};
use super::trace::{Op, Trace};
use crate::source::{RangeBody, RangeSource, RemoteFile, SourceError};
use crate::types::{ByteRange, Digest, Progress, Revision};

/// A server that is just so slow that the journal keeps up, and whose ranges come out of order.
#[derive(Debug)]
struct Paced {
    served: Arc<Served>,
    partials: PathBuf,
}

impl RangeSource for Paced {
    fn get(&self, range: ByteRange) -> BoxFuture<'_, Result<RangeBody, SourceError>> {
        async move {
            let size = self.served.bytes.len() as u64;
            while range.start() > 6 * RANGE && marked(&self.partials, size) + 6 * RANGE < range.start() {
                tokio::task::yield_now().await;
            }
            for _ in 0..(range.start() / RANGE * 7 % 5) * 40 {
                tokio::task::yield_now().await;
            }
            self.served.get(range).await
        }
        .boxed()
    }

    fn origin(&self) -> &str {
        "paced"
    }
}

fn paced(home: &Path, file: &RemoteFile, served: &Arc<Served>) -> RemoteFile {
    let bytes = Paced { served: Arc::clone(served), partials: home.join("v1/partial") };
    RemoteFile { bytes: Arc::new(bytes), ..file.clone() }
}

/// The two revisions of one entry, and what serves them.
struct Sets {
    old: Vec<(RemoteFile, Arc<Served>)>,
    new: Vec<(RemoteFile, Arc<Served>)>,
}

impl Sets {
    fn new() -> Self {
        let published = |path: &str, bytes: Vec<u8>| {
            let served = served(bytes);
            (served.listed(path), served)
        };
        let recorded = served(long(9, 7 * RANGE as usize + 5));
        let config = published("config.json", b"{}".to_vec());
        Self {
            old: vec![published("unet/model", long(1, 9 * RANGE as usize + 77)), config.clone()],
            new: vec![
                published("unet/model", long(2, 11 * RANGE as usize + 1000)),
                (recorded.recorded("extra", Some("\"e1\"")), recorded),
                config,
            ],
        }
    }

    /// So many small files that they become durable together.
    fn small() -> Self {
        let file = |n: u8| {
            let served = served(vec![n; 100 + usize::from(n)]);
            (served.listed(&format!("{}/{n}", n % 3)), served)
        };
        Self { old: (0..17).map(file).collect(), new: (16..18).map(file).collect() }
    }

    fn files(set: &[(RemoteFile, Arc<Served>)]) -> Vec<RemoteFile> {
        set.iter().map(|(file, _)| file.clone()).collect()
    }

    fn revision(set: &[(RemoteFile, Arc<Served>)]) -> Revision {
        let mut files: Vec<_> =
            set.iter().map(|(file, served)| (&file.path, file.size, Digest::of(&served.bytes))).collect();
        files.sort_by_key(|(path, ..)| *path);
        Revision::of_weights(files)
    }
}

async fn ensure(bed: &Bed, files: Vec<RemoteFile>) -> (Revision, u64) {
    let (progress, stop) = (Progress::default(), CancellationToken::new());
    let warmer = warmer(bed);
    let warm = warmer.ensure_files(&id("llama"), &goods("llama"), files, &progress, &stop).await.unwrap();
    (warm.revision, warm.fetched_bytes)
}

/// Records both revisions coming in, one after the other.
async fn record(sets: &Sets) -> Run {
    let home = tempfile::tempdir_in("/dev/shm").unwrap();
    let trace = Trace::of(home.path());
    let mut bed = Bed::at(home.path().to_owned());
    let mut begins = Vec::new();
    for set in [&sets.old, &sets.new] {
        // The cache's own opening is a part of the first.
        begins.push(if begins.is_empty() { 0 } else { trace.ops().len() });
        let files = set.iter().map(|(file, served)| paced(home.path(), file, served)).collect();
        assert_eq!(ensure(&bed, files).await.0, Sets::revision(set));
    }
    bed.assert_tidy();
    bed.close();
    Run { ops: trace.ops(), begins }
}

/// Bytes of `set` that nobody should have to ask for: of files that are content, and what journals vouch for.
fn safe(home: &Path, set: &[(RemoteFile, Arc<Served>)]) -> u64 {
    let journals = journals(&home.join("v1/partial"));
    let of_file = |(file, served): &(RemoteFile, Arc<Served>)| {
        let hex = Digest::of(&served.bytes).hex();
        let blob = home.join("v1/blobs/sha256").join(&hex[..2]).join(&hex);
        // What has only been recorded is found again by the manifest of the whole set alone.
        if file.digest.is_some() && blob.exists() {
            return file.size;
        }
        let journal = journals.iter().find(|(dir, journal)| {
            journal.origin.size == file.size
                && std::fs::metadata(dir.join("data")).is_ok_and(|it| it.len() == file.size)
        });
        journal.map_or(0, |(_, journal)| journal.marked().map(ByteRange::len).sum())
    };
    set.iter().map(of_file).sum()
}

/// Every tree that a pod could see is one of the two sets, whole; and no journal speaks of bytes that aren't there.
fn assert_honest(home: &Path, sets: &Sets) {
    for tree in std::fs::read_dir(home.join("weights/llama")).into_iter().flatten() {
        let tree = tree.unwrap().path();
        if tree.file_name().unwrap() == "current" {
            continue;
        }
        let name = tree.file_name().unwrap().to_str().unwrap();
        let set = [&sets.old, &sets.new].into_iter().find(|set| Sets::revision(set).short() == name).unwrap();
        for (file, served) in set {
            let seen = std::fs::read(tree.join(file.path.as_path())).unwrap_or_default();
            assert!(seen == served.bytes, "{name}/{} is visible and not whole", file.path);
        }
    }
    for (dir, journal) in journals(&home.join("v1/partial")) {
        let Ok(data) = std::fs::read(dir.join("data")) else { continue };
        for checked in journal.ranges() {
            let range = checked.range.start() as usize..checked.range.end() as usize;
            let right = data.get(range).is_some_and(|bytes| crc(bytes) == checked.crc);
            assert!(right, "{:?} is marked and not on the disk", checked.range);
        }
    }
}

/// The next run on what is left: right in the end, and it asks for no more than it must.
async fn assert_recovers(home: &Path, sets: &Sets, set: &[(RemoteFile, Arc<Served>)], safe: u64) {
    assert_honest(home, sets);
    let mut bed = Bed::at(home.to_owned());
    let shown = bed.named("llama").and_then(|named| named.current).map(|current| current.revision);
    let known = [&sets.old, &sets.new].map(|set| Sets::revision(set));
    assert!(shown.is_none_or(|shown| known.contains(&shown)));
    let sent = || set.iter().map(|(_, served)| served.sent.load(SeqCst)).sum::<u64>();
    let before = sent();
    let (revision, fetched) = ensure(&bed, Sets::files(set)).await;
    assert_eq!(revision, Sets::revision(set));
    for (file, served) in set {
        assert!(bed.read(&format!("weights/llama/current/{}", file.path)) == served.bytes);
    }
    let (sent, whole) = (sent() - before, set.iter().map(|(file, _)| file.size).sum::<u64>());
    assert!(sent <= whole - safe, "{sent} bytes were sent, though {safe} of {whole} were safe");
    assert_eq!(sent, fetched);
    bed.assert_tidy();
    bed.close();
}

/// Has the power go after every operation of both revisions' coming, or after one in `step`. Says how many different disks
/// that left, and how many of them held something to go on with.
async fn survive(sets: &Sets, run: &Run, step: usize) -> (usize, usize) {
    let mut resumed = 0;
    let set = |phase: usize| if phase == 0 { &sets.old } else { &sets.new };
    let seen = run
        .each_disk(
            step,
            |home, phase| safe(home, set(phase)),
            async |home, phase, safe| {
                resumed += usize::from(safe > 0);
                assert_recovers(home, sets, set(phase), safe).await;
            },
        )
        .await;
    (seen, resumed)
}

#[tokio::test]
async fn whatever_a_power_cut_leaves_the_next_run_ends_right() {
    let sets = Sets::new();
    let run = record(&sets).await;
    let marks = run.ops.iter().filter(|op| matches!(op, Op::SyncData { .. })).count();
    assert!(marks > 12, "the journals weren't at work: {marks} of {}", run.ops.len());
    let (seen, resumed) = survive(&sets, &run, 1).await;
    assert!(resumed > 50, "{resumed} of {seen} had something to go on with");
}

#[tokio::test]
async fn of_small_files_that_become_durable_together_none_is_lost_by_a_power_cut() {
    let sets = Sets::small();
    let run = record(&sets).await;
    let together = run.ops.iter().filter(|op| matches!(op, Op::SyncAll)).count();
    // At the cache's opening; of the first revision the bytes, and then the names. The second brings fewer.
    assert_eq!(together, 3);
    // The files are alike.
    let (seen, resumed) = survive(&sets, &run, 4).await;
    assert!(resumed > 20, "{resumed} of {seen} had something to go on with");
}
