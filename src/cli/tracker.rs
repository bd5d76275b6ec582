//! From one look at the state to the next: what is to be said, and how fast things move. Pure but for the clock
//! that is handed in.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::document::{Entry, Status};
use super::format;
use super::rate::Rate;
use crate::node::EntryState;
use crate::types::GpuPhase;

/// Something that is watched.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Item {
    /// Its name: an entry's id.
    pub name: String,
    /// Where it stands, for people; empty where nothing is to be said.
    pub state: String,
    /// Bytes done and in all (0: not known), while a job is under way.
    pub bytes: Option<(u64, u64)>,
}

/// A job under way.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Moving {
    /// The item's name.
    pub name: String,
    /// Bytes that have arrived.
    pub done: u64,
    /// Bytes in all, or 0.
    pub total: u64,
    /// Since it was first seen.
    pub elapsed: Duration,
    /// Bytes a second, once it can be told.
    rate: Option<f64>,
    /// Time left, once it can be told.
    left: Option<Duration>,
}

impl Moving {
    /// `1.2 of 4.0 GiB (30%), 310 MB/s, 9 s left`; without a total, how long it has been going on instead.
    pub(super) fn numbers(&self) -> String {
        let mut parts = Vec::new();
        match (self.done, self.total) {
            (0, 0) => {}
            (done, 0) => parts.push(format::size(done)),
            (done, total) => {
                let percent = format::percent(done, total);
                parts.push(format!("{} ({percent}%)", format::sizes(done, " of ", total)));
            }
        }
        parts.extend(self.rate.filter(|rate| *rate >= 1.0).map(format::rate));
        match self.left {
            Some(left) if self.total > 0 => parts.push(format!("{} left", format::duration(left))),
            _ if self.total == 0 => parts.push(format!("{} so far", format::duration(self.elapsed))),
            _ => {}
        }
        parts.join(", ")
    }
}

/// What came of one look.
#[derive(Debug, Default)]
pub(super) struct Sight {
    /// A line for each thing that changed.
    pub changes: Vec<String>,
    /// The jobs under way, in the items' order.
    pub moving: Vec<Moving>,
}

/// Remembers the last look.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    seen: BTreeMap<String, Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    state: String,
    job: Option<(Instant, Rate)>,
}

impl Tracker {
    /// Takes a look at all there is now.
    pub(super) fn look(&mut self, now: Instant, items: &[Item]) -> Sight {
        let mut sight = Sight::default();
        let mut before = std::mem::take(&mut self.seen);
        for item in items {
            let mut seen = before.remove(&item.name).unwrap_or_default();
            let ended = if item.bytes.is_none() { seen.job.take() } else { None };
            if seen.state != item.state {
                seen.state.clone_from(&item.state);
                if !item.state.is_empty() {
                    sight.changes.push(change(item, ended.map(|(since, _)| now.duration_since(since))));
                }
            }
            if let Some((done, total)) = item.bytes {
                sight.moving.push(moving(
                    item,
                    seen.job.get_or_insert_with(|| (now, Rate::default())),
                    now,
                    done,
                    total,
                ));
            }
            self.seen.insert(item.name.clone(), seen);
        }
        sight
    }
}

fn change(item: &Item, took: Option<Duration>) -> String {
    let after = took.map(|took| format!(" (after {})", format::duration(took))).unwrap_or_default();
    format!("{}: {}{after}", item.name, item.state)
}

fn moving(item: &Item, job: &mut (Instant, Rate), now: Instant, done: u64, total: u64) -> Moving {
    let (since, rate) = job;
    rate.sample(now, done);
    Moving {
        name: item.name.clone(),
        done,
        total,
        elapsed: now.duration_since(*since),
        rate: rate.per_second(),
        left: if total > 0 { rate.time_for(total.saturating_sub(done)) } else { None },
    }
}

/// What there is to watch in a status: the GPUs, the list where something is wrong with it, and the entries.
pub(super) fn items(status: &Status) -> Vec<Item> {
    let still = |name: &str, state: String| Item { name: name.to_owned(), state, bytes: None };
    let mut items = Vec::new();
    if status.gpu.phase != GpuPhase::Unknown {
        items.push(still("GPU", gpu_sentence(status)));
    }
    let list = list_sentence(status);
    if !list.is_empty() {
        items.push(still("list", list));
    }
    items.extend(status.entries.iter().map(item));
    items
}

/// One entry.
pub(super) fn item(entry: &Entry) -> Item {
    Item { name: entry.id.clone(), state: entry_sentence(entry), bytes: in_flight(entry) }
}

/// The bytes of the job under way, if there is one.
fn in_flight(entry: &Entry) -> Option<(u64, u64)> {
    let busy = entry.state == Some(EntryState::Fetching) || entry.bytes_done > 0 || entry.bytes_total > 0;
    busy.then_some((entry.bytes_done, entry.bytes_total))
}

fn gpu_sentence(status: &Status) -> String {
    let gpu = &status.gpu;
    let message = format::plain(&gpu.message);
    let message = if message.is_empty() { message } else { format!(": {message}") };
    format!("{:?} ({}){message}", gpu.phase, format::plain(&gpu.reason))
}

fn list_sentence(status: &Status) -> String {
    let list = &status.list;
    let mut parts: Vec<String> = list.errors.iter().map(|error| format::plain(error)).collect();
    parts.extend(list.paused.then(|| "paused: nothing is started, nothing is dropped".to_owned()));
    parts.extend(list.stale.then(|| "past its validUntil: nothing new is started".to_owned()));
    parts.join("; ")
}

fn entry_sentence(entry: &Entry) -> String {
    let reason = entry
        .reason
        .as_ref()
        .map(|reason| format!(" ({}): {}", format::plain(&reason.code), format::plain(&reason.message)));
    match entry.state {
        Some(EntryState::Warm) => {
            let revision = entry.revision.as_deref().map(format::short).unwrap_or("unknown");
            let recorded = if entry.verified { "" } else { ", recorded (no digest was published)" };
            format!("Warm, revision {revision}{recorded}{}", reason.unwrap_or_default())
        }
        Some(EntryState::Fetching) if reason.is_none() => {
            format!("Fetching from {}", format::plain(&entry.source))
        }
        _ => format!("{}{}", entry.state_word(), reason.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::document::tests::sample;

    fn llama(state: &str, bytes: Option<(u64, u64)>) -> Item {
        Item { name: "llama-70b".to_owned(), state: state.to_owned(), bytes }
    }

    #[test]
    fn a_job_from_start_to_end() {
        let mut tracker = Tracker::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);

        let sight = tracker.look(start, &[llama("Fetching", Some((0, 0)))]);
        assert_eq!(sight.changes, ["llama-70b: Fetching"]);
        assert_eq!(sight.moving[0].numbers(), "0 s so far");

        let sight = tracker.look(at(3), &[llama("Fetching", Some((930_000_000, 4 << 30)))]);
        assert!(sight.changes.is_empty());
        assert_eq!(sight.moving[0].numbers(), "0.9 of 4.0 GiB (21%), 310 MB/s, 11 s left");

        let sight = tracker.look(at(14), &[llama("Warm", None)]);
        assert_eq!(sight.changes, ["llama-70b: Warm (after 14 s)"]);
        assert!(sight.moving.is_empty());
        assert!(tracker.look(at(15), &[llama("Warm", None)]).changes.is_empty());
    }

    #[test]
    fn a_job_of_unknown_size_tells_how_long_it_takes() {
        let mut tracker = Tracker::default();
        let start = Instant::now();
        tracker.look(start, &[llama("", Some((0, 0)))]);
        let sight = tracker.look(start + Duration::from_secs(75), &[llama("", Some((0, 0)))]);
        assert_eq!(sight.moving[0].numbers(), "1 min 15 s so far");
        assert!(sight.changes.is_empty());
    }

    #[test]
    fn a_resumed_job_is_not_as_fast_as_what_it_found() {
        let mut tracker = Tracker::default();
        let start = Instant::now();
        tracker.look(start, &[llama("", Some((3 << 30, 4 << 30)))]);
        let sight = tracker.look(start + Duration::from_secs(2), &[llama("", Some((3 << 30, 4 << 30)))]);
        assert_eq!(sight.moving[0].numbers(), "3.0 of 4.0 GiB (75%)");
    }

    #[test]
    fn a_status_is_told_in_sentences() {
        let states: Vec<String> =
            items(&sample()).iter().map(|item| format!("{}: {}", item.name, item.state)).collect();
        assert_eq!(
            states,
            [
                "GPU: Ready (DriverReady)",
                "list: paused: nothing is started, nothing is dropped",
                "vllm: Warm, revision cdcdcdcdcdcd",
                "llama-70b: Fetching from s3://bucket/llama-70b/",
                "caches: Warm, revision efefefefefef, recorded (no digest was published)",
                "typo: Invalid (Invalid): image: not a reference: \"a b\"",
            ]
        );
    }
}
