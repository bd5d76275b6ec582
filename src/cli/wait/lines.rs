//! What a wait says: a line for each change, and one now and then while bytes are under way. Pure but for the clock that
//! is handed in.

use std::time::Duration;

use tokio::time::Instant;

use crate::cli::document::Entry;
use crate::cli::format::{self, plain};
use crate::cli::proto::{Awaited, Outlook, WaitResponse};
use crate::cli::tracker::{Item, Tracker, item};
use crate::node::{EntryState, Reason};

/// How often it's said how far a job is: a wait's log is read afterwards, if at all.
const PAUSE: Duration = Duration::from_secs(15);

/// Remembers what was said.
#[derive(Debug, Default)]
pub(super) struct Lines {
    tracker: Tracker,
    told: Option<Instant>,
    /// What isn't warm yet, as it was last said.
    cold: Vec<String>,
}

impl Lines {
    /// What is new in an answer.
    pub(super) fn tell(&mut self, answer: &WaitResponse, now: Instant) -> String {
        let items: Vec<Item> = answer.entries.iter().map(awaited).collect();
        let sight = self.tracker.look(now, &items);
        let mut lines = sight.changes;
        if self.told.is_none_or(|told| now.duration_since(told) >= PAUSE) && !sight.moving.is_empty() {
            self.told = Some(now);
            lines.extend(sight.moving.iter().map(|job| format!("{}: {}", job.name, job.numbers())));
        }
        lines.extend(answer.entries.iter().filter_map(never).map(|line| format!("stoker: {line}")));
        let is_cold = |entry: &&Awaited| entry.outlook() != Outlook::Warm;
        self.cold = answer.entries.iter().filter(is_cold).map(|entry| plain(&entry.id)).collect();
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// That the time is over.
    pub(super) fn timed_out(&self, after: Duration) -> String {
        format!("stoker: not warm after {}: {}\n", format::duration(after), self.cold.join(", "))
    }
}

fn awaited(awaited: &Awaited) -> Item {
    let reason = awaited.reason.clone().map(|reason| Reason::new(reason.code, reason.message));
    match awaited.entry.clone().map(Entry::from) {
        Some(mut entry) => {
            // It has been asked for, and the agent is about to take it up.
            if awaited.outlook() == Outlook::Waiting && entry.state == Some(EntryState::Skipped) {
                entry.state = Some(EntryState::Pending);
            }
            entry.reason = reason.or(entry.reason);
            item(&entry)
        }
        None => {
            let state = reason
                .map(|reason| format!("{}: {}", plain(&reason.code), plain(&reason.message)))
                .unwrap_or_default();
            Item { name: plain(&awaited.id), state, bytes: None }
        }
    }
}

/// That it won't be warm here, in one sentence, with what to do next.
fn never(awaited: &Awaited) -> Option<String> {
    let why = match awaited.outlook() {
        Outlook::Unspecified | Outlook::Waiting | Outlook::Warm => return None,
        Outlook::NotListed => "is not in this node's list",
        Outlook::NotForThisNode => "is not for this node; --fetch asks for it all the same",
        Outlook::Expired => "is past its expiresAt",
        Outlook::Invalid => "is said badly by the list; `stoker check` names the fix",
        Outlook::OverLimit => "is one too many for this node",
    };
    Some(format!("{} {why}", plain(&awaited.id)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::proto;

    fn answer(entries: Vec<Awaited>) -> WaitResponse {
        WaitResponse { entries, verdict: 0 }
    }

    fn llama(state: proto::EntryState, outlook: Outlook, reason: Option<&str>, done: u64) -> Awaited {
        let entry = proto::Entry {
            id: "llama".to_owned(),
            kind: proto::Kind::Weights.into(),
            state: state.into(),
            bytes_done: done,
            bytes_total: if done > 0 { 4 << 30 } else { 0 },
            revision: (outlook == Outlook::Warm).then(|| "ab".repeat(32)),
            source: "s3://bucket/llama/".to_owned(),
            verified: true,
            ..proto::Entry::default()
        };
        let reason =
            reason.map(|code| proto::Reason { code: code.to_owned(), message: "because".to_owned() });
        Awaited { id: "llama".to_owned(), outlook: outlook.into(), entry: Some(entry), reason }
    }

    #[test]
    fn a_wait_from_its_start_to_its_end() {
        let (mut lines, start) = (Lines::default(), Instant::now());
        let mut tell = |after, entry| lines.tell(&answer(vec![entry]), start + Duration::from_secs(after));
        let waiting = |state, reason, done| llama(state, Outlook::Waiting, reason, done);
        use proto::EntryState::{Failed, Fetching, Pending, Skipped, Warm};
        assert_eq!(tell(0, waiting(Skipped, Some("Requested"), 0)), "llama: Pending (Requested): because\n");
        assert_eq!(tell(1, waiting(Pending, Some("Queued"), 0)), "llama: Pending (Queued): because\n");
        let moved = tell(2, waiting(Fetching, None, 1 << 30));
        assert_eq!(moved, "llama: Fetching from s3://bucket/llama/\nllama: 1.0 of 4.0 GiB (25%)\n");
        assert_eq!(tell(3, waiting(Fetching, None, 2 << 30)), "", "no flood");
        assert!(tell(17, waiting(Fetching, None, 3 << 30)).starts_with("llama: 3.0 of 4.0 GiB (75%), "));
        assert_eq!(
            tell(18, waiting(Failed, Some("Unreachable"), 0)),
            "llama: Failed (Unreachable): because (after 16 s)\n"
        );
        let warm = tell(30, llama(Warm, Outlook::Warm, None, 0));
        assert_eq!(warm, "llama: Warm, revision abababababab\n");
    }

    #[test]
    fn what_never_comes_is_said_with_the_next_step() {
        let mut lines = Lines::default();
        let unlisted = Awaited {
            id: "typo".to_owned(),
            outlook: Outlook::NotListed.into(),
            entry: None,
            reason: Some(proto::Reason {
                code: "NotListed".to_owned(),
                message: "no entry\u{1b}[31m".to_owned(),
            }),
        };
        let skipped = llama(proto::EntryState::Skipped, Outlook::NotForThisNode, Some("NotForThisNode"), 0);
        insta::assert_snapshot!(lines.tell(&answer(vec![unlisted, skipped]), Instant::now()), @r"
        typo: NotListed: no entry [31m
        llama: Skipped (NotForThisNode): because
        stoker: typo is not in this node's list
        stoker: llama is not for this node; --fetch asks for it all the same
        ");
    }

    #[test]
    fn the_end_of_the_time_names_what_is_still_cold() {
        let mut lines = Lines::default();
        let warm =
            Awaited { id: "vllm".to_owned(), outlook: Outlook::Warm.into(), entry: None, reason: None };
        let cold = llama(proto::EntryState::Fetching, Outlook::Waiting, None, 1);
        lines.tell(&answer(vec![warm, cold]), Instant::now());
        assert_eq!(lines.timed_out(Duration::from_secs(600)), "stoker: not warm after 10 min: llama\n");
    }
}
