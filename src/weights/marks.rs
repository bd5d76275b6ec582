//! The thread that keeps a file's journal: what was written is made durable, and then marked, many ranges at a time.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::Instant;

use super::data_file::DataFile;
use super::error::OpError;
use super::journal::{self, Checked, Hashed, Journal};
use super::ops;
use super::spot::Spot;

/// How often there's a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    /// A file that isn't longer has no journal: it comes in one piece, or so soon that there's nothing to save.
    pub(super) least: u64,
    /// When so many bytes are on the disk and not marked,
    pub(super) bytes: u64,
    /// or so long after the first of them, whichever comes first.
    pub(super) time: Duration,
}

impl Default for Pace {
    /// A mark costs two flushes of the disk's own cache.
    fn default() -> Self {
        Self { least: 16 << 20, bytes: 128 << 20, time: Duration::from_millis(500) }
    }
}

/// States of the hash that wait until the bytes that they took in are marked. More come only where ranges are tiny,
/// and then any of them does.
const MOST_STATES: usize = 64;

/// What the writers tell the thread.
#[derive(Debug)]
pub(super) struct Marks {
    pace: Pace,
    state: Mutex<State>,
    changed: Condvar,
    /// Why written bytes may not be on the disk, once the kernel has said so.
    lost: OnceLock<i32>,
}

#[derive(Debug, Default)]
struct State {
    written: Vec<Checked>,
    bytes: u64,
    /// When the first of `written` came.
    since: Option<Instant>,
    states: Vec<Hashed>,
    end: Option<End>,
}

/// How it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With a last mark of all that was written: somebody will go on later.
    Marked,
    /// As it is: the file is finished, or of no use.
    Forgotten,
}

struct Batch {
    written: Vec<Checked>,
    states: Vec<Hashed>,
    end: Option<End>,
}

impl Marks {
    pub(super) fn new(pace: Pace) -> Self {
        Self { pace, state: Mutex::default(), changed: Condvar::new(), lost: OnceLock::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole between any two statements that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The write of this range has ended.
    pub(super) fn written(&self, checked: Checked) {
        let mut state = self.state();
        if state.end.is_none() {
            state.bytes += checked.range.len();
            state.written.push(checked);
            state.since.get_or_insert_with(Instant::now);
            self.changed.notify_one();
        }
    }

    /// How far the hash is; perhaps ahead of what is written.
    pub(super) fn hashed(&self, hashed: Hashed) {
        let mut state = self.state();
        if state.states.len() >= MOST_STATES {
            let mut nth = 0;
            state.states.retain(|_| {
                nth += 1;
                nth % 2 == 0
            });
        }
        if state.end.is_none() {
            state.states.push(hashed);
        }
    }

    /// Has the thread end; the first word counts.
    pub(super) fn end(&self, end: End) {
        self.state().end.get_or_insert(end);
        self.changed.notify_one();
    }

    /// That no flush failed which the thread asked for.
    pub(super) fn all_synced(&self) -> io::Result<()> {
        self.lost.get().map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(*code)))
    }

    /// Waits until there's something to mark, or it ends.
    fn next(&self) -> Batch {
        let mut state = self.state();
        loop {
            let left = state.since.map(|since| self.pace.time.saturating_sub(since.elapsed()));
            if state.end.is_some() || state.bytes >= self.pace.bytes || left == Some(Duration::ZERO) {
                break;
            }
            state = match left {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    let waited = self.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        state.bytes = 0;
        state.since = None;
        let (written, states) = (std::mem::take(&mut state.written), std::mem::take(&mut state.states));
        Batch { written, states, end: state.end }
    }
}

/// Starts the thread for `data`, which has [`Marks`]. It says in the end whether there's a journal on the disk; `stored`
/// is whether there's one already, that says what `journal` says, and perhaps more. `None` when there can't be a thread: then nothing is marked.
pub(super) fn start(
    data: Arc<DataFile>,
    spot: Arc<Spot>,
    journal: Journal,
    stored: bool,
) -> Option<JoinHandle<bool>> {
    let marking = move || Marker { data, spot, journal, pending: Vec::new(), stored, file: None }.run();
    match std::thread::Builder::new().name("journal".to_owned()).spawn(marking) {
        Ok(thread) => Some(thread),
        Err(error) => {
            tracing::warn!(%error, "no thread for a journal; a fetch that is cut short will begin again");
            None
        }
    }
}

struct Marker {
    data: Arc<DataFile>,
    spot: Arc<Spot>,
    /// All that is marked, by this thread or before it.
    journal: Journal,
    /// States of the hash that took in bytes which aren't marked yet.
    pending: Vec<Hashed>,
    /// Whether there's a journal on the disk.
    stored: bool,
    /// The journal, once this thread has begun it, and its length.
    file: Option<(std::fs::File, u64)>,
}

impl Marker {
    /// Says in the end whether there's a journal on the disk.
    fn run(mut self) -> bool {
        let data = Arc::clone(&self.data);
        let Some(marks) = data.marks() else { return self.stored };
        let mut works = true;
        loop {
            let Batch { written, states, end } = marks.next();
            if end == Some(End::Forgotten) {
                return self.stored;
            }
            self.pending.extend(states);
            let frontier = self.journal.frontier();
            let hash_is_news = end.is_some() && self.pending.iter().any(|hashed| hashed.upto <= frontier);
            if works && (!written.is_empty() || hash_is_news) {
                works = self.mark(marks, &written);
            }
            if end.is_some() {
                break;
            }
        }
        // Nothing tells what is in it, so nobody can go on with it; but its blocks are taken.
        if !self.stored
            && let Err(error) = self.spot.remove()
        {
            tracing::warn!(error = crate::rt::chain(&error), "a partial file stays until the next start");
        }
        self.stored
    }

    /// Makes durable what was written, then says so in the journal; false when that is over for good.
    fn mark(&mut self, marks: &Marks, written: &[Checked]) -> bool {
        if let Err(error) = self.data.sync_data() {
            let _ = marks.lost.set(error.raw_os_error().unwrap_or(rustix::io::Errno::IO.raw_os_error()));
            tracing::error!(%error, path = %self.spot.path().display(), "fdatasync failed; nothing more is marked");
            return false;
        }
        self.journal.add(written);
        let frontier = self.journal.frontier();
        let hashed =
            self.pending.iter().filter(|hashed| hashed.upto <= frontier).max_by_key(|it| it.upto).copied();
        self.pending.retain(|hashed| hashed.upto > frontier);
        if let Some(hashed) = hashed {
            self.journal.reached(hashed);
        }
        match self.write(written, hashed.as_ref()) {
            Ok(()) => true,
            Err(error) => {
                let error = crate::rt::chain(&error);
                tracing::warn!(
                    error,
                    "a journal can't be written; what is fetched from here on will be fetched again"
                );
                false
            }
        }
    }

    /// The first mark writes all that is known into a new journal, which takes the old one's place at once; further
    /// ones are appended.
    fn write(&mut self, written: &[Checked], hashed: Option<&Hashed>) -> Result<(), OpError> {
        let failed = |doing, path: &Path| {
            let path = path.to_owned();
            move |cause| OpError::new(doing, &path, cause)
        };
        let path = self.spot.path();
        let Some((file, length)) = &mut self.file else {
            let bytes = self.journal.encode();
            let file = self.spot.new_journal()?;
            ops::write_all_at(&file, &bytes, 0).map_err(failed("write the journal of", &path))?;
            ops::sync_data(&file).map_err(failed("fdatasync the journal of", &path))?;
            self.spot.place_journal()?;
            self.stored = true;
            self.file = Some((file, bytes.len() as u64));
            return Ok(());
        };
        let bytes = journal::encode_mark(written, hashed);
        let end = *length + bytes.len() as u64;
        if end > journal::LONGEST {
            return Err(OpError::new("write the journal of", &path, rustix::io::Errno::FBIG));
        }
        ops::write_all_at(file, &bytes, *length).map_err(failed("write the journal of", &path))?;
        ops::sync_data(file).map_err(failed("fdatasync the journal of", &path))?;
        *length = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::super::incoming::{Arrival, Incoming};
    use super::super::journal::Origin;
    use super::super::layout::PartialKey;
    use super::super::ops::Dir;
    use super::*;
    use crate::types::{ByteRange, Digest};

    const SIZE: u64 = 1 << 20;
    const PAGE: usize = 4096;
    const NEVER: Duration = Duration::from_secs(1 << 30);

    fn origin() -> Origin {
        let key = PartialKey::of_digest(Digest::of(b"model"));
        Origin { key, size: SIZE, version: None, owner: None }
    }

    fn spot(home: &Path) -> Spot {
        Spot::beside(Dir::open_root(home).unwrap(), "data")
    }

    fn incoming(home: &Path, pace: Pace) -> Incoming {
        let arrival = Arrival { origin: Some(origin()), size: SIZE, pace, keeper: None };
        Incoming::open(spot(home), arrival, &Default::default()).unwrap()
    }

    fn marked(home: &Path) -> u64 {
        spot(home)
            .read_journal()
            .and_then(|bytes| Journal::read(&bytes))
            .map_or(0, |journal| journal.frontier())
    }

    fn wait_for(what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !condition() {
            assert!(Instant::now() < deadline, "waited for {what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn there_is_a_mark_after_so_many_bytes_or_so_long_and_at_the_end() {
        let home = tempfile::tempdir().unwrap();
        let written = |incoming: &Incoming, page: usize| {
            incoming.sink().write_at((page * PAGE) as u64, &[7; PAGE]).unwrap();
        };
        let by_bytes = incoming(home.path(), Pace { least: 0, bytes: 3 * PAGE as u64, time: NEVER });
        written(&by_bytes, 0);
        written(&by_bytes, 1);
        assert_eq!(marked(home.path()), 0);
        written(&by_bytes, 2);
        wait_for("a mark of three pages", || marked(home.path()) == 3 * PAGE as u64);
        written(&by_bytes, 3);
        by_bytes.leave();
        assert_eq!(marked(home.path()), 4 * PAGE as u64, "the last mark");

        let time = Duration::from_millis(1);
        let by_time = incoming(home.path(), Pace { least: 0, bytes: u64::MAX, time });
        assert_eq!(by_time.kept().bytes(), 4 * PAGE as u64);
        written(&by_time, 4);
        wait_for("a mark of one page", || marked(home.path()) == 5 * PAGE as u64);
        by_time.discard();
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_was_never_marked_leaves_nothing() {
        let home = tempfile::tempdir().unwrap();
        let pace = Pace { least: 0, bytes: u64::MAX, time: NEVER };
        incoming(home.path(), pace).leave();
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
        drop(incoming(home.path(), pace));
        wait_for("its end", || std::fs::read_dir(home.path()).unwrap().count() == 0);
        // A file that isn't long enough for a journal.
        let short = incoming(home.path(), Pace { least: SIZE, ..pace });
        short.sink().write_at(0, &[7; PAGE]).unwrap();
        short.leave();
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
    }

    /// The kernel tells of bytes that it couldn't write once, to whoever asks first: here, the thread. A pipe can't be
    /// flushed, as a disk that fails can't.
    #[test]
    fn a_flush_that_failed_is_not_forgotten_and_nothing_is_marked_after_it() {
        let home = tempfile::tempdir().unwrap();
        let (_read, write) = rustix::pipe::pipe().unwrap();
        let pace = Pace { least: 0, bytes: 1, time: NEVER };
        let data = DataFile::over(&spot(home.path()).dir, "data", SIZE, File::from(write));
        let data = Arc::new(data.marked_in(Marks::new(pace)));
        let marks = data.marks().unwrap();
        let thread =
            start(Arc::clone(&data), Arc::new(spot(home.path())), Journal::new(origin()), false).unwrap();
        let range = ByteRange::new(0, 4096).unwrap();
        marks.written(Checked { range, crc: 1 });
        wait_for("the failure", || marks.all_synced().is_err());
        marks.written(Checked { range, crc: 1 });
        marks.end(End::Marked);
        assert!(!thread.join().unwrap(), "there's no journal");
        assert!(marks.all_synced().is_err());
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
    }
}
