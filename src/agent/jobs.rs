//! Carries out steps, each as a task of its own with a token to stop it. Decides nothing.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{self, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::boot::BootState;
use super::step::{Outcome, Stays, Step, Warmed};
use crate::fetch::Urgency;
use crate::image::Puller;
use crate::list::{Entry, Goods, ImageGoods, WeightsGoods};
use crate::node::Reason;
use crate::rt::chain;
use crate::types::{EntryId, ErrorKind, Progress};
use crate::weights::{Cache, CacheError, Retired, Shortage, Users, Warmer};

/// The two goods' rooms, through which all work is done.
#[derive(Clone)]
pub struct Rooms {
    /// Images.
    pub puller: Puller,
    /// Weights.
    pub warmer: Warmer,
    /// The cache that the weights are in.
    pub cache: Arc<Cache>,
    /// Who uses what is in it.
    pub users: Users,
}

/// The jobs under way.
pub(super) struct Jobs {
    rooms: Rooms,
    state_dir: PathBuf,
    start_spread: Duration,
    running: JoinSet<Outcome>,
    subjects: HashMap<task::Id, Subject>,
    tokens: BTreeMap<EntryId, CancellationToken>,
}

/// What a job is about, to say so if it dies.
enum Subject {
    Entry(Arc<Entry>),
    Name(EntryId),
    Old(EntryId),
    Room(EntryId),
    Measure,
    Shrink,
    Pins,
    Scan,
    State,
}

impl Jobs {
    pub(super) fn new(rooms: Rooms, state_dir: PathBuf, start_spread: Duration) -> Self {
        let (subjects, tokens) = (HashMap::new(), BTreeMap::new());
        Self { rooms, state_dir, start_spread, running: JoinSet::new(), subjects, tokens }
    }

    /// Starts what `step` asks for.
    pub(super) fn start(&mut self, step: Step) {
        let rooms = self.rooms.clone();
        let (subject, handle) = match step {
            Step::Cancel(id) => {
                if let Some(token) = self.tokens.get(&id) {
                    token.cancel();
                }
                return;
            }
            Step::Ensure { entry, recheck, progress } => {
                let token = CancellationToken::new();
                self.tokens.insert(entry.id.clone(), token.clone());
                let spread = self.start_spread.mul_f64(fastrand::f64());
                let job = ensure(rooms, Arc::clone(&entry), recheck, progress, token.clone());
                let job = async move {
                    let _ = tokio::time::timeout(spread, token.cancelled()).await;
                    job.await
                };
                (Subject::Entry(entry), self.running.spawn(job))
            }
            Step::Unpin(pins) => (Subject::Pins, self.running.spawn(unpin(rooms, pins))),
            Step::Retire(id) => (Subject::Name(id.clone()), self.running.spawn(retire(rooms, id))),
            Step::DropOld(id) => (Subject::Old(id.clone()), self.running.spawn(drop_old(rooms, id))),
            Step::FindRoom { newcomer, short, candidates } => {
                let job = find_room(rooms, newcomer.clone(), short, candidates);
                (Subject::Room(newcomer), self.running.spawn(job))
            }
            Step::Measure => (Subject::Measure, self.running.spawn(measure(rooms))),
            Step::Shrink(bytes) => (Subject::Shrink, self.running.spawn(shrink(rooms, bytes))),
            Step::Rescan => (Subject::Scan, self.running.spawn(scan(rooms))),
            Step::Remember(state) => {
                (Subject::State, self.running.spawn(remember(state, self.state_dir.clone())))
            }
        };
        self.subjects.insert(handle.id(), subject);
    }

    /// The next outcome; waits for ever while nothing runs.
    ///
    /// Cancel-safe: `join_next_with_id` is, and nothing else is awaited.
    pub(super) async fn next(&mut self) -> Outcome {
        match self.running.join_next_with_id().await {
            None => std::future::pending().await,
            Some(Ok((id, outcome))) => {
                self.forget(id);
                outcome
            }
            Some(Err(error)) => {
                let subject = self.forget(error.id());
                died(subject, &error)
            }
        }
    }

    /// Stops every job and waits until each has put down what it held.
    pub(super) async fn stop(&mut self) {
        self.tokens.values().for_each(CancellationToken::cancel);
        while self.running.join_next().await.is_some() {}
    }

    /// Keeps the last state before the process ends, unless it's `kept` already.
    pub(super) async fn keep(&self, state: BootState, kept: &BootState) {
        if state != *kept
            && let Outcome::Remembered(Err(problem)) = remember(state, self.state_dir.clone()).await
        {
            tracing::error!("{problem}");
        }
    }

    fn forget(&mut self, id: task::Id) -> Option<Subject> {
        let subject = self.subjects.remove(&id);
        if let Some(Subject::Entry(entry)) = &subject {
            self.tokens.remove(&entry.id);
        }
        subject
    }
}

/// A job that panicked is a failure of its entry, not of the node.
fn died(subject: Option<Subject>, error: &JoinError) -> Outcome {
    let message = format!("a job of the agent died ({error}); this is a bug, please report it with the log");
    tracing::error!("{message}");
    match subject {
        Some(Subject::Entry(entry)) => {
            let (kind, code) = (ErrorKind::Local, "InternalError");
            Outcome::Failed { entry, kind, code, message, shortage: None }
        }
        Some(Subject::Name(id)) => Outcome::Retired { id, result: Err(Stays::Stuck(message)) },
        Some(Subject::Old(id)) => Outcome::DroppedOld(id, Err(Stays::Stuck(message))),
        Some(Subject::Room(newcomer)) => Outcome::RoomFound { newcomer, result: Err(message) },
        Some(Subject::Measure) => Outcome::Measured(Err(message)),
        Some(Subject::Shrink) => Outcome::Shrunk(Err(message)),
        Some(Subject::State) => Outcome::Remembered(Err(message)),
        Some(Subject::Pins) => Outcome::Unpinned(Err(message)),
        Some(Subject::Scan) | None => Outcome::Scanned(Err(message)),
    }
}

async fn ensure(
    rooms: Rooms,
    entry: Arc<Entry>,
    recheck: bool,
    progress: Arc<Progress>,
    stop: CancellationToken,
) -> Outcome {
    let ended = match &entry.goods {
        Goods::Image(goods) => ensure_image(&rooms, &entry, goods, recheck, &progress, &stop).await,
        Goods::Weights(goods) => ensure_weights(&rooms, &entry, goods, &progress, &stop).await,
    };
    match ended {
        Ok(warmed) => Outcome::Warmed { entry, warmed },
        Err(Failed { kind, code, message, shortage }) => {
            Outcome::Failed { entry, kind, code, message, shortage }
        }
    }
}

/// A node becomes ready by what is required.
fn urgency(entry: &Entry) -> Urgency {
    if entry.required { Urgency::Urgent } else { Urgency::Ordinary }
}

struct Failed {
    kind: ErrorKind,
    code: &'static str,
    message: String,
    shortage: Option<Shortage>,
}

impl Failed {
    fn new(kind: ErrorKind, code: &'static str, message: String) -> Self {
        Self { kind, code, message, shortage: None }
    }
}

async fn ensure_image(
    rooms: &Rooms,
    entry: &Entry,
    goods: &ImageGoods,
    recheck: bool,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<Warmed, Failed> {
    let warm = rooms
        .puller
        .with_urgency(urgency(entry))
        .ensure(goods, entry.credentials.as_deref(), recheck, progress, stop)
        .await
        .map_err(|error| Failed::new(error.kind(), error.code(), chain(&error)))?;
    let left_to_containerd = warm.unable.map(|unable| Reason::new(unable.code(), unable.to_string()));
    Ok(Warmed::Image { revision: warm.revision, pulled: warm.pulled, left_to_containerd })
}

async fn ensure_weights(
    rooms: &Rooms,
    entry: &Entry,
    goods: &WeightsGoods,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<Warmed, Failed> {
    let warm = rooms
        .warmer
        .with_urgency(urgency(entry))
        .ensure(&entry.id, goods, entry.credentials.as_deref(), progress, stop)
        .await
        .map_err(|error| {
            let failed = Failed::new(error.kind(), error.kind().reason(), chain(&error));
            Failed { shortage: error.shortage(), ..failed }
        })?;
    let (cache, id) = (Arc::clone(&rooms.cache), entry.id.clone());
    let named = task::spawn_blocking(move || cache.named(&id)).await;
    let named = match named {
        Ok(Ok(named)) => named.unwrap_or_default(),
        Ok(Err(error)) => return Err(Failed::new(error.kind(), "CacheUnreadable", chain(&error))),
        Err(error) => return Err(Failed::new(ErrorKind::Local, "InternalError", error.to_string())),
    };
    Ok(Warmed::Weights { named, revision: warm.revision, fetched: warm.fetched_bytes })
}

async fn unpin(rooms: Rooms, pins: Vec<String>) -> Outcome {
    Outcome::Unpinned(rooms.puller.unpin(&pins).await.map_err(|error| chain(&error)))
}

/// Runs `work` on the cache where it may block.
async fn on_cache<T: Send + 'static>(
    rooms: &Rooms,
    work: impl FnOnce(&Cache) -> Result<T, CacheError> + Send + 'static,
) -> Result<T, String> {
    let cache = Arc::clone(&rooms.cache);
    match task::spawn_blocking(move || work(&cache)).await {
        Ok(result) => result.map_err(|error| chain(&error)),
        Err(error) => Err(error.to_string()),
    }
}

async fn retire(rooms: Rooms, id: EntryId) -> Outcome {
    let result = match unless_used(&rooms, &id).await {
        Err(stays) => Err(stays),
        Ok(()) => {
            let name = id.clone();
            match on_cache(&rooms, move |cache| cache.retire(&name)).await {
                Ok(Retired::Gone) => Ok(()),
                Ok(Retired::InUse(path)) => Err(Stays::InUse(open_by_somebody(&path))),
                Ok(Retired::Foreign(dir)) => Err(Stays::Stuck(format!(
                    "something in {} is not the cache's, so the directory stays; move it elsewhere",
                    dir.display()
                ))),
                Err(problem) => Err(Stays::Stuck(problem)),
            }
        }
    };
    Outcome::Retired { id, result }
}

async fn drop_old(rooms: Rooms, id: EntryId) -> Outcome {
    let result = match unless_used(&rooms, &id).await {
        Err(stays) => Err(stays),
        Ok(()) => {
            let name = id.clone();
            match on_cache(&rooms, move |cache| cache.drop_old(&name)).await {
                Ok(None) => Ok(()),
                Ok(Some(path)) => Err(Stays::InUse(open_by_somebody(&path))),
                Err(problem) => Err(Stays::Stuck(problem)),
            }
        }
    };
    Outcome::DroppedOld(id, result)
}

fn open_by_somebody(path: &Path) -> String {
    format!("a process has {} open or mapped", path.display())
}

/// What a container has mounted stays, whether it has a file open or not.
async fn unless_used(rooms: &Rooms, id: &EntryId) -> Result<(), Stays> {
    let declared = rooms.users.declared(&rooms.cache).await.map_err(Stays::Stuck)?;
    declared.user_of(id).map_or(Ok(()), |user| Err(Stays::InUse(user)))
}

async fn find_room(rooms: Rooms, newcomer: EntryId, short: u64, candidates: Vec<EntryId>) -> Outcome {
    let result = match rooms.users.declared(&rooms.cache).await {
        Ok(declared) => {
            on_cache(&rooms, move |cache| cache.sets_to_give_way(&candidates, short, &declared)).await
        }
        Err(problem) => Err(problem),
    };
    Outcome::RoomFound { newcomer, result }
}

async fn measure(rooms: Rooms) -> Outcome {
    Outcome::Measured(on_cache(&rooms, Cache::room).await)
}

async fn shrink(rooms: Rooms, bytes: u64) -> Outcome {
    Outcome::Shrunk(on_cache(&rooms, move |cache| cache.shrink(bytes)).await)
}

async fn scan(rooms: Rooms) -> Outcome {
    let cache = Arc::clone(&rooms.cache);
    match task::spawn_blocking(move || cache.names()).await {
        Ok(Err(error @ CacheError::Moved { .. })) => Outcome::CacheMoved(chain(&error)),
        Ok(names) => Outcome::Scanned(names.map_err(|error| chain(&error))),
        Err(error) => Outcome::Scanned(Err(error.to_string())),
    }
}

async fn remember(state: BootState, state_dir: PathBuf) -> Outcome {
    let saved = task::spawn_blocking(move || state.save(&state_dir).map(|()| state)).await;
    Outcome::Remembered(match saved {
        Ok(result) => result.map_err(|error| chain(&error)),
        Err(error) => Err(error.to_string()),
    })
}
