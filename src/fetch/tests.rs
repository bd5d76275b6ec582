//! The engine against sources that fail in every way there is.

use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::{ALIGNMENT, Engine, FetchError, Limits, Sink};
use crate::source::{Fault, Faulty, MemorySource, SourceError};
use crate::types::{ByteRange, Digest, ErrorKind, Progress};

/// What was written, and that it was written as promised.
struct Memory(Mutex<Vec<Option<u8>>>);

impl Memory {
    fn new(size: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(vec![None; size])))
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().iter().map(|byte| byte.expect("every byte is written")).collect()
    }
}

impl Sink for Memory {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut blob = self.0.lock().unwrap();
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        assert!(start < end && start.is_multiple_of(ALIGNMENT), "{start}..{end}");
        assert_eq!(bytes.as_ptr().align_offset(ALIGNMENT), 0);
        assert!(end == blob.len() || end.is_multiple_of(ALIGNMENT), "{start}..{end}");
        for (to, from) in blob[start..end].iter_mut().zip(bytes) {
            assert_eq!(to.replace(*from), None, "written twice");
        }
        Ok(())
    }
}

/// A disk that holds every write until it's let go, and then fails if it's told to.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    is_open: bool,
    inside: usize,
    begun: usize,
}

impl Gate {
    fn open(&self) {
        self.state.lock().unwrap().is_open = true;
        self.changed.notify_all();
    }
}

impl Sink for Gate {
    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.inside += 1;
        state.begun += 1;
        let mut state = self.changed.wait_while(state, |state| !state.is_open).unwrap();
        state.inside -= 1;
        Ok(())
    }
}

struct Full;

impl Sink for Full {
    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(rustix::io::Errno::NOSPC.into())
    }
}

pub(super) const PAGE: u64 = ALIGNMENT as u64;

pub(super) fn limits(memory_pages: u64, range_pages: u64, per_blob: usize) -> Limits {
    Limits { memory: memory_pages * PAGE, range: range_pages * PAGE, per_origin: 5, per_blob }
}

pub(super) fn content(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

async fn fetch(
    engine: &Engine,
    source: Arc<Faulty>,
    size: usize,
    sink: Arc<dyn Sink>,
) -> (Result<Digest, FetchError>, u64) {
    let progress = Progress::default();
    let stop = CancellationToken::new();
    // A hang is the worst that an engine can do, so every test would find it.
    let fetching = engine.fetch(source, size as u64, sink, &progress, &stop);
    let result = tokio::time::timeout(Duration::from_secs(30), fetching).await.expect("it comes to an end");
    (result, progress.done())
}

pub(super) fn faulty(bytes: &[u8], faults: impl IntoIterator<Item = Fault>) -> Arc<Faulty> {
    Arc::new(Faulty::new(MemorySource::new(bytes.to_vec()), faults))
}

#[tokio::test]
async fn a_small_blob_is_one_get() {
    let engine = Engine::new(limits(10, 2, 4));
    let bytes = content(5000);
    let (source, sink) = (faulty(&bytes, []), Memory::new(bytes.len()));
    let (digest, done) = fetch(&engine, source.clone(), bytes.len(), sink.clone()).await;
    assert_eq!(digest.unwrap(), Digest::of(&bytes));
    assert_eq!(sink.bytes(), bytes);
    assert_eq!(source.asked(), [ByteRange::new(0, 5000).unwrap()]);
    assert_eq!(done, 5000);
    assert!(engine.is_at_rest());
}

#[tokio::test]
async fn an_empty_blob_is_no_get() {
    let source = faulty(&[], []);
    let (digest, _) = fetch(&Engine::new(Limits::default()), source.clone(), 0, Memory::new(0)).await;
    assert_eq!(digest.unwrap(), Digest::of(&[]));
    assert_eq!(source.asked(), []);
}

#[tokio::test]
async fn only_the_rest_of_a_broken_range_is_asked_for_again() {
    let bytes = content(10 * ALIGNMENT);
    let source = faulty(&bytes, [Fault::Reset(100), Fault::Cut(1)]);
    let sink = Memory::new(bytes.len());
    let engine = Engine::impatient(limits(100, 2, 1));
    let (digest, done) = fetch(&engine, source.clone(), bytes.len(), sink.clone()).await;
    assert_eq!(digest.unwrap(), Digest::of(&bytes));
    let mut starts: Vec<u64> = source.asked().iter().map(|range| range.start()).collect();
    starts.sort_unstable();
    assert_eq!(starts, [0, 100, 2 * PAGE, 2 * PAGE + 1, 4 * PAGE, 6 * PAGE, 8 * PAGE]);
    assert_eq!(done, bytes.len() as u64);
}

#[tokio::test]
async fn a_break_after_the_last_byte_is_none() {
    for (size, pages) in [(5000, 2), (8193, 1)] {
        let bytes = content(size);
        let source = faulty(&bytes, [Fault::Reset(size as u64)]);
        let engine = Engine::impatient(limits(5 * pages, pages, 1));
        let (digest, _) = fetch(&engine, source.clone(), size, Memory::new(size)).await;
        assert_eq!(digest.unwrap(), Digest::of(&bytes));
        assert_eq!(source.asked().len() as u64, (size as u64).div_ceil(pages * PAGE));
    }
}

#[tokio::test]
async fn a_flipped_byte_gives_another_digest() {
    for size in [5000, 10 * ALIGNMENT + 1] {
        let bytes = content(size);
        let engine = Engine::new(limits(8, 2, 4));
        let source = faulty(&bytes, [Fault::Flip(77)]);
        let (digest, _) = fetch(&engine, source, size, Memory::new(size)).await;
        assert_ne!(digest.unwrap(), Digest::of(&bytes));
    }
}

#[tokio::test]
async fn what_time_does_not_mend_ends_it_at_once() {
    let cases = [
        (Fault::Changed, ErrorKind::Changed),
        (Fault::Status(404), ErrorKind::NotFound),
        (Fault::Status(403), ErrorKind::Denied),
        (Fault::Status(412), ErrorKind::Changed),
    ];
    for (fault, kind) in cases {
        for size in [5000, 40 * ALIGNMENT] {
            let bytes = content(size);
            let source = faulty(
                &bytes,
                [Fault::Fine, Fault::Fine, fault.clone()].into_iter().skip(if size == 5000 { 2 } else { 0 }),
            );
            let engine = Engine::impatient(limits(8, 2, 2));
            let (result, done) = fetch(&engine, source.clone(), size, Memory::new(size)).await;
            assert_eq!(result.unwrap_err().kind(), kind);
            assert!(source.asked().len() <= 8, "{:?}", source.asked());
            assert_eq!(done, 0, "what arrived is taken back");
            assert!(engine.is_at_rest());
        }
    }
}

#[tokio::test]
async fn tries_come_to_an_end() {
    for size in [5000, 40 * ALIGNMENT] {
        let source = faulty(&content(size), vec![Fault::Status(503); 1000]);
        let engine = Engine::impatient(limits(8, 2, 2));
        let (result, _) = fetch(&engine, source.clone(), size, Memory::new(size)).await;
        let error = result.unwrap_err();
        assert!(
            matches!(error, FetchError::TriesExhausted { tries: 7, last: SourceError::Status { .. } }),
            "{error:?}"
        );
        assert!(source.asked().len() <= 6 * 7);
    }
}

#[tokio::test]
async fn crumbs_are_no_progress() {
    let source = faulty(&content(5000), vec![Fault::Cut(1); 1000]);
    let (result, _) =
        fetch(&Engine::impatient(limits(10, 2, 2)), source.clone(), 5000, Memory::new(5000)).await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Transient);
    assert_eq!(source.asked().len(), 7);
}

#[tokio::test]
async fn more_than_was_asked_for_is_never_taken() {
    for size in [5000, 40 * ALIGNMENT] {
        let bytes = content(size);
        let source = faulty(&bytes, [Fault::TooMuch]);
        let sink = Memory::new(size);
        let (digest, _) = fetch(&Engine::impatient(limits(8, 2, 2)), source, size, sink.clone()).await;
        assert_eq!(digest.unwrap(), Digest::of(&bytes));
        assert_eq!(sink.bytes(), bytes);
    }
}

#[tokio::test]
async fn a_server_without_ranges_is_read_once() {
    let bytes = content(41 * ALIGNMENT + 5);
    let source = Faulty::new(MemorySource::new(bytes.clone()), [Fault::Fine, Fault::Fine]).ignoring_ranges();
    let (source, sink) = (Arc::new(source), Memory::new(bytes.len()));
    let engine = Engine::impatient(limits(16, 4, 2));
    let (digest, done) = fetch(&engine, source.clone(), bytes.len(), sink.clone()).await;
    assert_eq!(digest.unwrap(), Digest::of(&bytes));
    assert_eq!(sink.bytes(), bytes);
    assert_eq!(done, bytes.len() as u64);
    let whole = ByteRange::new(0, bytes.len() as u64).unwrap();
    assert_eq!(source.asked().iter().filter(|range| **range == whole).count(), 1);
    assert!(source.asked().len() <= 5, "as many travelled as there are connections when it turned out");
}

#[tokio::test]
async fn a_full_disk_is_no_space() {
    for size in [5000, 40 * ALIGNMENT] {
        let engine = Engine::impatient(limits(8, 2, 2));
        let (result, done) = fetch(&engine, faulty(&content(size), []), size, Arc::new(Full)).await;
        assert_eq!(result.unwrap_err().kind(), ErrorKind::NoSpace);
        assert_eq!(done, 0);
        assert!(engine.is_at_rest());
    }
}

#[tokio::test]
async fn stop_ends_a_hanging_transfer() {
    for size in [5000, 40 * ALIGNMENT] {
        let engine = Engine::new(limits(8, 2, 2));
        let source = faulty(&content(size), vec![Fault::Hang; 100]);
        let stop = CancellationToken::new();
        let progress = Progress::default();
        let fetching = engine.fetch(source.clone(), size as u64, Memory::new(size), &progress, &stop);
        let stopping = async {
            while source.asked().is_empty() {
                tokio::task::yield_now().await;
            }
            stop.cancel();
        };
        let both = futures::future::join(fetching, stopping);
        let (result, ()) = tokio::time::timeout(Duration::from_secs(10), both).await.expect("promptly");
        assert!(matches!(result, Err(FetchError::Cancelled)));
        assert!(engine.is_at_rest());
    }
}

#[tokio::test]
async fn stop_waits_for_the_writes_that_have_begun() {
    for size in [5000, 40 * ALIGNMENT] {
        let engine = Engine::new(limits(8, 2, 2));
        let (gate, stop, progress) =
            (Arc::new(Gate::default()), CancellationToken::new(), Progress::default());
        let fetching = engine.fetch(faulty(&content(size), []), size as u64, gate.clone(), &progress, &stop);
        tokio::pin!(fetching);
        let has_begun = async {
            while gate.state.lock().unwrap().begun == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            result = &mut fetching => panic!("{result:?}"),
            () = has_begun => stop.cancel(),
        }
        assert!(futures::poll!(&mut fetching).is_pending(), "a write is under way");
        gate.open();
        let result = tokio::time::timeout(Duration::from_secs(10), fetching).await.expect("promptly");
        assert!(matches!(result, Err(FetchError::Cancelled)));
        assert_eq!(gate.state.lock().unwrap().inside, 0);
        assert!(engine.is_at_rest());
    }
}

#[tokio::test]
async fn a_dropped_fetch_gives_its_memory_back() {
    let engine = Engine::new(limits(4, 2, 2));
    let size = 40 * ALIGNMENT;
    let progress = Progress::default();
    let stop = CancellationToken::new();
    let source = faulty(&content(size), [Fault::Fine, Fault::Cut(100), Fault::Hang, Fault::Hang]);
    let mut fetching =
        Box::pin(engine.fetch(source.clone(), size as u64, Memory::new(size), &progress, &stop));
    while source.asked().len() < 2 {
        assert!(futures::poll!(&mut fetching).is_pending());
        tokio::task::yield_now().await;
    }
    drop(fetching);
    assert_eq!(progress.done(), 0);
    let (digest, _) = fetch(&engine, faulty(&content(size), []), size, Memory::new(size)).await;
    assert_eq!(digest.unwrap(), Digest::of(&content(size)));
}

/// The whole budget is less than two ranges of one blob, and six blobs want it at once, over one connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tiny_budget_is_slow_but_never_stuck() {
    for (memory, range) in [(1, 1), (3, 2), (2, 100), (0, 0), (5, 3)] {
        let engine = Engine::impatient(Limits { per_origin: 1, ..limits(memory, range, 3) });
        let fetches = (0..6_usize).map(|number| {
            let bytes = content(30 * ALIGNMENT + number * 1000);
            let faults = (0..60).map(move |at| match (at + number) % 5 {
                0 => Fault::Cut(3000),
                1 => Fault::Late(3),
                2 => Fault::Status(503),
                _ => Fault::Fine,
            });
            let source = Faulty::new(MemorySource::new(bytes.clone()), faults);
            let source = Arc::new(if number == 0 { source.ignoring_ranges() } else { source });
            let engine = engine.clone();
            tokio::spawn(async move {
                let sink = Memory::new(bytes.len());
                let (digest, _) = fetch(&engine, source, bytes.len(), sink.clone()).await;
                assert_eq!(digest.unwrap(), Digest::of(&bytes));
                assert_eq!(sink.bytes(), bytes);
            })
        });
        futures::future::try_join_all(fetches).await.unwrap();
        assert!(engine.is_at_rest());
    }
}

pub(super) fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        2 => Just(Fault::Fine),
        3 => (0_u8..20).prop_map(Fault::Late),
        2 => (0_u64..20_000).prop_map(Fault::Cut),
        2 => (0_u64..20_000).prop_map(Fault::Reset),
        1 => Just(Fault::Status(503)),
        1 => Just(Fault::Status(500)),
        1 => Just(Fault::TooMuch),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// No more faults than one unlucky range survives, so every blob must come, whole and in place.
    #[test]
    fn every_byte_comes_whatever_breaks(
        size in 1_usize..200_000,
        memory in 1_u64..40,
        range in 1_u64..12,
        per_blob in 1_usize..6,
        ignores_ranges in prop::bool::weighted(0.2),
        faults in prop::collection::vec(fault(), 0..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let bytes = content(size);
            let source = Faulty::new(MemorySource::new(bytes.clone()), faults);
            let source = Arc::new(if ignores_ranges { source.ignoring_ranges() } else { source });
            let engine = Engine::impatient(limits(memory, range, per_blob));
            let sink = Memory::new(size);
            let (digest, done) = fetch(&engine, source, size, sink.clone()).await;
            assert_eq!(digest.unwrap(), Digest::of(&bytes));
            assert_eq!(sink.bytes(), bytes);
            assert_eq!(done, size as u64);
            assert!(engine.is_at_rest());
        });
    }
}
