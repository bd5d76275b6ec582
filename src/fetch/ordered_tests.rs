//! Bytes in order, for readers of every kind, from sources that fail in every way there is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use proptest::prelude::*;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::tests::{PAGE, content, fault, faulty, limits};
use super::{ALIGNMENT, Engine, FetchError, Limits, Piece, Sink};
use crate::rt::Metrics;
use crate::source::{Fault, Faulty, MemorySource, RangeBody, RangeSource, SourceError};
use crate::types::{ByteRange, Digest, ErrorKind, Progress};

/// How a reader treats what it gets.
#[derive(Debug, Clone, Copy)]
enum Pace {
    /// It lets go at once.
    Prompt,
    /// It lets others go first, so many times, while it holds a piece.
    Slow(usize),
    /// It gives every piece to two others, who let go later, each in its own time.
    Shared,
}

/// Reads to the end, and holds every piece against the ones before it.
async fn read(mut pieces: Receiver<Piece>, pace: Pace) -> Vec<u8> {
    let mut got = Vec::new();
    let mut others = Vec::new();
    while let Some(piece) = pieces.recv().await {
        assert_eq!(piece.offset(), got.len() as u64, "in order and without gaps");
        assert!(!piece.bytes().is_empty());
        got.extend_from_slice(piece.as_ref());
        assert_eq!(piece.end(), got.len() as u64);
        match pace {
            Pace::Prompt => {}
            Pace::Slow(turns) => {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
            }
            Pace::Shared => {
                for turns in [3, 20] {
                    let piece = piece.clone();
                    others.push(tokio::spawn(async move {
                        for _ in 0..turns {
                            tokio::task::yield_now().await;
                        }
                        drop(piece);
                    }));
                }
            }
        }
    }
    futures::future::try_join_all(others).await.unwrap();
    got
}

struct Came {
    result: Result<(), FetchError>,
    bytes: Vec<u8>,
    done: u64,
}

async fn fetch(engine: &Engine, source: Arc<dyn RangeSource>, size: usize, pace: Pace) -> Came {
    let (progress, stop) = (Progress::default(), CancellationToken::new());
    let (send, receive) = channel(2);
    let fetching = engine.fetch_in_order(source, size as u64, send, &progress, &stop);
    let both = futures::future::join(fetching, read(receive, pace));
    let (result, bytes) =
        tokio::time::timeout(Duration::from_secs(30), both).await.expect("it comes to an end");
    Came { result, bytes, done: progress.done() }
}

/// A blob that can be watched, whose server stops serving ranges after so many requests, and stops sending after so
/// many bytes of each body.
#[derive(Debug)]
struct Watched {
    inner: MemorySource,
    gets: AtomicUsize,
    ranges_end_after: usize,
    body_ends_after: usize,
}

impl Watched {
    fn new(bytes: Vec<u8>) -> Self {
        Self {
            inner: MemorySource::new(bytes),
            gets: AtomicUsize::new(0),
            ranges_end_after: usize::MAX,
            body_ends_after: usize::MAX,
        }
    }
}

impl RangeSource for Watched {
    fn get(&self, range: ByteRange) -> BoxFuture<'_, Result<RangeBody, SourceError>> {
        self.gets.fetch_add(1, Ordering::SeqCst);
        async move {
            let body = self.inner.get(range).await?;
            if range.len() <= self.body_ends_after as u64 {
                return Ok(body);
            }
            let mut whole = body.bytes.map(|bytes| bytes.unwrap().to_vec()).concat().await;
            whole.truncate(self.body_ends_after);
            let begun = futures::stream::iter([Ok(Bytes::from(whole))]);
            Ok(RangeBody { bytes: begun.chain(futures::stream::pending()).boxed() })
        }
        .boxed()
    }

    fn origin(&self) -> &str {
        "watched"
    }

    fn serves_ranges(&self) -> bool {
        self.gets.load(Ordering::SeqCst) <= self.ranges_end_after
    }
}

#[tokio::test]
async fn a_small_blob_is_one_get_and_an_empty_one_none() {
    let engine = Engine::new(limits(64, 32, 4));
    let bytes = content(5000);
    let source = faulty(&bytes, []);
    let came = fetch(&engine, source.clone(), bytes.len(), Pace::Prompt).await;
    came.result.unwrap();
    assert_eq!(came.bytes, bytes);
    assert_eq!(source.asked(), [ByteRange::new(0, 5000).unwrap()]);
    assert_eq!(came.done, 5000);
    let source = faulty(&[], []);
    fetch(&engine, source.clone(), 0, Pace::Prompt).await.result.unwrap();
    assert_eq!(source.asked(), []);
    assert!(engine.is_at_rest());
}

#[tokio::test]
async fn the_first_ranges_are_short() {
    let bytes = content(64 * ALIGNMENT);
    let source = faulty(&bytes, []);
    let came = fetch(&Engine::new(limits(256, 16, 4)), source.clone(), bytes.len(), Pace::Prompt).await;
    came.result.unwrap();
    assert_eq!(came.bytes, bytes);
    let lengths: Vec<u64> = source.asked().iter().map(|range| range.len() / PAGE).collect();
    assert_eq!(lengths, [2, 4, 8, 16, 16, 16, 2]);
}

#[tokio::test]
async fn what_has_come_of_a_range_is_handed_out_before_the_rest() {
    let source = Watched { body_ends_after: 3 * ALIGNMENT, ..Watched::new(content(64 * ALIGNMENT)) };
    let (progress, stop) = (Progress::default(), CancellationToken::new());
    let engine = Engine::new(limits(256, 16, 1));
    let (send, mut receive) = channel(1);
    let fetching = engine.fetch_in_order(Arc::new(source), 64 * PAGE, send, &progress, &stop);
    let reading = async {
        for page in 0..3 {
            assert_eq!(receive.recv().await.expect("a page").offset(), page * PAGE);
        }
    };
    tokio::select! {
        result = fetching => panic!("{result:?}"),
        read = tokio::time::timeout(Duration::from_secs(30), reading) => read.expect("they come"),
    }
}

#[tokio::test]
async fn a_server_without_ranges_is_read_once_and_no_faster_than_the_reader() {
    let bytes = content(200 * ALIGNMENT + 5);
    for pace in [Pace::Prompt, Pace::Slow(5), Pace::Shared] {
        let source = Faulty::new(MemorySource::new(bytes.clone()), []).ignoring_ranges();
        let source = Arc::new(source);
        let engine = Engine::impatient(limits(16, 16, 1));
        let came = fetch(&engine, source.clone(), bytes.len(), pace).await;
        came.result.unwrap();
        assert_eq!(came.bytes, bytes);
        assert_eq!(came.done, bytes.len() as u64);
        assert_eq!(source.asked().len(), 2, "one range, and then all");
        assert!(engine.is_at_rest());
    }
}

#[tokio::test]
async fn a_server_that_stops_serving_ranges_goes_on_where_the_reader_is() {
    let bytes = content(100 * ALIGNMENT);
    for after in 1..9 {
        let source = Arc::new(Watched { ranges_end_after: after, ..Watched::new(bytes.clone()) });
        let engine = Engine::impatient(limits(32, 8, 3));
        let came = fetch(&engine, source, bytes.len(), Pace::Slow(1)).await;
        came.result.unwrap();
        assert_eq!(came.bytes, bytes);
        assert_eq!(came.done, bytes.len() as u64);
        assert!(engine.is_at_rest());
    }
}

/// Goes on until nothing moves any more: a paused clock only goes on then.
async fn until_quiet(fetching: &mut (impl Future<Output = Result<(), FetchError>> + Unpin)) {
    tokio::select! {
        result = fetching => panic!("{result:?}"),
        () = tokio::time::sleep(Duration::from_secs(1)) => {}
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_comes_than_the_window_while_the_reader_holds_what_it_has() {
    let size = 400 * ALIGNMENT;
    let source = faulty(&content(size), []);
    let engine = Engine::new(limits(1000, 4, 2));
    let (progress, stop) = (Progress::default(), CancellationToken::new());
    let (send, mut receive) = channel(500);
    let mut fetching = Box::pin(engine.fetch_in_order(source.clone(), size as u64, send, &progress, &stop));
    until_quiet(&mut fetching).await;
    let reach = |source: &Faulty| source.asked().iter().map(|range| range.end()).max().unwrap() / PAGE;
    let first = reach(&source);
    assert!((13..=16).contains(&first), "2 × 2 ranges of 4 pages: {first}");
    let held = receive.recv().await.expect("a piece");
    let taken = receive.recv().await.expect("a piece");
    drop(taken);
    until_quiet(&mut fetching).await;
    assert_eq!(reach(&source), first, "the first piece is still held");
    let clone = held.clone();
    drop(held);
    until_quiet(&mut fetching).await;
    assert_eq!(reach(&source), first, "by its clone, too");
    for _ in 0..3 {
        drop(receive.recv().await.expect("a piece"));
    }
    drop(clone);
    until_quiet(&mut fetching).await;
    assert!(reach(&source) > first);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stands_still_takes_its_share_of_memory_and_no_more() {
    let size = 400 * ALIGNMENT;
    let engine = Engine::new(limits(64, 8, 4));
    let (progress, stop) = (Progress::default(), CancellationToken::new());
    let (send, receive) = channel(500);
    let standing = faulty(&content(size), []);
    let mut fetching = Box::pin(engine.fetch_in_order(standing.clone(), size as u64, send, &progress, &stop));
    let going = fetch(&engine, faulty(&content(size), []), size, Pace::Slow(1));
    tokio::select! {
        // Both are there before either has gone far: who comes late to one who stands still gets nothing.
        biased;
        came = going => came.result.unwrap(),
        result = &mut fetching => panic!("{result:?}"),
    }
    let reach = standing.asked().iter().map(|range| range.end()).max().unwrap();
    assert!(reach <= 32 * PAGE, "half of all memory: {reach}");
    drop(receive);
}

/// A server behind a link: each answer begins after `delay`, and each connection brings so many bytes a second.
#[derive(Debug)]
struct Link {
    delay: Duration,
    rate: u32,
}

impl RangeSource for Link {
    fn get(&self, range: ByteRange) -> BoxFuture<'_, Result<RangeBody, SourceError>> {
        let (begin, rate) = (Instant::now() + self.delay, self.rate);
        let ends =
            (0..range.len()).step_by(LINK_CHUNK).map(move |start| range.len().min(start + LINK_CHUNK as u64));
        let body = futures::stream::iter(ends).then(move |end| async move {
            tokio::time::sleep_until(begin + Duration::from_secs(end) / rate).await;
            let start = (end - 1) / LINK_CHUNK as u64 * LINK_CHUNK as u64;
            Ok(Bytes::from(vec![0; (end - start) as usize]))
        });
        async move { Ok(RangeBody { bytes: body.boxed() }) }.boxed()
    }

    fn origin(&self) -> &str {
        "link"
    }
}

const LINK_CHUNK: usize = 128 << 10;

/// As an object store behind a registry does it: 20 ms to the first byte, then 90 MB/s for each connection.
#[tokio::test(start_paused = true)]
async fn a_link_is_busy_from_the_beginning() {
    let size: usize = 256 << 20;
    let engine = Engine::new(Limits::default());
    let (progress, stop) = (Progress::default(), CancellationToken::new());
    let (send, mut receive) = channel(4);
    let link = Arc::new(Link { delay: Duration::from_millis(20), rate: 90_000_000 });
    let begun = Instant::now();
    let fetching = engine.fetch_in_order(link, size as u64, send, &progress, &stop);
    let reading = async {
        assert_eq!(receive.recv().await.expect("a piece").bytes().len(), 1 << 20);
        let first = begun.elapsed();
        while receive.recv().await.is_some() {}
        first
    };
    let (result, first) = tokio::join!(fetching, reading);
    result.unwrap();
    assert!(first <= Duration::from_millis(20 + 12 + 2), "as fast as one connection brings 1 MiB: {first:?}");
    let all = Duration::from_secs(size as u64) / (4 * 90_000_000);
    assert!(begun.elapsed() < all.mul_f64(1.25), "four connections could in {all:?}: {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_piece_outlives_its_fetch_and_then_gives_its_memory_back() {
    for size in [ALIGNMENT, 20 * ALIGNMENT] {
        let engine = Engine::new(limits(64, 16, 4));
        let bytes = content(size);
        let (progress, stop) = (Progress::default(), CancellationToken::new());
        let (send, mut receive) = channel(100);
        let source = faulty(&bytes, []);
        engine.fetch_in_order(source, size as u64, send, &progress, &stop).await.unwrap();
        let first = receive.recv().await.expect("a piece");
        while receive.recv().await.is_some() {}
        assert_eq!(first.bytes(), &bytes[..ALIGNMENT]);
        assert!(!engine.is_at_rest());
        drop(first);
        assert!(engine.is_at_rest());
    }
}

#[tokio::test]
async fn a_reader_that_leaves_ends_it() {
    for (size, fault, reads) in [
        (100, Fault::Hang, 0),
        (100 * ALIGNMENT, Fault::Hang, 0),
        (100 * ALIGNMENT, Fault::Fine, 0),
        (100 * ALIGNMENT, Fault::Fine, 3),
    ] {
        for source in [Faulty::ignoring_ranges, |source| source] {
            let source = source(Faulty::new(MemorySource::new(content(size)), vec![fault.clone(); 50]));
            let engine = Engine::new(limits(8, 2, 2));
            let (progress, stop) = (Progress::default(), CancellationToken::new());
            let (send, mut receive) = channel(1);
            let fetching = engine.fetch_in_order(Arc::new(source), size as u64, send, &progress, &stop);
            let reading = async move {
                for _ in 0..reads {
                    assert!(receive.recv().await.is_some());
                }
                tokio::task::yield_now().await;
            };
            let both = futures::future::join(fetching, reading);
            let (result, ()) = tokio::time::timeout(Duration::from_secs(30), both).await.expect("promptly");
            assert!(matches!(result, Err(FetchError::Cancelled)), "{result:?}");
            assert_eq!(progress.done(), 0);
            assert!(engine.is_at_rest());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn stop_ends_it_while_the_reader_does_nothing() {
    let engine = Engine::new(limits(8, 2, 2));
    let (progress, stop) = (Progress::default(), CancellationToken::new());
    let (send, receive) = channel(1);
    let mut fetching = Box::pin(engine.fetch_in_order(
        faulty(&content(100 * ALIGNMENT), []),
        100 * PAGE,
        send,
        &progress,
        &stop,
    ));
    until_quiet(&mut fetching).await;
    stop.cancel();
    assert!(matches!(fetching.await, Err(FetchError::Cancelled)));
    assert_eq!(progress.done(), 0);
    drop(receive);
    assert!(engine.is_at_rest());
}

#[tokio::test]
async fn what_fails_for_good_leaves_the_reader_with_a_beginning() {
    for (fault, kind) in [
        (Fault::Changed, ErrorKind::Changed),
        (Fault::Status(404), ErrorKind::NotFound),
        (Fault::Status(403), ErrorKind::Denied),
    ] {
        let bytes = content(40 * ALIGNMENT);
        let engine = Engine::impatient(limits(8, 2, 2));
        let source = faulty(&bytes, [Fault::Fine, Fault::Fine, Fault::Fine, fault]);
        let came = fetch(&engine, source, bytes.len(), Pace::Prompt).await;
        assert_eq!(came.result.unwrap_err().kind(), kind);
        assert!(came.bytes.len() < bytes.len() && bytes.starts_with(&came.bytes));
        assert_eq!(came.done, 0, "what arrived is taken back");
        assert!(engine.is_at_rest());
    }
}

#[tokio::test]
async fn tries_come_to_an_end() {
    for size in [5000, 40 * ALIGNMENT] {
        let engine = Engine::impatient(limits(8, 2, 2));
        let came =
            fetch(&engine, faulty(&content(size), vec![Fault::Status(503); 1000]), size, Pace::Prompt).await;
        assert!(matches!(came.result, Err(FetchError::TriesExhausted { tries: 7, .. })), "{:?}", came.result);
    }
}

#[tokio::test]
async fn every_further_try_is_counted_by_its_reason() {
    for size in [5000, 60 * ALIGNMENT] {
        let metrics = Arc::new(Metrics::new());
        let engine = Engine::impatient(limits(32, 8, 2)).counting_in(Arc::clone(&metrics));
        let source = faulty(&content(size), [Fault::Status(503), Fault::Reset(10), Fault::Cut(0)]);
        fetch(&engine, source, size, Pace::Prompt).await.result.unwrap();
        let source = faulty(&content(size), vec![Fault::Status(404); 9]);
        fetch(&engine, source, size, Pace::Prompt).await.result.unwrap_err();
        let mut text = String::new();
        metrics.encode(&mut text).unwrap();
        for (reason, count) in [("throttled", 1), ("transient", 2), ("not_found", 0)] {
            let line = format!("stoker_fetch_retries_total{{reason=\"{reason}\"}} {count}");
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }
}

struct Nowhere;

impl Sink for Nowhere {
    fn write_at(&self, _: u64, _: &[u8]) -> std::io::Result<()> {
        Ok(())
    }
}

/// A budget of one range or even less, one connection, and a dozen blobs that want both at once: some to be read in
/// order by readers of all paces, some to be stored, some from servers without ranges or with faults, and one whose
/// reader leaves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tiny_budget_is_slow_but_never_stuck() {
    for (memory, range) in [(1, 1), (2, 2), (3, 2), (2, 100), (0, 0), (40, 40), (33, 32)] {
        let engine = Engine::impatient(Limits { per_origin: 1, ..limits(memory, range, 3) });
        let fetches = (0..12_usize).map(|number| {
            let bytes = content(90 * ALIGNMENT + number * 1000);
            let faults = (0..60).map(move |at| match (at + number) % 5 {
                0 => Fault::Cut(3000),
                1 => Fault::Late(3),
                2 => Fault::Status(503),
                _ => Fault::Fine,
            });
            let source = Faulty::new(MemorySource::new(bytes.clone()), faults);
            let source = Arc::new(if number % 4 == 0 { source.ignoring_ranges() } else { source });
            let engine = engine.clone();
            tokio::spawn(async move {
                let (progress, stop) = (Progress::default(), CancellationToken::new());
                let size = bytes.len() as u64;
                if number == 1 {
                    let (send, mut receive) = channel(1);
                    let fetching = engine.fetch_in_order(source, size, send, &progress, &stop);
                    let _ = tokio::join!(fetching, async move { receive.recv().await });
                } else if number % 3 == 1 {
                    let digest = engine.fetch(source, size, Arc::new(Nowhere), &progress, &stop).await;
                    assert_eq!(digest.unwrap(), Digest::of(&bytes));
                } else {
                    let pace = [Pace::Prompt, Pace::Slow(50), Pace::Shared][number % 3];
                    let came = fetch(&engine, source, bytes.len(), pace).await;
                    came.result.unwrap();
                    assert_eq!(came.bytes, bytes);
                }
            })
        });
        let all = futures::future::try_join_all(fetches);
        tokio::time::timeout(Duration::from_secs(60), all).await.expect("nothing is stuck").unwrap();
        assert!(engine.is_at_rest());
    }
}

fn pace() -> impl Strategy<Value = Pace> {
    prop_oneof![Just(Pace::Prompt), (0_usize..30).prop_map(Pace::Slow), Just(Pace::Shared)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// No more faults than one unlucky range survives, so both blobs must come, whole and in order.
    #[test]
    fn every_byte_comes_in_order_whatever_breaks(
        sizes in prop::array::uniform2(1_usize..200_000),
        memory in 1_u64..60,
        range in 1_u64..40,
        per_blob in 1_usize..6,
        ignores_ranges in prop::bool::weighted(0.2),
        paces in prop::array::uniform2(pace()),
        faults in prop::array::uniform2(prop::collection::vec(fault(), 0..6)),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let engine = Engine::impatient(limits(memory, range, per_blob));
            let [one, other] = [0, 1].map(|which| {
                let bytes = content(sizes[which]);
                let source = Faulty::new(MemorySource::new(bytes.clone()), faults[which].clone());
                let source = Arc::new(if ignores_ranges { source.ignoring_ranges() } else { source });
                let engine = &engine;
                async move {
                    let came = fetch(engine, source, bytes.len(), paces[which]).await;
                    came.result.unwrap();
                    assert!(came.bytes == bytes);
                    assert_eq!(came.done, bytes.len() as u64);
                }
            });
            tokio::join!(one, other);
            assert!(engine.is_at_rest());
        });
    }
}
