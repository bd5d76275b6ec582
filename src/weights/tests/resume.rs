//! What is fetched again after a stop, and what of it isn't believed.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

use super::super::journal::Journal;
use super::super::pull::{Pulled, Puller, open};
use super::super::{Named, Reserve, Retired, WarmWeights, WeightsError};
use super::bed::{Bed, Served, file, goods, id, mode, served, set_mode, sources};
use super::halfway::{PACE, RANGE, engine, journals, long, marked, stalling, warmer};
use crate::source::RemoteFile;
use crate::types::{Digest, ErrorKind, Progress};

/// Ends in the middle of a page.
const SIZE: u64 = 10 * RANGE + 77;
/// What has come, and is marked, when it's stopped.
const HALF: u64 = 5 * RANGE;

fn model(seed: u8) -> Arc<Served> {
    served(long(seed, SIZE as usize))
}

fn sent(served: &Served) -> u64 {
    served.sent.swap(0, SeqCst)
}

fn sent_so_far(served: &Served) -> u64 {
    served.sent.load(SeqCst)
}

async fn ensure(bed: &Bed, name: &str, files: &[RemoteFile]) -> Result<WarmWeights, WeightsError> {
    let (progress, stop) = (Progress::default(), CancellationToken::new());
    let warm = warmer(bed).ensure_files(&id(name), &goods(name), files.to_vec(), &progress, &stop).await?;
    assert_eq!(progress.done(), progress.total());
    Ok(warm)
}

/// Fetches the first half of `file` for the entry `name`, and is stopped, as by SIGTERM.
async fn half(bed: &Bed, name: &str, file: &RemoteFile, served: &Arc<Served>) {
    let (progress, stop) = (Progress::default(), CancellationToken::new());
    let (warmer, partials) = (warmer(bed), bed.path("v1/partial"));
    let (id, goods, files) = (id(name), goods(name), vec![stalling(file, served, HALF)]);
    let fetching = warmer.ensure_files(&id, &goods, files, &progress, &stop);
    let stopping = async {
        while marked(&partials, file.size) < HALF {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    let (ended, ()) = futures::future::join(fetching, stopping).await;
    assert!(matches!(ended, Err(WeightsError::Stopped)), "{ended:?}");
    assert_eq!(sent(served), HALF);
}

/// The directory of the one partial that there is.
fn partial(bed: &Bed) -> PathBuf {
    let all = journals(&bed.path("v1/partial"));
    assert_eq!(all.len(), 1);
    all[0].0.clone()
}

fn overwrite(path: &Path, bytes: &[u8], offset: u64) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
}

#[tokio::test]
async fn a_stopped_fetch_is_gone_on_with_also_by_the_next_process() {
    let mut bed = Bed::new();
    let model = model(1);
    let listed = model.listed("unet/model");
    half(&bed, "llama", &listed, &model).await;
    assert!(!bed.path("weights/llama").exists(), "nothing of it is visible");
    bed.reopen();
    let warm = ensure(&bed, "llama", std::slice::from_ref(&listed)).await.unwrap();
    assert_eq!((warm.fetched_bytes, sent(&model)), (SIZE - HALF, SIZE - HALF));
    assert!(bed.read("weights/llama/current/unet/model") == model.bytes);
    bed.assert_tidy();
}

#[tokio::test]
async fn another_etag_begins_that_file_again_and_no_other() {
    let mut bed = Bed::new();
    let (changed, same) = (model(1), served(long(2, SIZE as usize + 1)));
    half(&bed, "one", &changed.recorded("a", Some("\"e1\"")), &changed).await;
    half(&bed, "two", &same.recorded("b", Some("\"e1\"")), &same).await;
    bed.reopen();
    let new = model(3);
    assert_eq!(ensure(&bed, "one", &[new.recorded("a", Some("\"e2\""))]).await.unwrap().fetched_bytes, SIZE);
    assert!(bed.read("weights/one/current/a") == new.bytes);
    assert_eq!(journals(&bed.path("v1/partial")).len(), 1, "what was fetched of the old version is gone");
    let warm = ensure(&bed, "two", &[same.recorded("b", Some("\"e1\""))]).await.unwrap();
    assert_eq!(warm.fetched_bytes, SIZE + 1 - HALF);
    assert!(bed.read("weights/two/current/b") == same.bytes);
    bed.assert_tidy();
}

/// A whole file of a set that isn't whole: nothing but the note tells which content it is.
#[tokio::test]
async fn a_finished_file_whose_digest_nobody_publishes_is_not_fetched_twice() {
    let mut bed = Bed::new();
    let (done, small, rest) = (served(long(2, SIZE as usize + 1)), served("small"), model(1));
    let version = Some("\"e1\"");
    let whole = [done.recorded("done", version), small.recorded("small", version)];
    let files = [&whole[..], &[stalling(&rest.recorded("rest", version), &rest, HALF)]].concat();
    let (progress, stop) = (Progress::default(), CancellationToken::new());
    let warmer_of = warmer(&bed);
    let (llama, of) = (id("llama"), goods("llama"));
    let fetching = warmer_of.ensure_files(&llama, &of, files, &progress, &stop);
    let blobs = [&done, &small].map(|served| bed.blob(Digest::of(&served.bytes)));
    let stopping = async {
        while marked(&bed.path("v1/partial"), SIZE) < HALF || !blobs.iter().all(|blob| blob.exists()) {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    let (ended, ()) = futures::future::join(fetching, stopping).await;
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Cancelled);
    drop(warmer_of);
    bed.reopen();
    let files = [&whole[..], &[rest.recorded("rest", version)]].concat();
    let warm = ensure(&bed, "llama", &files).await.unwrap();
    assert_eq!((warm.fetched_bytes, warm.verified), (SIZE - HALF, false));
    for (name, served) in [("done", &done), ("small", &small), ("rest", &rest)] {
        assert!(bed.read(&format!("weights/llama/current/{name}")) == served.bytes, "{name}");
    }
    bed.assert_tidy();
}

/// With a published digest the key is the same: the journal alone tells the versions apart.
#[tokio::test]
async fn another_etag_of_the_same_digest_begins_again() {
    let bed = Bed::new();
    let model = model(1);
    half(&bed, "llama", &model.listed("a"), &model).await;
    let other = RemoteFile { version: Some("\"v2\"".to_owned()), ..model.listed("a") };
    assert_eq!(ensure(&bed, "llama", &[other]).await.unwrap().fetched_bytes, SIZE);
    bed.assert_tidy();
}

#[tokio::test]
async fn without_a_version_or_a_digest_nothing_is_gone_on_with() {
    let mut bed = Bed::new();
    let model = model(1);
    let bare = model.recorded("a", None);
    let (progress, stop) = (Progress::default(), CancellationToken::new());
    stop.cancel();
    let stopped =
        warmer(&bed).ensure_files(&id("a"), &goods("a"), vec![bare.clone()], &progress, &stop).await;
    assert!(stopped.is_err());
    bed.assert_tidy();
    bed.reopen();
    assert_eq!(ensure(&bed, "a", &[bare]).await.unwrap().fetched_bytes, SIZE);
}

#[tokio::test]
async fn what_rotted_on_the_disk_is_found_and_only_that_is_fetched_again() {
    type Harm = (&'static str, fn(&Path), u64);
    let harms: [Harm; 4] = [
        ("one flipped bit", |data| overwrite(data, &[long(1, SIZE as usize)[10_000] ^ 1], 10_000), RANGE),
        ("a hole of zeros", |data| overwrite(data, &[0; 100], 3 * RANGE + 5), RANGE),
        ("its first byte", |data| overwrite(data, &[!long(1, SIZE as usize)[0]], 0), RANGE),
        ("all of it", |data| overwrite(data, &[0xaa; SIZE as usize], 0), HALF),
    ];
    for (what, harm, again) in harms {
        let mut bed = Bed::new();
        let model = model(1);
        let listed = model.listed("model");
        half(&bed, "llama", &listed, &model).await;
        bed.close();
        harm(&partial(&bed).join("data"));
        bed.reopen();
        let warm = ensure(&bed, "llama", &[listed]).await.unwrap();
        assert!(bed.read("weights/llama/current/model") == model.bytes, "{what}");
        assert_eq!(warm.fetched_bytes, SIZE - HALF + again, "{what}");
        assert_eq!(sent(&model), SIZE - HALF + again, "{what}");
        bed.assert_tidy();
    }
}

#[tokio::test]
async fn what_does_not_fit_its_journal_is_begun_again_and_is_no_error() {
    let cut = |path: &Path, by: u64| {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(file.metadata().unwrap().len() - by).unwrap();
    };
    type Harm<'a> = (&'static str, &'a dyn Fn(&Path));
    let harms: [Harm<'_>; 9] = [
        ("a truncated file", &|dir| cut(&dir.join("data"), 1)),
        ("a padded file", &|dir| overwrite(&dir.join("data"), &[0], SIZE)),
        ("no file", &|dir| std::fs::remove_file(dir.join("data")).unwrap()),
        ("a directory for a file", &|dir| {
            std::fs::remove_file(dir.join("data")).unwrap();
            std::fs::create_dir(dir.join("data")).unwrap();
        }),
        ("no journal", &|dir| std::fs::remove_file(dir.join("journal")).unwrap()),
        ("an empty journal", &|dir| std::fs::write(dir.join("journal"), "").unwrap()),
        ("zeros", &|dir| std::fs::write(dir.join("journal"), [0; 5000]).unwrap()),
        ("a flipped bit in its first record", &|dir| overwrite(&dir.join("journal"), &[0xff], 40)),
        ("a far too long one", &|dir| {
            OpenOptions::new().write(true).open(dir.join("journal")).unwrap().set_len(1 << 40).unwrap();
        }),
    ];
    for (what, harm) in harms {
        // Met in the middle of a run, and at the next start.
        for restarted in [false, true] {
            let mut bed = Bed::under(Path::new("/dev/shm"));
            let model = model(1);
            let listed = model.listed("model");
            half(&bed, "llama", &listed, &model).await;
            let dir = partial(&bed);
            harm(&dir);
            if restarted {
                bed.reopen();
            }
            let warm = ensure(&bed, "llama", &[listed]).await.unwrap();
            assert_eq!(warm.fetched_bytes, SIZE, "{what}");
            assert!(bed.read("weights/llama/current/model") == model.bytes, "{what}");
            bed.assert_tidy();
        }
    }
}

/// A crash between a blob's name and the end of its partial: both are one file, which pods may have mapped.
#[tokio::test]
async fn what_is_content_already_is_never_written_to() {
    let bed = Bed::new();
    let model = model(1);
    let listed = model.listed("model");
    half(&bed, "llama", &listed, &model).await;
    let content = bed.path("content");
    std::fs::hard_link(partial(&bed).join("data"), &content).unwrap();
    let before = std::fs::read(&content).unwrap();
    assert_eq!(ensure(&bed, "llama", &[listed]).await.unwrap().fetched_bytes, SIZE);
    assert!(std::fs::read(&content).unwrap() == before);
}

/// A crash between the seal and the blob's name.
#[tokio::test]
async fn a_sealed_file_is_gone_on_with() {
    let mut bed = Bed::new();
    let model = model(1);
    let listed = model.listed("model");
    half(&bed, "llama", &listed, &model).await;
    set_mode(partial(&bed).join("data"), 0o444);
    bed.reopen();
    assert_eq!(ensure(&bed, "llama", &[listed]).await.unwrap().fetched_bytes, SIZE - HALF);
    assert_eq!(mode(bed.blob(Digest::of(&model.bytes))), 0o444);
}

#[tokio::test]
async fn three_strikes_count_what_was_gone_on_with_and_leave_nothing() {
    let bed = Bed::new();
    let model = model(1);
    let listed = model.listed("model");
    half(&bed, "llama", &listed, &model).await;
    model.flips.store(1000, SeqCst);
    let error = ensure(&bed, "llama", std::slice::from_ref(&listed)).await.unwrap_err();
    assert!(matches!(error, WeightsError::Corrupt { tries: 3, .. }), "{error}");
    assert_eq!(sent(&model), SIZE - HALF + 2 * SIZE);
    bed.assert_tidy();
    // One wrong byte in what was missing: the whole file comes once more.
    model.flips.store(0, SeqCst);
    half(&bed, "llama", &listed, &model).await;
    model.flips.store(1, SeqCst);
    assert_eq!(ensure(&bed, "llama", &[listed]).await.unwrap().fetched_bytes, SIZE);
    assert!(bed.read("weights/llama/current/model") == model.bytes);
    bed.assert_tidy();
}

#[tokio::test]
async fn what_an_entry_no_longer_wants_goes_with_it() {
    let mut bed = Bed::new();
    let (one, two) = (model(1), model(2));
    half(&bed, "one", &one.listed("a"), &one).await;
    bed.reopen();
    // Whoever decides what leaves hears of an entry that has nothing but this.
    assert_eq!(bed.cache().names().unwrap().get(&id("one")), Some(&Named::default()));
    assert_eq!(bed.cache().retire(&id("other")).unwrap(), Retired::Gone);
    assert_eq!(journals(&bed.path("v1/partial")).len(), 1, "it isn't the other's");
    assert_eq!(bed.cache().retire(&id("one")).unwrap(), Retired::Gone);
    bed.assert_tidy();
    assert!(bed.cache().names().unwrap().is_empty());

    // Another list, another file: the old one isn't wanted.
    half(&bed, "one", &one.listed("a"), &one).await;
    ensure(&bed, "one", &[file("b", "new")]).await.unwrap();
    bed.assert_tidy();

    // What another entry is fetching now stays, whoever began it.
    half(&bed, "one", &two.listed("a"), &two).await;
    let (progress, stop) = (Progress::default(), CancellationToken::new());
    let (warmer, goods, second) = (warmer(&bed), goods("second"), id("second"));
    let files = vec![stalling(&two.listed("a"), &two, HALF + RANGE)];
    let fetching = warmer.ensure_files(&second, &goods, files, &progress, &stop);
    let retiring = async {
        while marked(&bed.path("v1/partial"), SIZE) < HALF + RANGE {
            tokio::task::yield_now().await;
        }
        bed.cache().retire(&id("one")).unwrap();
        bed.cache().retire(&id("second")).unwrap();
        stop.cancel();
    };
    let (ended, ()) = futures::future::join(fetching, retiring).await;
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(ensure(&bed, "second", &[two.listed("a")]).await.unwrap().fetched_bytes, SIZE - HALF - RANGE);
}

#[tokio::test]
async fn what_was_left_for_long_is_swept() {
    let mut bed = Bed::new();
    let model = model(1);
    half(&bed, "llama", &model.listed("model"), &model).await;
    let journal = OpenOptions::new().write(true).open(partial(&bed).join("journal")).unwrap();
    let age =
        |days: u64| journal.set_modified(SystemTime::now() - Duration::from_secs(days * 24 * 3600)).unwrap();
    age(13);
    bed.reopen();
    assert_eq!(journals(&bed.path("v1/partial")).len(), 1);
    age(15);
    bed.reopen();
    bed.assert_tidy();
}

#[tokio::test]
async fn room_that_a_partial_has_already_is_not_asked_for_again() {
    let bed = Bed::new();
    let model = model(1);
    let listed = model.listed("model");
    let needed = async || {
        let (progress, stop) = (Progress::default(), CancellationToken::new());
        let strict = warmer(&bed).with_reserve(Reserve { percent: 100, bytes: u64::MAX });
        let files = vec![listed.clone(), file("more", "12345")];
        match strict.ensure_files(&id("llama"), &goods("llama"), files, &progress, &stop).await {
            Err(WeightsError::NoSpace { needed, .. }) => needed,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(needed().await, SIZE + 5);
    half(&bed, "llama", &listed, &model).await;
    assert_eq!(needed().await, 5);
}

/// The job's future is dropped: its thread makes a last mark by itself, and the file's turn comes after that.
#[tokio::test]
async fn a_dropped_fetch_is_gone_on_with() {
    let bed = Bed::new();
    let model = model(1);
    let listed = model.listed("model");
    {
        let (progress, stop) = (Progress::default(), CancellationToken::new());
        let (warmer, id, goods) = (warmer(&bed), id("llama"), goods("llama"));
        let files = vec![stalling(&listed, &model, HALF)];
        let mut fetching = Box::pin(warmer.ensure_files(&id, &goods, files, &progress, &stop));
        while marked(&bed.path("v1/partial"), SIZE) < HALF {
            assert!(futures::poll!(&mut fetching).is_pending());
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(ensure(&bed, "llama", &[listed]).await.unwrap().fetched_bytes, SIZE - HALF);
    assert!(bed.read("weights/llama/current/model") == model.bytes);
    bed.assert_tidy();
}

/// The hash is not begun anew, so what it took in isn't read to be hashed: the state in the journal is what counts.
#[tokio::test]
async fn the_hash_goes_on_from_its_stored_state() {
    let bed = Bed::new();
    let model = model(1);
    half(&bed, "llama", &model.listed("model"), &model).await;
    let journal = Journal::read(&std::fs::read(partial(&bed).join("journal")).unwrap()).unwrap();
    let (upto, hasher) = journal.hashed();
    assert!((RANGE..=HALF).contains(&upto), "{upto}");
    assert_eq!(hasher.finish(), Digest::of(&model.bytes[..upto as usize]));
}

async fn pull(dir: &Path, files: &[RemoteFile], stop: &CancellationToken) -> Result<Pulled, WeightsError> {
    let puller = Puller::new(engine(), sources(), false).with_pace(PACE);
    let opened = open(dir)?;
    puller.pull_files(&opened, &goods("pulled"), files.to_vec(), &Progress::default(), stop).await
}

#[tokio::test]
async fn a_pull_into_a_directory_is_gone_on_with() {
    let home = tempfile::tempdir().unwrap();
    // Two files of the same bytes in one directory.
    let (one, two, other) = (model(1), model(1), model(2));
    let files = [one.listed("a/one"), two.listed("a/two"), other.recorded("a/other", Some("\"e1\""))];
    let half_of = |file: &RemoteFile, served: &Arc<Served>| stalling(file, served, HALF);
    let halves = [half_of(&files[0], &one), half_of(&files[1], &two), half_of(&files[2], &other)];
    let stop = CancellationToken::new();
    let marked = || {
        let journals = std::fs::read_dir(home.path().join("a")).into_iter().flatten().filter_map(|file| {
            let path = file.ok()?.path();
            let bytes =
                path.extension().is_some_and(|it| it == "journal").then(|| std::fs::read(&path))?.ok()?;
            Some(Journal::read(&bytes)?.frontier())
        });
        journals.filter(|frontier| *frontier == HALF).count()
    };
    let stopping = async {
        while marked() < 3 {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    let (ended, ()) = futures::future::join(pull(home.path(), &halves, &stop), stopping).await;
    assert!(matches!(ended, Err(WeightsError::Stopped)), "{ended:?}");
    assert!(!home.path().join("a/one").exists());

    // Meanwhile the source has another version of one.
    let new = model(3);
    let files = [files[0].clone(), files[1].clone(), new.recorded("a/other", Some("\"e2\""))];
    [&one, &two, &other].into_iter().for_each(|served| served.sent.store(0, SeqCst));
    let pulled = pull(home.path(), &files, &CancellationToken::new()).await.unwrap();
    assert_eq!([sent(&one), sent(&two), sent(&new)], [SIZE - HALF, SIZE - HALF, SIZE]);
    assert_eq!(pulled.fetched_bytes, 3 * SIZE - 2 * HALF);
    for (name, served) in [("one", &one), ("two", &two), ("other", &new)] {
        assert!(std::fs::read(home.path().join("a").join(name)).unwrap() == served.bytes, "{name}");
    }
    let left: Vec<_> = std::fs::read_dir(home.path().join("a")).unwrap().collect();
    assert_eq!(left.len(), 3, "{left:?}");
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1, "nothing but the directory");
}

#[tokio::test]
async fn a_pull_keeps_what_it_had_finished_also_without_a_published_digest() {
    let home = tempfile::tempdir().unwrap();
    let (done, rest) = (served(long(2, SIZE as usize + 1)), model(1));
    let whole = done.recorded("done", Some("\"e1\""));
    let rest_of = rest.recorded("rest", Some("\"e1\""));
    let stop = CancellationToken::new();
    let stopping = async {
        while !home.path().join("done").exists() || sent_so_far(&rest) < HALF {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    let files = [whole.clone(), stalling(&rest_of, &rest, HALF)];
    let (ended, ()) = futures::future::join(pull(home.path(), &files, &stop), stopping).await;
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Cancelled);
    let pulled = pull(home.path(), &[whole, rest_of], &CancellationToken::new()).await.unwrap();
    assert_eq!((pulled.kept, pulled.files), (1, 2));
    assert!(std::fs::read(home.path().join("done")).unwrap() == done.bytes);
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 2);
}
