//! What may stand on the Node. Pure.
//!
//! Bytes go only when their label can't be there: so what was read isn't enough while a write is on its way, nor
//! after one whose answer was lost, since the API server may still carry that out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::Applied;

/// The API server gives a request that changes something 34 seconds at most; after this time one that was given up
/// can't land any more.
pub const LANDS_WITHIN: Duration = Duration::from_secs(40);

/// More of them are thrown together, so that an outage costs no more memory the longer it lasts.
const MOST_UNANSWERED: usize = 8;

type Labels = BTreeMap<String, String>;

/// Keys with values; a key can have several.
type Pairs = BTreeSet<(String, String)>;

/// Labels that stand on the Node, and those that may.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    standing: Option<Labels>,
    on_its_way: Option<Pairs>,
    /// Writes without an answer, each with the moment from which it can't land any more.
    unanswered: Vec<(Pairs, Instant)>,
}

impl Ledger {
    /// The Node was seen with these labels.
    pub fn seen(&mut self, labels: &Labels) {
        if self.standing.as_ref() != Some(labels) {
            self.standing = Some(labels.clone());
        }
    }

    /// There is another Node, or none: what was sent to the old one can't land there.
    pub fn forget(&mut self) {
        // Whether a Node was ever seen in this run is kept: without one there are no labels.
        *self = Self { standing: self.standing.take().map(|_| Labels::new()), ..Self::default() };
    }

    /// A write that puts these labels there is about to be sent.
    pub fn sends(&mut self, labels: &Labels) {
        self.on_its_way = Some(pairs(labels));
    }

    /// It was answered: this is what stands.
    pub fn answered(&mut self, labels: &Labels) {
        self.on_its_way = None;
        self.seen(labels);
    }

    /// It was refused: it put nothing there.
    pub fn refused(&mut self) {
        self.on_its_way = None;
    }

    /// No answer came: it may have been carried out, or may yet be.
    pub fn lost(&mut self, now: Instant) {
        if let Some(sent) = self.on_its_way.take() {
            // The same write, tried again for as long as the API server is away, is one.
            self.unanswered.retain(|(before, _)| *before != sent);
            self.unanswered.push((sent, now + LANDS_WITHIN));
            if self.unanswered.len() > MOST_UNANSWERED {
                let (oldest, _) = self.unanswered.remove(0);
                self.unanswered[0].0.extend(oldest);
            }
        }
    }

    /// When a read settles what became of the writes without an answer; `None` if there are none.
    #[must_use]
    pub fn read_at(&self) -> Option<Instant> {
        self.unanswered.iter().map(|(_, until)| *until).max()
    }

    /// The API server was asked at `asked`, not a cache of anyone's, and these labels stood.
    pub fn read(&mut self, labels: &Labels, asked: Instant) {
        self.unanswered.retain(|(_, until)| asked < *until);
        self.seen(labels);
    }

    /// What is known of the labels there, when the newest report taken has this version; `None` before the Node was
    /// read in this run.
    #[must_use]
    pub fn applied(&self, labels_version: u64) -> Option<Applied> {
        let labels = self.standing.clone()?;
        let sent = self.unanswered.iter().map(|(pairs, _)| pairs).chain(&self.on_its_way);
        Some(Applied { labels, perhaps: sent.flatten().cloned().collect(), labels_version })
    }
}

fn pairs(labels: &Labels) -> Pairs {
    labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn may_stand(ledger: &Ledger) -> Pairs {
        let applied = ledger.applied(1).unwrap();
        applied.may_stand().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn nothing_is_said_before_the_node_was_read() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.applied(1), None);
        ledger.forget();
        assert_eq!(ledger.applied(1), None, "there is no Node yet");
        ledger.seen(&labels(&[("a", "1")]));
        ledger.forget();
        assert!(may_stand(&ledger).is_empty(), "the Node is gone, and its labels with it");
    }

    #[test]
    fn both_what_stands_and_what_is_sent_count_until_the_answer() {
        let mut ledger = Ledger::default();
        ledger.seen(&labels(&[("a", "1")]));
        ledger.sends(&labels(&[("b", "1")]));
        assert_eq!(may_stand(&ledger), pairs(&labels(&[("a", "1"), ("b", "1")])));
        ledger.answered(&labels(&[("b", "1")]));
        assert_eq!(may_stand(&ledger), pairs(&labels(&[("b", "1")])));
        ledger.sends(&labels(&[("c", "1")]));
        ledger.refused();
        assert_eq!(may_stand(&ledger), pairs(&labels(&[("b", "1")])));
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_without_an_answer_counts_until_it_cannot_land_and_a_read_came_after_that() {
        let mut ledger = Ledger::default();
        ledger.seen(&labels(&[]));
        ledger.sends(&labels(&[("a", "1")]));
        ledger.lost(Instant::now());
        let both = pairs(&labels(&[("a", "1")]));
        // It isn't there, and a later write that drops it is confirmed: the earlier one may still come.
        ledger.read(&labels(&[]), Instant::now());
        ledger.sends(&labels(&[]));
        ledger.answered(&labels(&[]));
        assert_eq!(may_stand(&ledger), both);
        let until = ledger.read_at().unwrap();
        assert_eq!(until, Instant::now() + LANDS_WITHIN);
        tokio::time::advance(LANDS_WITHIN).await;
        ledger.seen(&labels(&[]));
        assert_eq!(may_stand(&ledger), both, "what a watch tells may be older");
        ledger.read(&labels(&[]), until - Duration::from_millis(1));
        assert_eq!(may_stand(&ledger), both, "so may be what was asked before");
        ledger.read(&labels(&[]), until);
        assert!(may_stand(&ledger).is_empty());
        assert_eq!(ledger.read_at(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_outage_does_not_grow_it() {
        let mut ledger = Ledger::default();
        ledger.seen(&labels(&[]));
        for _ in 0..1000 {
            ledger.sends(&labels(&[("a", "1")]));
            ledger.lost(Instant::now());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(ledger.unanswered.len(), 1);
        for n in 0..100 {
            ledger.sends(&labels(&[(&format!("b{n}"), "1")]));
            ledger.lost(Instant::now());
        }
        assert_eq!(ledger.unanswered.len(), MOST_UNANSWERED);
        assert_eq!(may_stand(&ledger).len(), 101, "and none is forgotten");
    }

    #[test]
    fn a_key_may_stand_with_several_values() {
        let mut ledger = Ledger::default();
        ledger.seen(&labels(&[("a", "1")]));
        for value in ["2", "3"] {
            ledger.sends(&labels(&[("a", value)]));
            ledger.lost(Instant::now());
        }
        let applied = ledger.applied(7).unwrap();
        assert_eq!(applied.values("a").collect::<Vec<_>>(), ["1", "2", "3"]);
        assert_eq!((applied.labels, applied.labels_version), (labels(&[("a", "1")]), 7));
    }

    /// What happens to a ledger and to the Node that it is about.
    #[derive(Debug, Clone)]
    enum Step {
        Answered(u8),
        Refused(u8),
        Lost(u8),
        /// A write without an answer is carried out after all.
        Lands(usize),
        Passes(u64),
        Seen,
        Read,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..12u8).prop_map(Step::Answered),
            (0..12u8).prop_map(Step::Refused),
            (0..12u8).prop_map(Step::Lost),
            (0..4usize).prop_map(Step::Lands),
            (0..60u64).prop_map(Step::Passes),
            Just(Step::Seen),
            Just(Step::Read),
        ]
    }

    proptest! {
        #[test]
        fn no_label_ever_stands_that_is_not_told(steps in proptest::collection::vec(step(), 0..40)) {
            let set = |bits: u8| -> Labels {
                let keys = (0..2).filter(|bit| bits & (1 << bit) != 0);
                keys.map(|bit| (bit.to_string(), (bits >> 2).to_string())).collect()
            };
            let mut now = Instant::now();
            let (mut node, mut lost) = (Labels::new(), Vec::new());
            let mut ledger = Ledger::default();
            ledger.seen(&node);
            for step in steps {
                match step {
                    Step::Answered(bits) => {
                        ledger.sends(&set(bits));
                        node = set(bits);
                        prop_assert!(pairs(&node).is_subset(&may_stand(&ledger)));
                        ledger.answered(&node);
                    }
                    Step::Refused(bits) => {
                        ledger.sends(&set(bits));
                        ledger.refused();
                    }
                    Step::Lost(bits) => {
                        ledger.sends(&set(bits));
                        lost.push((set(bits), now + Duration::from_secs(34)));
                        ledger.lost(now);
                    }
                    Step::Lands(at) if at < lost.len() => {
                        let (labels, until) = lost.remove(at);
                        if now <= until {
                            node = labels;
                        }
                    }
                    Step::Lands(_) => {}
                    Step::Passes(seconds) => now += Duration::from_secs(seconds),
                    Step::Seen => ledger.seen(&node),
                    Step::Read => ledger.read(&node, now),
                }
                prop_assert!(pairs(&node).is_subset(&may_stand(&ledger)));
            }
            let settled = ledger.read_at().unwrap_or(now).max(now);
            ledger.read(&node, settled);
            prop_assert_eq!(may_stand(&ledger), pairs(&node));
        }
    }
}
