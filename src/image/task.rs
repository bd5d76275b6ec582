use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Images;
use super::durable::Durable;
use super::sweep::{fullness, sweep};
use crate::containerd::{Changes, Containerd, ContainerdError};
use crate::rt::{self, Attempts, RetryPolicy};
use crate::types::{ErrorKind, ImageRef};

/// How long changes are gathered before they are looked at: a pull makes several at once.
const GATHER: Duration = Duration::from_millis(200);

/// Sweeps for changes come no closer together than this.
const SPACING: Duration = Duration::from_millis(500);

/// A sweep finds what no event told of: a configuration that went, an event that was lost.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// How often it's looked how full the disk is: as often as the kubelet does.
const MEASURE_EVERY: Duration = Duration::from_secs(10);

/// A subscription doesn't say when it has begun; what happened before it did is found by this second sweep.
const SETTLE: Duration = Duration::from_secs(2);

/// Asks the image task for things.
#[derive(Debug, Clone)]
pub struct ImagesHandle {
    requests: mpsc::Sender<oneshot::Sender<()>>,
    durable: Durable,
}

impl ImagesHandle {
    /// Returns once a sweep that began after this call has been published; also when it found containerd away, and
    /// when the task has ended.
    pub async fn refresh(&self) {
        let (done, published) = oneshot::channel();
        if self.requests.send(done).await.is_ok() {
            // An error is the task's end: nobody waits for its sweeps any more.
            let _ = published.await;
        }
    }

    pub(super) fn durable(&self) -> &Durable {
        &self.durable
    }
}

/// Starts the task that watches the images in `wanted` until `stop`. The first value comes with the first sweep, also
/// when containerd isn't there.
#[must_use]
pub fn spawn(
    containerd: Containerd,
    wanted: watch::Receiver<BTreeSet<ImageRef>>,
    stop: CancellationToken,
) -> (ImagesHandle, watch::Receiver<Option<Arc<Images>>>, JoinHandle<()>) {
    let (requests, requested) = mpsc::channel(16);
    let (publish, published) = watch::channel(None);
    let durable = Durable::default();
    let watcher = Watcher {
        containerd,
        wanted,
        wanted_ended: false,
        requested,
        waiting: Vec::new(),
        publish,
        durable: durable.clone(),
        changes: None,
        subscriptions: Attempts::new(RetryPolicy::RECONNECT),
        sweeps: Attempts::new(RetryPolicy::RECONNECT),
        due: Instant::now(),
        spaced: Instant::now(),
        root: None,
    };
    let task = tokio::spawn(async move { stop.run_until_cancelled_owned(watcher.run()).await.unwrap_or(()) });
    (ImagesHandle { requests, durable }, published, task)
}

struct Watcher {
    containerd: Containerd,
    wanted: watch::Receiver<BTreeSet<ImageRef>>,
    wanted_ended: bool,
    requested: mpsc::Receiver<oneshot::Sender<()>>,
    /// Who is told when the next sweep has been published.
    waiting: Vec<oneshot::Sender<()>>,
    publish: watch::Sender<Option<Arc<Images>>>,
    durable: Durable,
    changes: Option<Changes>,
    subscriptions: Attempts,
    sweeps: Attempts,
    /// When the next sweep is to be.
    due: Instant,
    /// Before this, no change makes a sweep.
    spaced: Instant,
    /// The directory of the images, as of the last sweep.
    root: Option<PathBuf>,
}

impl Watcher {
    async fn run(mut self) {
        loop {
            self.wait().await;
            while let Ok(request) = self.requested.try_recv() {
                self.waiting.push(request);
            }
            // Before the sweep, so that it finds all that the subscription doesn't tell.
            let subscribed = self.changes.is_none();
            let changes = self.changes.get_or_insert_with(|| self.containerd.changes());
            let wanted = self.wanted.borrow_and_update().clone();
            let mut changed = None;
            let found = {
                let sweep = sweep(&self.containerd, &self.durable, &wanted);
                tokio::pin!(sweep);
                loop {
                    tokio::select! {
                        biased;
                        found = &mut sweep => break found,
                        change = changes.next(), if !matches!(changed, Some(Err(_))) => changed = Some(change),
                    }
                }
            };
            let now = Instant::now();
            self.spaced = now + SPACING;
            self.due = match &found {
                Ok(_) => {
                    self.sweeps.succeeded();
                    now + if subscribed { SETTLE } else { SWEEP_EVERY }
                }
                Err(error) => {
                    let delay = self.sweeps.failed_with(ErrorKind::Local, fastrand::f64());
                    tracing::debug!(error = rt::chain(error), "containerd can't be asked");
                    now + delay.unwrap_or(RetryPolicy::RECONNECT.longest)
                }
            };
            let found = found.map(|(images, root)| {
                self.root = Some(root);
                images
            });
            self.publish(found);
            if let Some(change) = changed {
                self.note(change);
            }
            for done in self.waiting.drain(..) {
                // A receiver that is gone gave up waiting.
                let _ = done.send(());
            }
        }
    }

    /// Returns when it's time for a sweep.
    async fn wait(&mut self) {
        loop {
            let changes = async {
                match &mut self.changes {
                    Some(changes) => changes.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = tokio::time::sleep_until(self.due) => return,
                () = tokio::time::sleep(MEASURE_EVERY) => self.measure(),
                change = changes => self.note(change),
                wanted = self.wanted.changed(), if !self.wanted_ended => match wanted {
                    Ok(()) => return,
                    Err(_) => self.wanted_ended = true,
                },
                Some(request) = self.requested.recv() => {
                    self.waiting.push(request);
                    return;
                }
            }
        }
    }

    /// Tells how full the disk is now.
    fn measure(&self) {
        let Some(full) = self.root.as_deref().and_then(fullness) else { return };
        self.publish.send_if_modified(|published| {
            let Some(last) = published.as_ref().filter(|last| last.fullness != Some(full)) else {
                return false;
            };
            *published = Some(Arc::new(Images { fullness: Some(full), ..Images::clone(last) }));
            true
        });
    }

    /// Brings the next sweep forward, because something changed or the subscription ended.
    fn note(&mut self, change: Result<(), ContainerdError>) {
        let delay = match change {
            Ok(()) => {
                self.subscriptions.succeeded();
                GATHER
            }
            Err(error) => {
                self.changes = None;
                tracing::debug!(error = rt::chain(&error), "the subscription to containerd's events ended");
                self.subscriptions
                    .failed_with(ErrorKind::Local, fastrand::f64())
                    .unwrap_or(RetryPolicy::RECONNECT.longest)
            }
        };
        self.due = self.due.min(self.spaced.max(Instant::now() + delay));
    }

    fn publish(&self, found: Result<Images, ContainerdError>) {
        let last = self.publish.borrow().clone();
        let was_connected = last.as_ref().is_none_or(|last| last.connected);
        let images = match found {
            Ok(images) => {
                if !was_connected {
                    tracing::info!("containerd answers");
                }
                images
            }
            Err(error) => {
                let problem = rt::chain(&error);
                if was_connected {
                    tracing::warn!(problem, "containerd can't be asked; what is warm stays as last seen");
                }
                let last = last.map(Arc::unwrap_or_clone).unwrap_or_default();
                Images { connected: false, problem: Some(problem), ..last }
            }
        };
        self.publish.send_if_modified(|published| {
            let modified = published.as_deref() != Some(&images);
            if modified {
                *published = Some(Arc::new(images));
            }
            modified
        });
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn without_containerd_it_says_so_at_once_and_keeps_trying() {
        let containerd = Containerd::new(Path::new("/nonexistent/containerd.sock"));
        let (_want, wanted) = watch::channel(BTreeSet::new());
        let stop = CancellationToken::new();
        let (handle, mut images, task) = spawn(containerd, wanted, stop.clone());
        let first = images.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        assert!(!first.connected && first.by_ref.is_empty());
        assert!(first.problem.as_deref().unwrap().contains("/nonexistent/containerd.sock"), "{first:?}");
        // A refresh is answered, by a sweep of its own, and nothing is published that says nothing new.
        images.mark_unchanged();
        handle.refresh().await;
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert!(!images.has_changed().unwrap());

        stop.cancel();
        task.await.unwrap();
        handle.refresh().await;
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_on_when_nobody_can_want_anything_new() {
        let containerd = Containerd::new(Path::new("/nonexistent/containerd.sock"));
        let (want, wanted) = watch::channel(BTreeSet::new());
        drop(want);
        let stop = CancellationToken::new();
        let (handle, _images, task) = spawn(containerd, wanted, stop.clone());
        tokio::time::sleep(Duration::from_secs(60)).await;
        handle.refresh().await;
        assert!(!task.is_finished());
        stop.cancel();
        task.await.unwrap();
    }
}
