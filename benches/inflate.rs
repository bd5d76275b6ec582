//! How fast a layer is inflated and hashed: what each way makes of one core, and rapidgzip of several.
//!
//! `cargo bench --bench inflate`. The data is made here: this program's own code, over and over with some of its bytes
//! changed, so that it's about as hard as a library. Rates are of output. The first column is by processor time, so
//! it holds on a busy machine as well; the second is by the clock. Rounds are interleaved, and the best one counts.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::io::{self, Write as _};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use sha2::Digest as _;
use tokio::time::Instant;

use inflate::{Detect, Inflate as _};

/// The agent's own code, which nobody outside of it can name.
#[allow(dead_code, unused_imports, reason = "its tests come along, and don't run here")]
#[path = "../src/image/layer/inflate/mod.rs"]
mod inflate;

/// As the agent has it, for the module above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    Plain,
    Gzip,
    Zstd,
}

const ROUNDS: usize = 5;

/// Bytes that the agent feeds at a time, and those of its blocks.
const BITE: usize = 256 << 10;
const BLOCK: usize = 512 << 10;

fn main() {
    // `cargo test --benches` only wants to know that it runs; `cargo bench` says that it means it.
    let is_test = !std::env::args().any(|argument| argument == "--bench");
    let (size, rounds) = if is_test { (2 << 20, 1) } else { (96 << 20, ROUNDS) };
    let plain = like_libraries(size);
    let gzip = gzip(&plain);
    let zstd = zstd::stream::encode_all(&plain[..], 3).unwrap();
    println!("{} MB of output", size >> 20);
    println!("  {:<44} ratio {:.2}", "gzip -6", ratio(&plain, &gzip));
    println!("  {:<44} ratio {:.2}", "zstd -3", ratio(&plain, &zstd));

    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut ways: Vec<(String, Box<dyn Fn() -> usize + '_>)> = vec![
        ("gzip: the agent (ISA-L)".to_owned(), Box::new(|| ours(Compression::Gzip, &gzip))),
        ("gzip: flate2 on miniz_oxide".to_owned(), Box::new(|| with_flate2(&gzip))),
        ("gzip: rapidgzip on zlib-rs, one stream".to_owned(), Box::new(|| rapidgzip_stream(&gzip))),
    ];
    let threads = std::iter::successors(Some(2), |threads| Some(threads * 2));
    for threads in threads.take_while(|threads| *threads <= cores.max(2)) {
        let gzip = &gzip;
        let way = move || rapidgzip(gzip, threads);
        ways.push((format!("gzip: rapidgzip, up to {threads} threads"), Box::new(way)));
    }
    ways.push(("zstd: the agent (libzstd)".to_owned(), Box::new(|| ours(Compression::Zstd, &zstd))));
    ways.push(("no compression: the agent".to_owned(), Box::new(|| ours(Compression::Plain, &plain))));
    ways.push(("SHA-256".to_owned(), Box::new(|| hash(&plain))));

    let mut best = vec![(Duration::MAX, Duration::MAX); ways.len()];
    for _ in 0..rounds {
        for ((_, way), (cpu, clock)) in ways.iter().zip(&mut best) {
            let (cpu_before, started) = (processor_time(), Instant::now());
            assert_eq!(way(), size);
            *clock = started.elapsed().min(*clock);
            *cpu = (processor_time() - cpu_before).min(*cpu);
        }
    }
    let of_first = best[0].0.as_secs_f64();
    println!("  {:<44} {:>8} {:>8} {:>8}", "MB/s", "a core", "clock", "of first");
    for ((name, _), (cpu, clock)) in ways.iter().zip(&best) {
        let rate = |time: &Duration| size as f64 / 1e6 / time.as_secs_f64();
        println!(
            "  {name:<44} {:>8.0} {:>8.0} {:>8.2}",
            rate(cpu),
            rate(clock),
            of_first / cpu.as_secs_f64()
        );
    }
}

/// What all threads of this process have had of the processors.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap(), u32::try_from(time.tv_nsec).unwrap())
}

/// This program, with a byte in some hundreds changed from one copy to the next, and the copies further apart than
/// DEFLATE looks back.
fn like_libraries(size: usize) -> Vec<u8> {
    let program = std::fs::read("/proc/self/exe").unwrap();
    let program = &program[..program.len().min(8 << 20)];
    let mut random = fastrand::Rng::with_seed(5);
    let mut bytes = Vec::with_capacity(size + program.len());
    while bytes.len() < size {
        let start = bytes.len();
        bytes.extend_from_slice(program);
        for _ in 0..program.len() / 400 {
            bytes[start + random.usize(..program.len())] = random.u8(..);
        }
    }
    bytes.truncate(size);
    bytes
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn ratio(plain: &[u8], packed: &[u8]) -> f64 {
    plain.len() as f64 / packed.len() as f64
}

/// As the agent's intake does it.
fn ours(compression: Compression, packed: &[u8]) -> usize {
    let mut inflate = Detect::new(compression).unwrap();
    let mut block = vec![0; BLOCK];
    let (mut filled, mut written) = (0, 0);
    for mut bite in packed.chunks(BITE) {
        loop {
            let step = inflate.step(bite, &mut block[filled..]).unwrap();
            bite = &bite[step.read..];
            filled += step.written;
            written += step.written;
            if filled == block.len() {
                black_box(&block);
                filled = 0;
            } else if bite.is_empty() {
                break;
            }
        }
    }
    inflate.no_more().unwrap();
    inflate.end().unwrap();
    written
}

fn with_flate2(packed: &[u8]) -> usize {
    read_all(flate2::bufread::MultiGzDecoder::new(packed))
}

fn rapidgzip_stream(packed: &[u8]) -> usize {
    let decoder = rapidgzip_core::Decoder::builder().decoder_threads(1).build().unwrap();
    read_all(decoder.stream_reader(io::Cursor::new(packed.to_vec())).unwrap())
}

fn rapidgzip(packed: &[u8], threads: usize) -> usize {
    let decoder = rapidgzip_core::Decoder::builder().decoder_threads(threads).build().unwrap();
    read_all(decoder.reader(packed.to_vec()).unwrap())
}

fn read_all(mut reader: impl io::Read) -> usize {
    let mut block = vec![0; BLOCK];
    let mut written = 0;
    loop {
        match reader.read(&mut block).unwrap() {
            0 => return written,
            len => written += len,
        }
        black_box(&block);
    }
}

fn hash(plain: &[u8]) -> usize {
    black_box(sha2::Sha256::digest(plain));
    plain.len()
}
