//! Whole layers through the threads, with a sink that only remembers.

mod blobs;
mod hostile;
mod stopping;

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::blobs::Blob;
use super::*;
use crate::image::unpack::{TarSink, UnpackError, Unpacked};
use crate::types::Digest;

const DEADLINE: Duration = Duration::from_secs(60);

/// What the tests' sinks see.
#[derive(Clone, Default)]
struct Seen(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    fed: usize,
    finished: bool,
    dropped: bool,
    /// While it's closed, the sink takes nothing.
    closed: bool,
}

struct Sink {
    seen: Seen,
    /// At which block it fails, counted from 1.
    fails_at: usize,
    dies: bool,
}

impl Seen {
    fn sink(&self) -> Sink {
        Sink { seen: self.clone(), fails_at: usize::MAX, dies: false }
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let done = change(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
        done
    }

    fn wait_for(&self, condition: impl Fn(&State) -> bool) {
        let state = self.0.0.lock().unwrap();
        let (_state, timeout) =
            self.0.1.wait_timeout_while(state, DEADLINE, |state| !condition(state)).unwrap();
        assert!(!timeout.timed_out());
    }
}

impl TarSink for Sink {
    fn feed(&mut self, block: &[u8]) -> Result<(), UnpackError> {
        self.seen.with(|state| state.fed += 1);
        self.seen.wait_for(|state| !state.closed);
        let fed = self.seen.with(|state| {
            state.bytes.extend_from_slice(block);
            state.fed
        });
        assert!(!(self.dies && fed >= self.fails_at), "this sink dies");
        if fed >= self.fails_at {
            return Err(UnpackError::Malformed { entry: "x".to_owned(), problem: "made up".to_owned() });
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<Unpacked, UnpackError> {
        self.seen.with(|state| state.finished = true);
        Ok(Unpacked { entries: 7, ..Unpacked::default() })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.seen.with(|state| state.dropped = true);
    }
}

/// How many threads there are whose name begins with `name`.
fn threads_called(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok())
        .filter(|comm| comm.starts_with(name))
        .count()
}

/// Sends pieces of these lengths in turn, and ends.
fn send(blob: Vec<u8>, lengths: Vec<usize>) -> mpsc::Receiver<Arc<[u8]>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut rest = &blob[..];
        for length in lengths.into_iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at(length.clamp(1, rest.len()));
            rest = after;
            if sender.send(Arc::from(piece)).await.is_err() {
                break;
            }
        }
    });
    receiver
}

fn job(blob: &Blob, sink: Sink) -> LayerJob<Sink> {
    LayerJob {
        compression: blob.compression,
        blob: Digest::of(&blob.packed),
        size: blob.packed.len() as u64,
        diff: Digest::of(&blob.plain),
        sink,
        copy: None,
    }
}

const SPLITS: [Split; 2] = [Split::Two, Split::Four];

/// Runs `blob` in pieces of these lengths to its end, and says what the sink got as well.
fn run(blob: &Blob, lengths: &[usize], split: Split) -> (Result<LayerDone, LayerError>, Vec<u8>) {
    run_job(&blob.packed, lengths, split, |sink| job(blob, sink))
}

fn run_job(
    bytes: &[u8],
    lengths: &[usize],
    split: Split,
    job: impl FnOnce(Sink) -> LayerJob<Sink>,
) -> (Result<LayerDone, LayerError>, Vec<u8>) {
    let seen = Seen::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let done = runtime.block_on(async {
        let threads = Threads::of_test("run", split);
        let stop = CancellationToken::new();
        let pieces = send(bytes.to_vec(), lengths.to_vec());
        let running = process(job(seen.sink()), pieces, &threads, &stop);
        let done = tokio::time::timeout(DEADLINE, running).await.expect("it hangs");
        assert_eq!(threads.running(), 0);
        done
    });
    seen.with(|state| {
        assert!(state.dropped, "nothing holds the sink any more");
        assert!(state.finished || done.is_err());
        (done, std::mem::take(&mut state.bytes))
    })
}
