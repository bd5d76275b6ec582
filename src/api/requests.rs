//! What this node has been asked to fetch through the socket. Anybody on the node may ask, so only what the list names
//! can be asked for, and never so much that it pushes out what the list wants here.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

use super::outlook::{Outlook, knows_its_list};
use super::proto;
use crate::agent::MAX_ENTRIES;
use crate::node::{EntryState, Reason, Report};
use crate::types::EntryId;

/// The way to the agent: the ids that somebody has asked for.
#[derive(Debug, Clone)]
pub(super) struct Requests(Arc<watch::Sender<BTreeSet<EntryId>>>);

impl Requests {
    pub(super) fn new(sender: watch::Sender<BTreeSet<EntryId>>) -> Self {
        Self(Arc::new(sender))
    }

    /// Asks for one, by what the report says of it. While that isn't known: `None`.
    pub(super) fn ask(&self, report: &Report, id: &EntryId) -> Option<(proto::FetchAnswer, Option<Reason>)> {
        use proto::FetchAnswer;
        let outlook = Outlook::of(report, id);
        let answer = match outlook {
            Outlook::Unknown(_) => return None,
            Outlook::Warm(_) | Outlook::Coming(_) => return Some((FetchAnswer::Applies, None)),
            Outlook::NotForThisNode(_) => match self.add(report, id) {
                Ok(()) => return Some((FetchAnswer::Accepted, None)),
                Err(reason) => return Some((FetchAnswer::OverLimit, Some(reason))),
            },
            Outlook::NotListed => FetchAnswer::NotListed,
            Outlook::Expired(_) => FetchAnswer::Expired,
            Outlook::Invalid(_) => FetchAnswer::Invalid,
            Outlook::OverLimit(_) => FetchAnswer::OverLimit,
        };
        Some((answer, outlook.reason()))
    }

    /// Adds one that is listed and skipped, if there is room for it.
    fn add(&self, report: &Report, id: &EntryId) -> Result<(), Reason> {
        let mut room = true;
        self.0.send_if_modified(|requested| {
            let is_new = !requested.contains(id);
            // Those that the agent has taken up are no longer skipped.
            let coming = report.entries.iter().filter(|entry| match entry.state {
                EntryState::Skipped => requested.contains(&entry.id),
                EntryState::Invalid => false,
                _ => true,
            });
            room = !is_new || coming.count() < MAX_ENTRIES;
            is_new && room && requested.insert(id.clone())
        });
        let full = || {
            Reason::new(
                "OverLimit",
                format!("{MAX_ENTRIES} entries are for this node already, and it takes no more"),
            )
        };
        room.then_some(()).ok_or_else(full)
    }

    /// Forgets each request when its entry has left the list, so that an entry that comes back later isn't fetched for
    /// somebody who asked for another. Never returns.
    pub(super) async fn forget_unlisted(&self, mut reports: watch::Receiver<Arc<Report>>) {
        loop {
            let report = Arc::clone(&reports.borrow_and_update());
            if knows_its_list(&report) {
                self.0.send_if_modified(|requested| {
                    let before = requested.len();
                    requested.retain(|id| report.entries.iter().any(|entry| entry.id == *id));
                    requested.len() != before
                });
            }
            if reports.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::sample;
    use proto::FetchAnswer;

    fn id(id: &str) -> EntryId {
        id.parse().unwrap()
    }

    /// `skipped` entries that are not for this node, beside `coming` ones.
    fn report(skipped: usize, coming: usize) -> Report {
        let mut report = sample::report();
        let template = report.entries.remove(1);
        report.entries = (0..skipped + coming)
            .map(|number| {
                let mut entry = template.clone();
                entry.id = id(&format!("e{number}"));
                if number < skipped {
                    entry.state = EntryState::Skipped;
                    entry.reason = Some(Reason::new(Reason::NOT_FOR_THIS_NODE, "not here"));
                }
                entry
            })
            .collect();
        report
    }

    fn requests() -> (Requests, watch::Receiver<BTreeSet<EntryId>>) {
        let (sender, receiver) = watch::channel(BTreeSet::new());
        (Requests::new(sender), receiver)
    }

    #[test]
    fn only_what_is_listed_and_left_out_reaches_the_agent() {
        let (requests, mut asked) = requests();
        let mut report = report(3, 1);
        report.entries[1].reason = Some(Reason::new(Reason::EXPIRED, "over"));
        report.entries[2].state = EntryState::Invalid;
        let ask = |name: &str| requests.ask(&report, &id(name)).unwrap().0;
        assert_eq!(ask("e0"), FetchAnswer::Accepted);
        assert_eq!(ask("e1"), FetchAnswer::Expired);
        assert_eq!(ask("e2"), FetchAnswer::Invalid);
        assert_eq!(ask("e3"), FetchAnswer::Applies);
        assert_eq!(ask("unlisted"), FetchAnswer::NotListed);
        assert_eq!(*asked.borrow_and_update(), BTreeSet::from([id("e0")]));
        assert_eq!(ask("e0"), FetchAnswer::Accepted, "asking again is no error");
        assert!(!asked.has_changed().unwrap(), "and no news");
    }

    #[test]
    fn nobody_is_pushed_over_the_limit() {
        let (requests, asked) = requests();
        let report = report(3, MAX_ENTRIES - 2);
        let ask = |name: &str| requests.ask(&report, &id(name)).unwrap();
        assert_eq!(ask("e0").0, FetchAnswer::Accepted);
        assert_eq!(ask("e1").0, FetchAnswer::Accepted);
        let (answer, reason) = ask("e2");
        assert_eq!((answer, reason.unwrap().code), (FetchAnswer::OverLimit, "OverLimit".to_owned()));
        assert_eq!(ask("e1").0, FetchAnswer::Accepted, "it has its place already");
        assert_eq!(asked.borrow().len(), 2);
    }

    #[test]
    fn before_the_list_is_known_nothing_is_answered() {
        let (requests, asked) = requests();
        let report = Report { settled: false, ..report(1, 0) };
        assert!(requests.ask(&report, &id("e0")).is_none() && asked.borrow().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_forgotten_with_its_entry_and_not_before_that_is_certain() {
        let (requests, mut asked) = requests();
        let (reports, receiver) = watch::channel(Arc::new(report(2, 0)));
        requests.ask(&report(2, 0), &id("e0")).unwrap();
        requests.ask(&report(2, 0), &id("e1")).unwrap();
        let forgetting = tokio::spawn({
            let requests = requests.clone();
            async move { requests.forget_unlisted(receiver).await }
        });
        reports.send(Arc::new(Report { settled: false, ..report(0, 0) })).unwrap();
        tokio::task::yield_now().await;
        assert_eq!(asked.borrow_and_update().len(), 2);
        reports.send(Arc::new(report(1, 0))).unwrap();
        assert_eq!(*asked.wait_for(|asked| asked.len() < 2).await.unwrap(), BTreeSet::from([id("e0")]));
        forgetting.abort();
    }
}
