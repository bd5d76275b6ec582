//! What is to be expected of an id on this node. Pure.

use super::proto;
use crate::node::{EntryReport, EntryState, Reason, Report};
use crate::types::EntryId;

/// What is to be expected of an id.
#[derive(Debug, Clone, Copy)]
pub(super) enum Outlook<'r> {
    /// The agent has only just started: nothing can be ruled out.
    Unknown(Option<&'r EntryReport>),
    Warm(&'r EntryReport),
    /// Not warm yet. A failed entry is one of these: the agent tries it again.
    Coming(&'r EntryReport),
    NotListed,
    NotForThisNode(&'r EntryReport),
    Expired(&'r EntryReport),
    Invalid(&'r EntryReport),
    OverLimit(&'r EntryReport),
}

impl<'r> Outlook<'r> {
    pub(super) fn of(report: &'r Report, id: &EntryId) -> Self {
        let entry = report.entries.iter().find(|entry| entry.id == *id);
        match entry {
            Some(entry) if entry.state == EntryState::Warm => Self::Warm(entry),
            _ if !knows_its_list(report) => Self::Unknown(entry),
            None => Self::NotListed,
            Some(entry) => match entry.state {
                EntryState::Warm | EntryState::Pending | EntryState::Fetching | EntryState::Failed => {
                    Self::Coming(entry)
                }
                EntryState::Skipped if code(entry) == Some(Reason::EXPIRED) => Self::Expired(entry),
                EntryState::Skipped => Self::NotForThisNode(entry),
                EntryState::Invalid => Self::Invalid(entry),
                EntryState::OverLimit => Self::OverLimit(entry),
            },
        }
    }

    /// The entry, if it's listed.
    pub(super) fn entry(self) -> Option<&'r EntryReport> {
        match self {
            Self::Unknown(entry) => entry,
            Self::NotListed => None,
            Self::Warm(entry)
            | Self::Coming(entry)
            | Self::NotForThisNode(entry)
            | Self::Expired(entry)
            | Self::Invalid(entry)
            | Self::OverLimit(entry) => Some(entry),
        }
    }

    /// Why it isn't warm.
    pub(super) fn reason(self) -> Option<Reason> {
        match self {
            Self::Warm(_) => None,
            Self::NotListed => Some(Reason::new(
                "NotListed",
                "no entry of this node's list has this id; see `stoker status` for those that are there",
            )),
            Self::Unknown(None) => Some(Reason::new("Starting", "the agent does not know its list yet")),
            listed => listed.entry().and_then(|entry| entry.reason.clone()),
        }
    }

    pub(super) fn word(self) -> proto::Outlook {
        match self {
            Self::Unknown(_) | Self::Coming(_) => proto::Outlook::Waiting,
            Self::Warm(_) => proto::Outlook::Warm,
            Self::NotListed => proto::Outlook::NotListed,
            Self::NotForThisNode(_) => proto::Outlook::NotForThisNode,
            Self::Expired(_) => proto::Outlook::Expired,
            Self::Invalid(_) => proto::Outlook::Invalid,
            Self::OverLimit(_) => proto::Outlook::OverLimit,
        }
    }
}

/// Whether it's known what is listed and what is here. A node whose list could never be read can settle, too.
pub(super) fn knows_its_list(report: &Report) -> bool {
    report.settled && report.list.known
}

fn code(entry: &EntryReport) -> Option<&str> {
    entry.reason.as_ref().map(|reason| reason.code.as_str())
}

/// What came of a wait for entries with these outlooks.
pub(super) fn verdict(outlooks: impl IntoIterator<Item = proto::Outlook>) -> proto::Verdict {
    let mut verdict = proto::Verdict::Warm;
    for outlook in outlooks {
        match outlook {
            proto::Outlook::Warm => {}
            proto::Outlook::Waiting | proto::Outlook::Unspecified => verdict = proto::Verdict::Unspecified,
            proto::Outlook::NotListed
            | proto::Outlook::NotForThisNode
            | proto::Outlook::Expired
            | proto::Outlook::Invalid
            | proto::Outlook::OverLimit => return proto::Verdict::Never,
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::sample;

    fn word(state: EntryState, reason: &str, settled: bool) -> proto::Outlook {
        let mut report = sample::report();
        report.settled = settled;
        report.entries[0].state = state;
        report.entries[0].reason = Some(Reason::new(reason, ""));
        Outlook::of(&report, &"vllm".parse().unwrap()).word()
    }

    #[test]
    fn what_time_mends_is_waited_for() {
        for state in [EntryState::Pending, EntryState::Fetching, EntryState::Failed] {
            assert_eq!(word(state, "NotFound", true), proto::Outlook::Waiting, "{state:?}");
        }
        assert_eq!(word(EntryState::Warm, Reason::LAST_GOOD_VERSION, true), proto::Outlook::Warm);
    }

    #[test]
    fn what_it_does_not_is_told_apart() {
        use proto::Outlook as Word;
        for (state, reason, outlook) in [
            (EntryState::Skipped, Reason::EXPIRED, Word::Expired),
            (EntryState::Skipped, Reason::NOT_FOR_THIS_NODE, Word::NotForThisNode),
            (EntryState::Invalid, "Invalid", Word::Invalid),
            (EntryState::OverLimit, "OverLimit", Word::OverLimit),
        ] {
            assert_eq!(word(state, reason, true), outlook);
        }
        let unlisted = "unlisted".parse().unwrap();
        assert_eq!(Outlook::of(&sample::report(), &unlisted).word(), Word::NotListed);
    }

    #[test]
    fn before_all_is_known_only_warmth_is_certain() {
        for state in [EntryState::Skipped, EntryState::Invalid, EntryState::OverLimit] {
            assert_eq!(word(state, "", false), proto::Outlook::Waiting, "{state:?}");
        }
        assert_eq!(word(EntryState::Warm, "", false), proto::Outlook::Warm);
        let mut without_list = Report { entries: Vec::new(), ..sample::report() };
        without_list.list.known = false;
        assert_eq!(Outlook::of(&without_list, &"vllm".parse().unwrap()).word(), proto::Outlook::Waiting);
        let starting = Report { settled: false, entries: Vec::new(), ..sample::report() };
        let outlook = Outlook::of(&starting, &"vllm".parse().unwrap());
        assert_eq!(
            (outlook.word(), outlook.reason().unwrap().code),
            (proto::Outlook::Waiting, "Starting".into())
        );
    }

    #[test]
    fn one_that_never_comes_ends_the_wait_and_one_that_may_keeps_it_up() {
        use proto::{Outlook as O, Verdict as V};
        assert_eq!(verdict([O::Warm, O::Warm]), V::Warm);
        assert_eq!(verdict([O::Warm, O::Waiting]), V::Unspecified);
        assert_eq!(verdict([O::Waiting, O::NotListed, O::Warm]), V::Never);
    }
}
