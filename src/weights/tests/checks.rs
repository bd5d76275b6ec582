//! What is compared where no SHA-256 of the whole is published: checks, and digests of parts.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use tokio_util::sync::CancellationToken;

use super::super::pull::{Puller, open};
use super::super::{WarmWeights, WeightsError};
use super::bed::{Bed, Served, goods, id, large, served, sources};
use super::halfway::{RANGE, engine, long, marked, stalling, warmer};
use crate::source::RemoteFile;
use crate::types::{Crc, CrcKind, Digest, PartDigests, Progress, Published};

const KINDS: [CrcKind; 3] = [CrcKind::Crc32, CrcKind::Crc32c, CrcKind::Crc64Nvme];

fn with(served: &Arc<Served>, published: Published) -> RemoteFile {
    RemoteFile { digest: Some(published), ..served.recorded("model", Some("\"v1-4\"")) }
}

fn parts(bytes: &[u8], length: usize) -> Published {
    let part = |part: &[u8]| (part.len() as u64, Digest::of(part));
    Published::Parts(PartDigests::new(bytes.chunks(length).map(part)).unwrap())
}

fn checked(served: &Arc<Served>, kind: CrcKind) -> RemoteFile {
    with(served, Published::Crc(Crc::of(kind, &served.bytes)))
}

#[tokio::test]
async fn a_check_finds_wrong_bytes_and_proves_nothing() {
    for kind in KINDS {
        let bed = Bed::new();
        let model = served(large(1));
        model.flips.store(1, SeqCst);
        let warm = bed.ensure("llama", &[checked(&model, kind)]).await.unwrap();
        assert!(model.gets() >= 2 && !warm.verified, "{kind:?}: {warm:?}");
        assert!(bed.read("weights/llama/current/model") == large(1), "{kind:?}");
        assert!(!bed.current("llama").unwrap().verified, "{kind:?}");

        model.flips.store(100, SeqCst);
        let error = bed.ensure("other", &[checked(&model, kind)]).await.unwrap_err().to_string();
        let expected = Crc::of(kind, &large(1)).to_string();
        assert!(error.contains("3 times") && error.contains(&expected), "{error}");
        bed.assert_tidy();
    }
}

#[tokio::test]
async fn digests_of_parts_find_wrong_bytes_and_are_proof() {
    let bed = Bed::new();
    let model = served(large(1));
    let file = with(&model, parts(&model.bytes, 1_000_000));
    model.flips.store(1, SeqCst);
    let warm = bed.ensure("llama", std::slice::from_ref(&file)).await.unwrap();
    assert!(model.gets() >= 2 && warm.verified, "{warm:?}");
    assert!(bed.read("weights/llama/current/model") == large(1));
    assert!(bed.current("llama").unwrap().verified);
    let (again, gets) = (bed.ensure("llama", std::slice::from_ref(&file)).await.unwrap(), model.gets());
    assert_eq!((again.fetched_bytes, again.verified, model.gets()), (0, true, gets));

    let other = served(large(2));
    other.flips.store(100, SeqCst);
    let error = bed.ensure("other", &[with(&other, parts(&other.bytes, 1_000_000))]).await.unwrap_err();
    assert!(matches!(&error, WeightsError::Corrupt { tries: 3, .. }), "{error}");
    assert!(error.to_string().contains("part 2 of 4: sha256:"), "{error}");
    bed.assert_tidy();
}

/// What was only recorded when it came isn't verified because its source publishes more now.
#[tokio::test]
async fn what_was_never_compared_is_fetched_again_once_there_is_a_proof() {
    let bed = Bed::new();
    let model = served(large(1));
    let bare = model.recorded("model", Some("\"v1-4\""));
    assert!(!bed.ensure("llama", std::slice::from_ref(&bare)).await.unwrap().verified);
    let proven = with(&model, parts(&model.bytes, 1_000_000));
    let warm = bed.ensure("llama", std::slice::from_ref(&proven)).await.unwrap();
    assert_eq!((warm.fetched_bytes, warm.verified), (model.bytes.len() as u64, true));
    // Less than was known is no reason to.
    let warm = bed.ensure("llama", &[checked(&model, CrcKind::Crc64Nvme)]).await.unwrap();
    assert_eq!((warm.fetched_bytes, warm.verified), (0, false));
}

#[tokio::test]
async fn what_an_earlier_run_wrote_is_compared_too() {
    const SIZE: u64 = 10 * RANGE + 77;
    const HALF: u64 = 5 * RANGE;
    let all = |served: &Arc<Served>| {
        [
            checked(served, CrcKind::Crc64Nvme),
            checked(served, CrcKind::Crc32c),
            with(served, parts(&served.bytes, 9000)),
        ]
    };
    for number in 0..3 {
        let mut bed = Bed::new();
        let model = served(long(1, SIZE as usize));
        let file = all(&model)[number].clone();
        let (progress, stop) = (Progress::default(), CancellationToken::new());
        let (begun, partials) = (warmer(&bed), bed.path("v1/partial"));
        let (llama, of) = (id("llama"), goods("llama"));
        let stalled = vec![stalling(&file, &model, HALF)];
        let fetching = begun.ensure_files(&llama, &of, stalled, &progress, &stop);
        let stopping = async {
            while marked(&partials, SIZE) < HALF {
                tokio::task::yield_now().await;
            }
            stop.cancel();
        };
        let (ended, ()) = futures::future::join(fetching, stopping).await;
        assert!(matches!(ended, Err(WeightsError::Stopped)), "{ended:?}");
        drop(begun);
        bed.reopen();
        let (progress, stop) = (Progress::default(), CancellationToken::new());
        let warm: WarmWeights =
            warmer(&bed).ensure_files(&llama, &of, vec![file], &progress, &stop).await.unwrap();
        assert_eq!(warm.fetched_bytes, SIZE - HALF, "{number}");
        assert!(bed.read("weights/llama/current/model") == model.bytes);
        bed.assert_tidy();
    }
}

#[tokio::test]
async fn a_file_of_a_directory_is_kept_where_its_parts_are_right() {
    let home = tempfile::tempdir().unwrap();
    let model = served(large(1));
    let file = with(&model, parts(&model.bytes, 1_000_000));
    let puller = Puller::new(engine(), sources(), true);
    let pull = async || {
        let (progress, stop) = (Progress::default(), CancellationToken::new());
        let dir = open(home.path()).unwrap();
        puller.pull_files(&dir, &goods("llama"), vec![file.clone()], &progress, &stop).await.unwrap()
    };
    let first = pull().await;
    assert_eq!((first.kept, first.verified), (0, true));
    assert_eq!(pull().await.kept, 1);
    let mut wrong = large(1);
    wrong[2_500_000] ^= 1;
    std::fs::write(home.path().join("model"), wrong).unwrap();
    assert_eq!(pull().await.kept, 0);
    assert!(std::fs::read(home.path().join("model")).unwrap() == large(1));
}
