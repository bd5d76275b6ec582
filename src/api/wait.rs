//! The stream of answers to `Wait`.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::outlook::{Outlook, verdict};
use super::requests::Requests;
use super::{TICK, convert, proto};
use crate::node::{Reason, Report};
use crate::types::EntryId;

/// One client's wait.
pub(super) struct Wait {
    pub(super) ids: Vec<EntryId>,
    /// Where to ask for what isn't for this node; without it that is the end of the wait.
    pub(super) requests: Option<Requests>,
    pub(super) reports: watch::Receiver<Arc<Report>>,
    pub(super) stop: CancellationToken,
    pub(super) deadline: Option<Instant>,
}

struct Waiting {
    wait: Wait,
    said: Option<proto::WaitResponse>,
    over: bool,
}

impl Wait {
    /// Where the entries stand now, and each time that this changes, until there is a verdict. Nothing is queued: an
    /// answer is made when the client has room for it.
    pub(super) fn answers(mut self) -> BoxStream<'static, Result<proto::WaitResponse, Status>> {
        self.reports.mark_changed();
        let waiting = Waiting { wait: self, said: None, over: false };
        Box::pin(futures::stream::unfold(waiting, |mut waiting| async {
            let answer = waiting.next().await?;
            Some((answer, waiting))
        }))
    }

    fn look(&self) -> proto::WaitResponse {
        let report = Arc::clone(&self.reports.borrow());
        let entries: Vec<_> = self.ids.iter().map(|id| self.look_at(&report, id)).collect();
        let verdict = verdict(entries.iter().map(proto::Awaited::outlook));
        proto::WaitResponse { entries, verdict: verdict.into() }
    }

    fn look_at(&self, report: &Report, id: &EntryId) -> proto::Awaited {
        let outlook = Outlook::of(report, id);
        let (mut word, mut reason) = (outlook.word(), outlook.reason());
        if let (Outlook::NotForThisNode(_), Some(requests)) = (outlook, &self.requests) {
            match requests.ask(report, id) {
                Some((proto::FetchAnswer::OverLimit, why)) => {
                    (word, reason) = (proto::Outlook::OverLimit, why);
                }
                _ => {
                    let why = "it has been asked for, although `nodes` leaves it out here";
                    (word, reason) = (proto::Outlook::Waiting, Some(Reason::new("Requested", why)));
                }
            }
        }
        proto::Awaited {
            id: id.to_string(),
            outlook: word.into(),
            entry: outlook.entry().map(convert::entry),
            reason: reason.as_ref().map(convert::reason),
        }
    }

    fn is_moving(&self) -> bool {
        let report = self.reports.borrow();
        report.entries.iter().any(|entry| entry.progress.is_some() && self.ids.contains(&entry.id))
    }
}

impl Waiting {
    async fn next(&mut self) -> Option<Result<proto::WaitResponse, Status>> {
        if self.over {
            return None;
        }
        loop {
            if let Err(status) = self.change().await {
                self.over = true;
                return Some(Err(status));
            }
            let answer = self.wait.look();
            if self.said.as_ref() != Some(&answer) {
                self.over = answer.verdict() != proto::Verdict::Unspecified;
                self.said = Some(answer.clone());
                return Some(Ok(answer));
            }
        }
    }

    /// Waits for whatever may change the answer.
    async fn change(&mut self) -> Result<(), Status> {
        let stops = || Status::unavailable("the agent stops; ask again once it is back");
        let moving = self.wait.is_moving();
        let late = async |deadline: Option<Instant>| match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        };
        tokio::select! {
            biased;
            () = self.wait.stop.cancelled() => return Err(stops()),
            () = late(self.wait.deadline) => return Err(Status::deadline_exceeded("not every entry is warm yet")),
            changed = self.wait.reports.changed() => changed.map_err(|_| stops())?,
            () = tokio::time::sleep(TICK), if moving => {}
        }
        self.wait.reports.mark_unchanged();
        Ok(())
    }
}

/// When the client stops waiting, as it says in `grpc-timeout` (gRPC over HTTP/2): at most eight digits and a unit.
/// tonic's server holds only the beginning of a stream to it.
pub(super) fn deadline(metadata: &MetadataMap, now: Instant) -> Option<Instant> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number = (number.len() <= 8).then(|| number.parse::<u64>().ok())??;
    let timeout = match unit {
        "H" => Duration::from_hours(number),
        "M" => Duration::from_mins(number),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    };
    now.checked_add(timeout)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use futures::{FutureExt as _, StreamExt as _};
    use tonic::Code;

    use super::*;
    use crate::api::sample;
    use crate::node::EntryState;

    fn ids(names: &[&str]) -> Vec<EntryId> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    /// The sample's llama in a state, nothing of it under way.
    fn llama(state: EntryState, reason: Option<&str>) -> Report {
        let mut report = sample::report();
        report.entries[1].state = state;
        report.entries[1].progress = None;
        report.entries[1].reason = reason.map(|code| Reason::new(code, "because"));
        report
    }

    fn wait(names: &[&str], report: Report) -> (watch::Sender<Arc<Report>>, Wait) {
        let (reports, receiver) = watch::channel(Arc::new(report));
        let stop = CancellationToken::new();
        (reports, Wait { ids: ids(names), requests: None, reports: receiver, stop, deadline: None })
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_when_all_are_warm() {
        let (reports, wait) = wait(&["vllm", "llama"], llama(EntryState::Pending, Some("GateClosed")));
        let mut answers = wait.answers();
        let first = answers.next().await.unwrap().unwrap();
        assert_eq!(first.verdict(), proto::Verdict::Unspecified);
        assert_eq!(first.entries[1].reason.as_ref().unwrap().code, "GateClosed");
        // Nothing of what is waited for has changed.
        reports
            .send(Arc::new(Report { ready: true, ..llama(EntryState::Pending, Some("GateClosed")) }))
            .unwrap();
        assert!(answers.next().now_or_never().is_none());
        reports.send(Arc::new(llama(EntryState::Failed, Some("NotFound")))).unwrap();
        assert_eq!(answers.next().await.unwrap().unwrap().entries[1].outlook(), proto::Outlook::Waiting);
        reports.send(Arc::new(llama(EntryState::Warm, None))).unwrap();
        assert_eq!(answers.next().await.unwrap().unwrap().verdict(), proto::Verdict::Warm);
        assert!(answers.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_comes_is_said_at_once_with_the_reason() {
        for (report, id, outlook, code) in [
            (sample::report(), "unlisted", proto::Outlook::NotListed, "NotListed"),
            (sample::report(), "typo", proto::Outlook::Invalid, "Invalid"),
            (
                llama(EntryState::Skipped, Some(Reason::NOT_FOR_THIS_NODE)),
                "llama",
                proto::Outlook::NotForThisNode,
                Reason::NOT_FOR_THIS_NODE,
            ),
        ] {
            let (_reports, wait) = wait(&["vllm", id], report);
            let answers: Vec<_> = wait.answers().collect().await;
            let [Ok(answer)] = &answers[..] else { panic!("{answers:?}") };
            assert_eq!(answer.verdict(), proto::Verdict::Never);
            assert_eq!(answer.entries[1].outlook(), outlook);
            assert_eq!(answer.entries[1].reason.as_ref().unwrap().code, code);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_ruled_out_before_the_agent_knows_its_list() {
        let starting = Report { settled: false, entries: Vec::new(), ..sample::report() };
        let (reports, wait) = wait(&["vllm"], starting);
        let mut answers = wait.answers();
        assert_eq!(answers.next().await.unwrap().unwrap().verdict(), proto::Verdict::Unspecified);
        assert!(answers.next().now_or_never().is_none());
        reports.send(Arc::new(sample::report())).unwrap();
        assert_eq!(answers.next().await.unwrap().unwrap().verdict(), proto::Verdict::Warm);
    }

    #[tokio::test(start_paused = true)]
    async fn with_fetch_it_asks_and_goes_on() {
        let left_out = || llama(EntryState::Skipped, Some(Reason::NOT_FOR_THIS_NODE));
        let (reports, mut wait) = wait(&["llama"], left_out());
        let (sender, requested) = watch::channel(BTreeSet::new());
        wait.requests = Some(Requests::new(sender));
        let mut answers = wait.answers();
        let first = answers.next().await.unwrap().unwrap();
        assert_eq!(first.verdict(), proto::Verdict::Unspecified);
        assert_eq!(first.entries[0].reason.as_ref().unwrap().code, "Requested");
        assert_eq!(requested.borrow().iter().map(EntryId::as_str).collect::<Vec<_>>(), ["llama"]);
        reports.send(Arc::new(llama(EntryState::Warm, None))).unwrap();
        assert_eq!(answers.next().await.unwrap().unwrap().verdict(), proto::Verdict::Warm);
    }

    #[tokio::test(start_paused = true)]
    async fn moving_bytes_are_told_once_a_second_and_those_of_others_never() {
        let (reports, wait) = wait(&["llama"], sample::report());
        let mut answers = wait.answers();
        answers.next().await.unwrap().unwrap();
        let progress = reports.borrow().entries[1].progress.clone().unwrap();
        progress.add(1 << 30);
        let start = Instant::now();
        let moved = answers.next().await.unwrap().unwrap();
        assert_eq!((start.elapsed(), moved.entries[0].entry.as_ref().unwrap().bytes_done), (TICK, 2 << 30));
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_and_the_agents_end_are_told_apart() {
        let pending = || llama(EntryState::Pending, Some("Queued"));
        let (_reports, mut late) = wait(&["llama"], pending());
        late.deadline = Some(Instant::now() + Duration::from_secs(5));
        let mut answers = late.answers();
        answers.next().await.unwrap().unwrap();
        assert_eq!(answers.next().await.unwrap().unwrap_err().code(), Code::DeadlineExceeded);
        assert!(answers.next().await.is_none());

        let (reports, stopped) = wait(&["llama"], pending());
        let stop = stopped.stop.clone();
        let mut answers = stopped.answers();
        answers.next().await.unwrap().unwrap();
        stop.cancel();
        assert_eq!(answers.next().await.unwrap().unwrap_err().code(), Code::Unavailable);
        drop(reports);
    }

    #[test]
    fn the_deadline_is_read_as_grpc_writes_it() {
        let now = Instant::now();
        let read = |text: &'static str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", tonic::metadata::MetadataValue::from_static(text));
            deadline(&metadata, now).map(|deadline| deadline - now)
        };
        assert_eq!(read("90S"), Some(Duration::from_secs(90)));
        assert_eq!(read("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(read("1500m"), Some(Duration::from_millis(1500)));
        for text in ["", "S", "5", "5x", "123456789S", "-1S"] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(deadline(&MetadataMap::new(), now), None);
    }
}
