//! The engine against servers that take their time, on a clock that stands still while anybody works: how fast it is,
//! and how it behaves towards others.

use std::io;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Engine, Limits, Sink, Urgency};
use crate::source::{RangeBody, RangeSource, SourceError};
use crate::types::{ByteRange, Progress};

const MB: u64 = 1_000_000;
const MIB: u64 = 1 << 20;
const CHUNK: u64 = 256 << 10;

/// What a server is like.
#[derive(Debug, Clone, Copy)]
struct Server {
    round_trip: Duration,
    /// Bytes a second by one connection, and by all.
    each: u64,
    all: u64,
    /// Every eighth connection is so many times slower.
    slow: u64,
    /// It answers 503 to more.
    most: usize,
    part: Option<u64>,
}

const PLAIN: Server = Server {
    round_trip: Duration::from_millis(20),
    each: 30 * MB,
    all: u64::MAX,
    slow: 1,
    most: usize::MAX,
    part: None,
};

/// A blob of zeros on it.
#[derive(Debug)]
struct Paced {
    server: Server,
    name: &'static str,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    asked: Vec<(Instant, ByteRange)>,
    refused: usize,
    sent: u64,
    /// Connections that were made, those that wait for another request, and how many send.
    made: usize,
    idle: Vec<usize>,
    sending: usize,
    most_sending: usize,
    /// Those among them whose bytes have begun: the link is theirs.
    flowing: usize,
}

impl Paced {
    fn new(name: &'static str, server: Server) -> Arc<Self> {
        Arc::new(Self { server, name, seen: Mutex::default() })
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }
}

/// A connection that sends. One that was read to its end can be used again.
struct Sending {
    paced: Arc<Paced>,
    connection: usize,
    flows: bool,
    rest: u64,
}

impl Drop for Sending {
    fn drop(&mut self) {
        let mut seen = self.paced.seen();
        seen.sending -= 1;
        seen.flowing -= usize::from(self.flows);
        if self.rest == 0 {
            seen.idle.push(self.connection);
        }
    }
}

/// What the engine is given: the blob behind an `Arc`, which a body holds on to.
#[derive(Debug)]
struct Blob(Arc<Paced>);

impl RangeSource for Blob {
    fn get(&self, range: ByteRange) -> BoxFuture<'_, Result<RangeBody, SourceError>> {
        let paced = Arc::clone(&self.0);
        async move {
            let server = paced.server;
            let (connection, is_new) = {
                let mut seen = paced.seen();
                seen.asked.push((Instant::now(), range));
                if seen.sending >= server.most {
                    seen.refused += 1;
                    return Err(SourceError::Status {
                        what: "it".to_owned(),
                        status: 503,
                        retry_after: None,
                    });
                }
                seen.sending += 1;
                seen.most_sending = seen.most_sending.max(seen.sending);
                let idle = seen.idle.pop();
                seen.made += usize::from(idle.is_none());
                (idle.unwrap_or(seen.made), idle.is_none())
            };
            let mut sending = Sending { paced, connection, flows: false, rest: range.len() };
            tokio::time::sleep(server.round_trip * if is_new { 2 } else { 1 }).await;
            sending.flows = true;
            sending.paced.seen().flowing += 1;
            let bytes = stream::unfold(sending, move |mut sending| async move {
                let count = sending.rest.min(CHUNK);
                if count == 0 {
                    return None;
                }
                let share = server.all / sending.paced.seen().flowing as u64;
                let slow = if sending.connection % 8 == 3 { server.slow } else { 1 };
                let rate = (server.each / slow).min(share);
                tokio::time::sleep(Duration::from_secs_f64(count as f64 / rate as f64)).await;
                sending.rest -= count;
                sending.paced.seen().sent += count;
                Some((Ok(Bytes::from_static(&[0; CHUNK as usize]).slice(..count as usize)), sending))
            });
            Ok(RangeBody { bytes: bytes.boxed() })
        }
        .boxed()
    }

    fn origin(&self) -> &str {
        self.0.name
    }

    fn stored_part(&self) -> Option<u64> {
        self.0.server.part
    }
}

struct Nowhere;

impl Sink for Nowhere {
    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

async fn fetch(engine: &Engine, paced: &Arc<Paced>, size: u64, progress: &Progress) {
    let stop = CancellationToken::new();
    let blob = Arc::new(Blob(Arc::clone(paced)));
    engine.fetch(blob, size, Arc::new(Nowhere), progress, &stop).await.unwrap();
}

/// Waits until so many bytes are there.
async fn until(progress: &Progress, bytes: u64) {
    while progress.done() < bytes {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_wide_link_is_filled_without_being_told_how_wide_it_is() {
    let paced = Paced::new("wide", Server { all: 32 * 30 * MB, ..PLAIN });
    let (engine, progress, size) = (Engine::new(Limits::default()), Progress::default(), 5000 * MIB);
    let measure = async {
        until(&progress, size / 2).await;
        let (begun, before) = (Instant::now(), progress.done());
        until(&progress, size - 64 * MIB).await;
        (progress.done() - before) as f64 / begun.elapsed().as_secs_f64()
    };
    let ((), rate) = tokio::join!(fetch(&engine, &paced, size, &progress), measure);
    let part = rate / paced.server.all as f64;
    let most = paced.seen().most_sending;
    assert!(part > 0.9, "{part} of the link, {most} connections");
    assert!(engine.is_at_rest());
}

#[tokio::test(start_paused = true)]
async fn one_slow_connection_of_eight_does_not_decide_how_long_it_takes() {
    let mut times = Vec::new();
    for slow in [1, 40] {
        let paced = Paced::new("slow", Server { slow, ..PLAIN });
        // Eight, and two beside.
        let engine = Engine::new(Limits { per_origin: 10, ..Limits::default() });
        let begun = Instant::now();
        let size = 1000 * MIB;
        fetch(&engine, &paced, size, &Progress::default()).await;
        times.push(begun.elapsed().as_secs_f64());
        let seen = paced.seen();
        assert!(seen.most_sending <= 10, "{}", seen.most_sending);
        assert!(seen.sent < size + size / 20, "{} sent for {size}", seen.sent);
        assert!(engine.is_at_rest());
    }
    assert!(times[1] < times[0] * 1.25, "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_gets_fewer_requests_and_the_blob_comes() {
    let paced = Paced::new("refuses", Server { most: 6, ..PLAIN });
    let engine = Engine::new(Limits::default());
    fetch(&engine, &paced, 1000 * MIB, &Progress::default()).await;
    let seen = paced.seen();
    assert!(seen.refused >= 1, "it was met");
    assert!(seen.refused < seen.asked.len() / 4, "{} of {} refused", seen.refused, seen.asked.len());
}

#[tokio::test(start_paused = true)]
async fn no_range_goes_over_the_end_of_a_stored_part() {
    let part = 5 * MIB;
    let paced = Paced::new("parts", Server { part: Some(part), ..PLAIN });
    fetch(&Engine::new(Limits::default()), &paced, 203 * MIB + 7, &Progress::default()).await;
    for (_, range) in &paced.seen().asked {
        let inside = range.start() / part == (range.end() - 1) / part;
        assert!(inside || range.start().is_multiple_of(part), "{range:?}");
        assert!(range.start().is_multiple_of(4096), "{range:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_urgent_comes_first_and_the_other_goes_on_after_it() {
    let (slow, quick) = (Paced::new("a", PLAIN), Paced::new("b", PLAIN));
    let engine = Engine::new(Limits::default());
    let (ordinary, urgent) = (Progress::default(), Progress::default());
    let begin_urgent = async {
        until(&ordinary, 100 * MIB).await;
        let begun = Instant::now();
        let size = 2000 * MIB;
        fetch(&engine.with_urgency(Urgency::Urgent), &quick, size, &urgent).await;
        (begun, Instant::now())
    };
    let (_, (begun, ended)) = tokio::join!(fetch(&engine, &slow, 1500 * MIB, &ordinary), begin_urgent);
    let asked = slow.seen();
    let during = |after: u64| {
        let from = begun + Duration::from_secs(after);
        asked.asked.iter().filter(|(at, _)| *at > from && *at < ended).count()
    };
    assert!(ended - begun > Duration::from_secs(2), "{:?}", ended - begun);
    assert_eq!(during(1), 0, "ranges begun while something urgent came");
    assert!(asked.asked.iter().any(|(at, _)| *at > ended), "it goes on");
    assert!(engine.is_at_rest());
}

#[tokio::test(start_paused = true)]
async fn what_is_urgent_waits_only_for_what_is_in_flight() {
    // All the memory is with one who takes ten seconds for what is in flight.
    let (slow, quick) = (Paced::new("a", Server { each: MB / 2, ..PLAIN }), Paced::new("b", PLAIN));
    let engine = Engine::new(Limits::default());
    let (ordinary, stop) = (Progress::default(), CancellationToken::new());
    let blob = Arc::new(Blob(Arc::clone(&slow)));
    let crowd = engine.fetch(blob, 2000 * MIB, Arc::new(Nowhere), &ordinary, &stop);
    let urgent = async {
        until(&ordinary, 10 * MIB).await;
        let begun = Instant::now();
        fetch(&engine.with_urgency(Urgency::Urgent), &quick, 500 * MIB, &Progress::default()).await;
        stop.cancel();
        (begun, Instant::now())
    };
    let (_, (begun, ended)) = tokio::join!(crowd, urgent);
    let asked = slow.seen().asked.iter().filter(|(at, _)| *at > begun && *at < ended).count();
    assert!(asked <= 8, "{asked} ranges of the other began meanwhile");
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_the_bandwidth_is_one_for_all_and_can_be_changed() {
    let engine = Engine::new(Limits::default());
    engine.bandwidth().set(NonZeroU64::new(10 * MB));
    let (one, two) = (Paced::new("a", PLAIN), Paced::new("b", PLAIN));
    let (progress, begun) = (Progress::default(), Instant::now());
    let lift = async {
        until(&progress, 60 * MB).await;
        engine.bandwidth().set(None);
        begun.elapsed()
    };
    let ((), (), lifted) = tokio::join!(
        fetch(&engine, &one, 200 * MIB, &progress),
        fetch(&engine, &two, 200 * MIB, &progress),
        lift
    );
    let took = begun.elapsed();
    assert!(lifted > Duration::from_secs(5) && lifted < Duration::from_secs(7), "{lifted:?}");
    assert!(took < lifted + Duration::from_secs(4), "{took:?}");
    assert_eq!(one.seen().sent + two.seen().sent, 400 * MIB, "nobody is asked again for being held");
}
