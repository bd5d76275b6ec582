//! Sources that say what a small file's bytes are when they send them, or when they're asked.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::super::{WarmWeights, WeightsError};
use super::bed::{Bed, Served, goods, id, served};
use crate::source::{RangeBody, RangeSource, RemoteFile, SourceError};
use crate::types::{ByteRange, Crc, CrcKind, Digest, PartDigests, Progress, Published};

const BYTES: &[u8] = b"twenty bytes, or so.";

/// Says `says` with an answer to a `get` of all, or, where it's a matter of parts, only when it's asked.
#[derive(Debug)]
struct Telling {
    served: Arc<Served>,
    says: Option<Published>,
    told: OnceLock<Option<Published>>,
    asked: AtomicUsize,
}

impl Telling {
    fn new(served: &Arc<Served>, says: Option<Published>) -> Arc<Self> {
        let asked = AtomicUsize::new(0);
        Arc::new(Self { served: served.clone(), says, told: OnceLock::new(), asked })
    }

    fn file(self: &Arc<Self>) -> RemoteFile {
        RemoteFile { bytes: self.clone(), ..self.served.recorded("small.bin", Some("\"v1\"")) }
    }

    fn asked(&self) -> usize {
        self.asked.load(SeqCst)
    }
}

impl RangeSource for Telling {
    fn get(&self, range: ByteRange) -> BoxFuture<'_, Result<RangeBody, SourceError>> {
        async move {
            let body = self.served.get(range).await?;
            let is_of_parts = matches!(self.says, Some(Published::Parts(_)));
            if range.len() == self.served.bytes.len() as u64 && !is_of_parts {
                let _ = self.told.set(self.says.clone());
            }
            Ok(body)
        }
        .boxed()
    }

    fn origin(&self) -> &str {
        "telling"
    }

    fn may_tell(&self) -> bool {
        self.told.get().is_none()
    }

    fn told(&self) -> Option<Published> {
        self.told.get()?.clone()
    }

    fn ask(&self) -> BoxFuture<'_, Result<Option<Published>, SourceError>> {
        self.asked.fetch_add(1, SeqCst);
        std::future::ready(Ok(self.told.get_or_init(|| self.says.clone()).clone())).boxed()
    }
}

/// What comes of one entry; entries with the same `request` are of the same files.
async fn ensure(bed: &Bed, name: &str, request: &str, file: RemoteFile) -> Result<WarmWeights, WeightsError> {
    ensure_with(bed, name, request, file, &Progress::default()).await
}

async fn ensure_with(
    bed: &Bed,
    name: &str,
    request: &str,
    file: RemoteFile,
    progress: &Progress,
) -> Result<WarmWeights, WeightsError> {
    let stop = CancellationToken::new();
    bed.warmer().ensure_files(&id(name), &goods(request), vec![file], progress, &stop).await
}

fn parts(bytes: &[u8]) -> Option<Published> {
    let (one, two) = bytes.split_at(7);
    let parts = [one, two].map(|part| (part.len() as u64, Digest::of(part)));
    PartDigests::new(parts).map(Published::Parts)
}

#[tokio::test]
async fn what_comes_with_the_bytes_is_compared_and_says_whether_they_are_verified() {
    let crc = |bytes: &[u8]| Some(Published::Crc(Crc::of(CrcKind::Crc64Nvme, bytes)));
    let sha256 = |bytes: &[u8]| Some(Published::Sha256(Digest::of(bytes)));
    let of_others = b"twenty bytes, or so?";
    for (says, otherwise, verified, asked) in [
        (sha256(BYTES), sha256(of_others), true, 0),
        (crc(BYTES), crc(of_others), false, 0),
        (parts(BYTES), parts(of_others), true, 1),
        (parts(BYTES), parts(&BYTES[..15]), true, 1),
        (None, None, false, 0),
    ] {
        let bed = Bed::new();
        let right = Telling::new(&served(BYTES), says.clone());
        let warm = ensure(&bed, "right", "right", right.file()).await.unwrap();
        assert_eq!((warm.verified, right.asked()), (verified, asked), "{says:?}");
        let named = bed.current("right").unwrap();
        assert_eq!(named.verified, verified, "{says:?}");
        if otherwise.is_some() {
            let wrong = Telling::new(&served(BYTES), otherwise.clone());
            let error = ensure(&bed, "wrong", "wrong", wrong.file()).await.unwrap_err();
            assert!(matches!(error, WeightsError::Corrupt { tries: 3, .. }), "{otherwise:?}: {error}");
            assert!(bed.current("wrong").is_none());
        }
        bed.assert_tidy();
    }
}

#[tokio::test]
async fn a_file_that_is_warm_is_neither_fetched_nor_asked_about_again() {
    let bed = Bed::new();
    let says = Some(Published::Sha256(Digest::of(BYTES)));
    ensure(&bed, "llama", "llama", Telling::new(&served(BYTES), says.clone()).file()).await.unwrap();
    let again = Telling::new(&served(BYTES), says);
    let warm = ensure(&bed, "llama", "llama", again.file()).await.unwrap();
    assert_eq!((warm.verified, warm.fetched_bytes, again.served.gets(), again.asked()), (true, 0, 0, 0));
}

#[tokio::test]
async fn of_two_jobs_that_want_one_file_the_one_that_does_not_fetch_it_asks() {
    let bed = Bed::new();
    let hold = CancellationToken::new();
    let server = Arc::new(Served { hold: Some(hold.clone()), ..Served::new(BYTES) });
    let says = Some(Published::Sha256(Digest::of(BYTES)));
    let [one, two] = [(); 2].map(|()| Telling::new(&server, says.clone()));
    let progress = [Progress::default(), Progress::default()];
    let (first, second, ()) = tokio::join!(
        ensure_with(&bed, "one", "same", one.file(), &progress[0]),
        ensure_with(&bed, "two", "same", two.file(), &progress[1]),
        async {
            // Both have been let in, and one of them fetches.
            while server.gets() == 0 || progress.iter().any(|progress| progress.total() == 0) {
                tokio::task::yield_now().await;
            }
            hold.cancel();
        }
    );
    assert!(first.unwrap().verified && second.unwrap().verified);
    assert_eq!(server.gets(), 1);
    assert_eq!(one.asked() + two.asked(), 1);
}
