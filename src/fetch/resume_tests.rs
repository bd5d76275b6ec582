//! The engine over a sink that has some of a blob already.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::tests::{PAGE, content, fault, limits};
use super::{Engine, FetchError, Kept, Sink};
use crate::source::{Fault, Faulty, MemorySource};
use crate::types::{ByteRange, Digest, ErrorKind, HASHER_STATE, Hasher, Progress};

/// A file of an earlier fetch, with holes, and the states of the hash as they are told.
struct Half {
    bytes: Mutex<Vec<u8>>,
    told: Mutex<Vec<(u64, [u8; HASHER_STATE])>>,
    /// Reading it back fails.
    unreadable: bool,
}

impl Half {
    fn new(of: &[u8], kept: &[ByteRange]) -> Self {
        let mut bytes = vec![0; of.len()];
        for range in kept {
            let range = range.start() as usize..range.end() as usize;
            bytes[range.clone()].copy_from_slice(&of[range]);
        }
        Self { bytes: Mutex::new(bytes), told: Mutex::default(), unreadable: false }
    }
}

impl Sink for Half {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.bytes.lock().unwrap()[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        if self.unreadable {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.copy_from_slice(&self.bytes.lock().unwrap()[offset as usize..][..bytes.len()]);
        Ok(())
    }

    fn hashed(&self, upto: u64, hasher: &Hasher) {
        self.told.lock().unwrap().push((upto, hasher.state()));
    }
}

fn pages(start: u64, end: u64, size: usize) -> Option<ByteRange> {
    ByteRange::new(start * PAGE, (end * PAGE).min(size as u64))
}

fn hasher(bytes: &[u8]) -> Hasher {
    let mut hasher = Hasher::new();
    hasher.update(bytes);
    hasher
}

async fn fetch_rest(
    engine: &Engine,
    source: Arc<Faulty>,
    sink: Arc<Half>,
    kept: Kept,
) -> (Result<Digest, FetchError>, u64) {
    let (progress, stop) = (Progress::default(), CancellationToken::new());
    let size = sink.bytes.lock().unwrap().len() as u64;
    let fetching = engine.fetch_rest(source, size, sink, kept, &progress, &stop);
    let result = tokio::time::timeout(Duration::from_secs(30), fetching).await.expect("it comes to an end");
    (result, progress.done())
}

#[tokio::test]
async fn only_what_is_missing_is_asked_for() {
    let bytes = content(20 * PAGE as usize + 7);
    let ranges = [pages(0, 5, bytes.len()).unwrap(), pages(8, 9, bytes.len()).unwrap()];
    let kept = Kept::new(bytes.len() as u64, ranges.to_vec(), 2 * PAGE, hasher(&bytes[..2 * PAGE as usize]))
        .unwrap();
    let source = Arc::new(Faulty::new(MemorySource::new(bytes.clone()), []));
    let sink = Arc::new(Half::new(&bytes, &ranges));
    let engine = Engine::impatient(limits(100, 4, 1));
    let (digest, done) = fetch_rest(&engine, source.clone(), sink.clone(), kept).await;
    assert_eq!(digest.unwrap(), Digest::of(&bytes));
    assert_eq!(done, bytes.len() as u64);
    let asked: Vec<_> =
        source.asked().iter().map(|range| (range.start() / PAGE, range.end() / PAGE)).collect();
    assert_eq!(asked, [(5, 8), (9, 13), (13, 17), (17, 20)]);
    assert!(engine.is_at_rest());
}

#[tokio::test]
async fn a_blob_that_is_all_there_is_only_read_back() {
    let bytes = content(9 * PAGE as usize + 1);
    let all = pages(0, 10, bytes.len()).unwrap();
    let source = Arc::new(Faulty::new(MemorySource::new(bytes.clone()), [Fault::Status(500)]));
    let kept = Kept::new(bytes.len() as u64, vec![all], 0, Hasher::new()).unwrap();
    for limits in [limits(8, 2, 2), limits(100, 50, 2)] {
        let (sink, engine) = (Arc::new(Half::new(&bytes, &[all])), Engine::impatient(limits));
        let (digest, _) = fetch_rest(&engine, source.clone(), sink, kept.clone()).await;
        assert_eq!(digest.unwrap(), Digest::of(&bytes));
        assert_eq!(source.asked(), []);
    }
    let mut sink = Half::new(&bytes, &[all]);
    sink.unreadable = true;
    let (error, done) = fetch_rest(&Engine::impatient(limits(8, 2, 2)), source, Arc::new(sink), kept).await;
    assert_eq!((error.unwrap_err().kind(), done), (ErrorKind::Local, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_is_kept_the_whole_comes_and_no_kept_byte_twice(
        size in 1_usize..200_000,
        limit in (1_u64..40, 1_u64..12, 1_usize..6),
        spans in prop::collection::vec((0_u64..6, 1_u64..9), 0..6),
        hashed in 0.0..1.0_f64,
        ignores_ranges in prop::bool::weighted(0.2),
        faults in prop::collection::vec(fault(), 0..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let bytes = content(size);
            let mut ranges: Vec<ByteRange> = Vec::new();
            let mut page = 0;
            for (gap, len) in spans {
                ranges.extend(pages(page + gap, page + gap + len, size));
                page += gap + len;
            }
            let gapless = ranges.iter().try_fold(0, |upto, range| {
                if range.start() == upto { Ok(range.end()) } else { Err(upto) }
            });
            let gapless = gapless.unwrap_or_else(|upto| upto);
            let upto = (gapless as f64 * hashed) as u64;
            let kept = Kept::new(size as u64, ranges.clone(), upto, hasher(&bytes[..upto as usize])).unwrap();
            let source = Faulty::new(MemorySource::new(bytes.clone()), faults);
            let source = Arc::new(if ignores_ranges { source.ignoring_ranges() } else { source });
            let sink = Arc::new(Half::new(&bytes, &ranges));
            let engine = Engine::impatient(limits(limit.0, limit.1, limit.2));
            let (digest, done) = fetch_rest(&engine, source.clone(), sink.clone(), kept).await;
            assert_eq!(digest.unwrap(), Digest::of(&bytes));
            assert!(*sink.bytes.lock().unwrap() == bytes);
            assert_eq!(done, size as u64);
            if !ignores_ranges && size as u64 > limit.1.min(limit.0) * PAGE {
                let again = |asked: &ByteRange| {
                    ranges.iter().any(|kept| asked.start() < kept.end() && kept.start() < asked.end())
                };
                assert!(!source.asked().iter().any(again), "{:?} over {ranges:?}", source.asked());
            }
            for (upto, state) in sink.told.lock().unwrap().iter() {
                let told = Hasher::from_state(state).unwrap().finish();
                assert_eq!(told, Digest::of(&bytes[..*upto as usize]));
            }
            assert!(engine.is_at_rest());
        });
    }
}
