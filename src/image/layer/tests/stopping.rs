//! Ends of every kind: nothing is left running.

use super::blobs::{gzip_blob, sample};
use super::*;

/// A layer at work, whose pieces the test holds.
struct Bench {
    threads: Threads,
    name: &'static str,
    seen: Seen,
    stop: CancellationToken,
    blob: Blob,
}

impl Bench {
    fn new(name: &'static str, split: Split) -> Self {
        Self {
            threads: Threads::of_test(name, split),
            name,
            seen: Seen::default(),
            stop: CancellationToken::new(),
            blob: gzip_blob(sample(30 << 20, 1)),
        }
    }

    async fn run(&self, pieces: mpsc::Receiver<Arc<[u8]>>, sink: Sink) -> Result<LayerDone, LayerError> {
        let running = process(job(&self.blob, sink), pieces, &self.threads, &self.stop);
        tokio::time::timeout(DEADLINE, running).await.expect("it hangs")
    }

    fn all_pieces(&self) -> mpsc::Receiver<Arc<[u8]>> {
        send(self.blob.packed.clone(), vec![1 << 20])
    }

    async fn is_at_rest(&self) {
        // A thread that was joined is listed a moment longer: the kernel tells of its end before it takes it away.
        let gone = async {
            while threads_called(self.name) > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, gone).await.expect("a thread goes on");
        assert_eq!(self.threads.running(), 0);
        assert!(self.seen.with(|state| state.dropped));
    }
}

#[tokio::test]
async fn told_to_stop_while_starved_it_stops() {
    for (name, split) in [("starved2", Split::Two), ("starved4", Split::Four)] {
        let bench = Bench::new(name, split);
        let (sender, pieces) = mpsc::channel(1);
        let half = bench.blob.packed.len() / 2;
        sender.send(Arc::from(&bench.blob.packed[..half])).await.unwrap();
        let stopping = async {
            let seen = bench.seen.clone();
            tokio::task::spawn_blocking(move || seen.wait_for(|state| state.fed > 0)).await.unwrap();
            assert!(threads_called(name) > 0);
            bench.stop.cancel();
        };
        let (done, ()) = tokio::join!(bench.run(pieces, bench.seen.sink()), stopping);
        assert!(matches!(done, Err(LayerError::Stopped)), "{done:?}");
        bench.is_at_rest().await;
        assert!(!bench.seen.with(|state| state.finished));
        drop(sender);
    }
}

#[tokio::test]
async fn told_to_stop_while_the_sink_is_slow_it_stops_with_the_sink() {
    for (name, split) in [("slow2", Split::Two), ("slow4", Split::Four)] {
        let bench = Bench::new(name, split);
        bench.seen.with(|state| state.closed = true);
        let stopping = async {
            let seen = bench.seen.clone();
            tokio::task::spawn_blocking(move || seen.wait_for(|state| state.fed > 0)).await.unwrap();
            bench.stop.cancel();
            bench.seen.with(|state| state.closed = false);
        };
        let (done, ()) = tokio::join!(bench.run(bench.all_pieces(), bench.seen.sink()), stopping);
        assert!(matches!(done, Err(LayerError::Stopped)), "{done:?}");
        bench.is_at_rest().await;
    }
}

#[tokio::test]
async fn a_slow_sink_holds_the_others_within_the_blocks() {
    let bench = Bench::new("held", Split::Four);
    bench.seen.with(|state| state.closed = true);
    let (sender, pieces) = mpsc::channel(1);
    let sending = async {
        let mut sent = 0;
        for piece in bench.blob.packed.chunks(1 << 20) {
            if sent > 8 {
                // Far more than all blocks and links hold has been sent only when the sink takes some.
                assert!(bench.seen.with(|state| !state.closed));
            }
            let sent_one = sender.send(Arc::from(piece));
            if tokio::time::timeout(Duration::from_millis(500), sent_one).await.is_ok() {
                sent += 1;
                continue;
            }
            bench.seen.with(|state| state.closed = false);
            sender.send(Arc::from(piece)).await.unwrap();
        }
        drop(sender);
    };
    let (done, ()) = tokio::join!(bench.run(pieces, bench.seen.sink()), sending);
    done.unwrap();
    bench.is_at_rest().await;
    assert!(bench.seen.with(|state| state.bytes == bench.blob.plain));
}

#[tokio::test]
async fn an_error_of_the_sink_ends_all_of_it() {
    for (name, split) in [("fails2", Split::Two), ("fails4", Split::Four)] {
        for fails_at in [1, 20] {
            let bench = Bench::new(name, split);
            let mut sink = bench.seen.sink();
            sink.fails_at = fails_at;
            let done = bench.run(bench.all_pieces(), sink).await;
            assert!(matches!(done, Err(LayerError::Unpack(UnpackError::Malformed { .. }))), "{done:?}");
            bench.is_at_rest().await;
            assert_eq!(bench.seen.with(|state| state.fed), fails_at);
        }
    }
}

#[tokio::test]
async fn a_sink_that_dies_is_an_error() {
    for (name, split) in [("dies2", Split::Two), ("dies4", Split::Four)] {
        let bench = Bench::new(name, split);
        let mut sink = bench.seen.sink();
        (sink.fails_at, sink.dies) = (3, true);
        let done = bench.run(bench.all_pieces(), sink).await;
        assert!(matches!(done, Err(LayerError::Thread { .. })), "{done:?}");
        bench.is_at_rest().await;
    }
}

#[tokio::test]
async fn dropped_in_the_middle_its_threads_end() {
    for (name, split) in [("dropped2", Split::Two), ("dropped4", Split::Four)] {
        let bench = Bench::new(name, split);
        let (sender, pieces) = mpsc::channel(1);
        sender.send(Arc::from(&bench.blob.packed[..1 << 20])).await.unwrap();
        let seen = bench.seen.clone();
        tokio::select! {
            done = bench.run(pieces, bench.seen.sink()) => panic!("{done:?}"),
            fed = tokio::task::spawn_blocking(move || seen.wait_for(|state| state.fed > 0)) => fed.unwrap(),
        }
        let seen = bench.seen.clone();
        tokio::task::spawn_blocking(move || seen.wait_for(|state| state.dropped)).await.unwrap();
        tokio::time::timeout(DEADLINE, sender.closed()).await.unwrap();
        // Its turn is free again.
        drop(bench.threads.turn().await);
    }
}

#[tokio::test]
async fn layers_wait_for_their_turn_and_stop_while_they_wait() {
    let threads = Threads::new(1, 2);
    let turn = threads.turn().await;
    let seen = Seen::default();
    let blob = gzip_blob(sample(1000, 1));
    let stop = CancellationToken::new();
    let pieces = send(blob.packed.clone(), vec![100]);
    let running = process(job(&blob, seen.sink()), pieces, &threads, &stop);
    let stopping = async {
        tokio::task::yield_now().await;
        assert_eq!(threads.running(), 1);
        stop.cancel();
    };
    let (done, ()) = tokio::join!(running, stopping);
    assert!(matches!(done, Err(LayerError::Stopped)), "{done:?}");
    assert!(seen.with(|state| state.dropped && state.fed == 0));
    drop(turn);
    let pieces = send(blob.packed.clone(), vec![100]);
    process(job(&blob, Seen::default().sink()), pieces, &threads, &CancellationToken::new()).await.unwrap();
    assert_eq!(threads.running(), 0);
}
