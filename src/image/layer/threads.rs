use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::halt::Halt;
use super::{LayerError, Split};

/// How much nicer the threads are than the rest of the process, so that the agent answers while they are at work.
const NICER: i32 = 5;

/// The threads for layers: so many layers at once, each with a few of its own, below the rest of the agent. Clones are
/// the same threads.
#[derive(Debug, Clone)]
pub(crate) struct Threads {
    turns: Arc<Semaphore>,
    running: Arc<AtomicUsize>,
    cores: usize,
    /// The first word of the threads' names.
    name: &'static str,
    /// How to split every layer, where that isn't decided by the cores.
    split: Option<Split>,
}

/// One layer's turn. It's over when the last of its threads has ended.
#[derive(Debug)]
pub(super) struct Turn {
    _permit: Option<OwnedSemaphorePermit>,
    running: Arc<AtomicUsize>,
    name: &'static str,
    pub(super) split: Split,
}

impl Threads {
    /// Threads for at most `layers` at once on so many cores; 0 of either is 1.
    #[must_use]
    pub(crate) fn new(layers: usize, cores: usize) -> Self {
        Self {
            turns: Arc::new(Semaphore::new(layers.clamp(1, Semaphore::MAX_PERMITS))),
            running: Arc::default(),
            cores: cores.max(1),
            name: "layer",
            split: None,
        }
    }

    /// Waits until a layer may run.
    pub(super) async fn turn(&self) -> Arc<Turn> {
        // It fails only when the semaphore is closed, which nobody does.
        let permit = Arc::clone(&self.turns).acquire_owned().await.ok();
        let running = self.running.fetch_add(1, Relaxed) + 1;
        let split = self.split.unwrap_or_else(|| Split::for_cores(self.cores / running));
        Arc::new(Turn { _permit: permit, running: Arc::clone(&self.running), name: self.name, split })
    }

    /// Threads of a test, to be found by their name.
    #[cfg(test)]
    pub(super) fn of_test(name: &'static str, split: Split) -> Self {
        Self { name, split: Some(split), ..Self::new(4, 2) }
    }

    #[cfg(test)]
    pub(super) fn running(&self) -> usize {
        self.running.load(Relaxed)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.running.fetch_sub(1, Relaxed);
    }
}

/// A stage at work on a thread of its own.
pub(super) struct Stage<T> {
    thread: thread::JoinHandle<Option<T>>,
    ended: oneshot::Receiver<()>,
}

impl<T: Send + 'static> Stage<T> {
    /// Runs `work` on a thread called after `name`. Its error, or its panic, is everybody's.
    ///
    /// # Errors
    /// When there can't be another thread.
    pub(super) fn start(
        name: &str,
        turn: &Arc<Turn>,
        halt: &Halt,
        work: impl FnOnce() -> Result<T, LayerError> + Send + 'static,
    ) -> Result<Self, LayerError> {
        let (end, ended) = oneshot::channel();
        let (turn, halt) = (Arc::clone(turn), halt.clone());
        let builder = thread::Builder::new().name(format!("{}-{name}", turn.name));
        let body = move || {
            // Linux has a niceness for each thread. Where it's refused, the layer is only less polite.
            let _ = rustix::process::nice(NICER);
            // What a panic leaves behind is dropped and never looked at.
            let done = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
                Err(LayerError::Thread {
                    problem: "it died; please report this as a bug of stoker".to_owned(),
                })
            });
            drop(turn);
            let done = done.map_err(|error| halt.fail(error)).ok();
            // Whoever waited may be gone.
            let _ = end.send(());
            done
        };
        let thread =
            builder.spawn(body).map_err(|error| LayerError::Thread { problem: error.to_string() })?;
        Ok(Self { thread, ended })
    }

    /// Waits for its end. `None` is an error, which is told by the halt.
    pub(super) async fn join(self) -> Option<T> {
        // An error is its end as well.
        let _ = self.ended.await;
        // It's on its last lines, so this doesn't block for longer than it takes to leave them.
        self.thread.join().ok().flatten()
    }
}
