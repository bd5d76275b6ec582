//! Races of the fetch engine: the scheduler, and the way from memory through SHA-256 onto the disk.
//!
//! `cargo bench --bench fetch`. The files go to `STOKER_BENCH_DIR`, or below `target/`; what the disk can do decides
//! much, so compare ratios, and name the disk beside any figure. Rounds are interleaved, because what ran before
//! (a full page cache, a busy disk) changes what comes after.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "measure/median.rs"]
mod median;

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use criterion::{Criterion, Throughput};
use futures::StreamExt as _;
use median::median;
use stoker::fetch::{ALIGNMENT, Engine, Limits, Schedule, Sink};
use stoker::source::{MemorySource, RangeSource as _};
use stoker::types::{ByteRange, Digest, Hasher, Progress};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const ROUNDS: usize = 5;
const GB: f64 = 1e9;

fn main() {
    // `cargo test --benches` only wants to know that it runs; `cargo bench` says that it means it.
    let is_test = !std::env::args().any(|argument| argument == "--bench");
    let mut criterion = Criterion::default().configure_from_args();
    scheduler(&mut criterion, if is_test { 100 } else { 100_000 });
    criterion.final_summary();
    let (blobs, size, rounds) = if is_test { (2, 3 << 20, 1) } else { (4, 256 << 20, ROUNDS) };
    race(blobs, size + 1234, rounds);
}

/// Hands out and takes back every range of a blob, with 64 on their way at once.
fn scheduler(criterion: &mut Criterion, ranges: u64) {
    let mut group = criterion.benchmark_group("scheduler");
    group.throughput(Throughput::Elements(ranges));
    let range = 16 << 20;
    group.bench_function("hand out, complete, consume", |bencher| {
        bencher.iter(|| {
            let mut schedule = Schedule::new(ranges * range, range, 64 * range);
            let mut travelling = std::collections::VecDeque::with_capacity(64);
            while !schedule.is_done() {
                while let Some(next) = schedule.hand_out() {
                    travelling.push_back(next);
                }
                let first: ByteRange = travelling.pop_front().unwrap();
                schedule.completed(first);
                schedule.consumed(first.end());
            }
        });
    });
    group.finish();
}

#[derive(Clone, Copy)]
enum Way {
    /// One blob after the other: take a piece, hash it, write it.
    Sequential,
    Buffered,
    Direct,
}

const WAYS: [(Way, &str); 3] = [
    (Way::Sequential, "sequential: hash, write, next piece"),
    (Way::Buffered, "engine, through the page cache"),
    (Way::Direct, "engine, past the page cache"),
];

/// From memory to durable files with known digests, all blobs at once where the engine does it.
fn race(blobs: usize, size: usize, rounds: usize) {
    let dir = std::env::var_os("STOKER_BENCH_DIR")
        .map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    let bytes: Vec<u8> = (0..size).map(|at| (at.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    let digest = Digest::of(&bytes);
    let source = MemorySource::new(bytes);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut times = [const { Vec::new() }; WAYS.len()];
    for _ in 0..rounds {
        for ((way, _), times) in WAYS.iter().zip(&mut times) {
            let paths: Vec<PathBuf> = (0..blobs).map(|number| dir.join(format!("race-{number}"))).collect();
            let begun = Instant::now();
            match way {
                Way::Sequential => runtime.block_on(sequential(&source, &paths, size, digest)),
                Way::Buffered => runtime.block_on(engine(&source, &paths, size, digest, 0)),
                Way::Direct => {
                    let direct = rustix::fs::OFlags::DIRECT.bits();
                    runtime.block_on(engine(&source, &paths, size, digest, direct));
                }
            }
            times.push(begun.elapsed());
            for path in paths {
                std::fs::remove_file(path).unwrap();
            }
        }
    }
    println!(
        "\nmemory to durable file, {blobs} blobs of {size} bytes, median of {rounds} in {}",
        dir.display()
    );
    let medians = times.map(|times| median(&times));
    for ((_, name), time) in WAYS.iter().zip(medians) {
        let rate = (blobs * size) as f64 / time.as_secs_f64() / GB;
        let ratio = medians[0].as_secs_f64() / time.as_secs_f64();
        println!("{name:40} {rate:6.2} GB/s  {ratio:5.2} x");
    }
}

async fn sequential(source: &MemorySource, paths: &[PathBuf], size: usize, digest: Digest) {
    for path in paths {
        let mut file = File::create(path).unwrap();
        let mut hasher = Hasher::new();
        let mut body = source.get(ByteRange::new(0, size as u64).unwrap()).await.unwrap();
        while let Some(piece) = body.bytes.next().await {
            let piece = piece.unwrap();
            hasher.update(&piece);
            file.write_all(&piece).unwrap();
        }
        file.sync_data().unwrap();
        assert_eq!(hasher.finish(), digest);
    }
}

async fn engine(source: &MemorySource, paths: &[PathBuf], size: usize, digest: Digest, flags: u32) {
    let engine = Engine::new(Limits::default());
    let (progress, stop) = (Progress::default(), CancellationToken::new());
    let fetches = paths.iter().map(|path| async {
        let sink = Arc::new(FileSink::create(path, size, flags).unwrap());
        let blob = Arc::new(source.clone());
        let found = engine.fetch(blob, size as u64, Arc::<FileSink>::clone(&sink), &progress, &stop).await;
        assert_eq!(found.unwrap(), digest);
        tokio::task::spawn_blocking(move || sink.tail.sync_data()).await.unwrap().unwrap();
    });
    futures::future::join_all(fetches).await;
}

/// A file that takes whole pages past the page cache, if it's told to, and its last bytes through it.
struct FileSink {
    pages: File,
    tail: File,
}

impl FileSink {
    fn create(path: &Path, size: usize, flags: u32) -> io::Result<Self> {
        let tail = File::create(path)?;
        // Through the page cache the file system chooses better places without it.
        if flags != 0 {
            rustix::fs::fallocate(&tail, rustix::fs::FallocateFlags::empty(), 0, size as u64)?;
        }
        let flags = i32::try_from(flags).map_err(io::Error::other)?;
        let pages = OpenOptions::new().write(true).custom_flags(flags).open(path)?;
        Ok(Self { pages, tail })
    }
}

impl Sink for FileSink {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let (pages, tail) = bytes.split_at(bytes.len() / ALIGNMENT * ALIGNMENT);
        if !pages.is_empty() {
            self.pages.write_all_at(pages, offset)?;
        }
        self.tail.write_all_at(tail, offset + pages.len() as u64)
    }
}
