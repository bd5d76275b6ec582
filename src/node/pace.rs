//! When the Node may be written. Pure: moments in, moments out.

use std::time::Duration;

use tokio::time::Instant;

/// Changes that come together are written together.
const GATHER: Duration = Duration::from_secs(1);

/// Every write of every node reaches everyone who watches nodes, so in the long run there is one in this time…
const BETWEEN: Duration = Duration::from_secs(10);

/// …after so many that may follow each other at once.
const BURST: u32 = 3;

/// How soon a change must be on the Node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// It can wait for its turn.
    Routine,
    /// It lets pods in: it doesn't wait for its turn.
    Opens,
    /// It keeps pods away from what isn't there any more: it waits for nothing.
    Closes,
}

/// The pace of one node's writes.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    /// Since when the Node has been other than it should be.
    since: Option<Instant>,
    /// When the bucket of writes is full again.
    full_at: Option<Instant>,
}

impl Pace {
    /// When a difference that is there now may be written.
    pub fn due(&mut self, urgency: Urgency, now: Instant) -> Instant {
        let gathered = *self.since.get_or_insert(now) + GATHER;
        match urgency {
            Urgency::Closes => now,
            Urgency::Opens => gathered,
            Urgency::Routine => gathered.max(self.turn().unwrap_or(gathered)),
        }
    }

    /// The Node is as it should be.
    pub fn settled(&mut self) {
        self.since = None;
    }

    /// A write is about to be sent.
    pub fn writes(&mut self, now: Instant) {
        self.since = None;
        let full_at = self.full_at.map_or(now, |full| full.max(now)) + BETWEEN;
        // Writes that wait for nothing can empty the bucket, but leave no debt: a GPU that was lost and found many
        // times must not keep a label back for minutes afterwards.
        self.full_at = Some(full_at.min(now + BETWEEN * BURST));
    }

    /// When the next routine write has its turn; `None` is now.
    fn turn(&self) -> Option<Instant> {
        self.full_at.and_then(|full| full.checked_sub(BETWEEN * (BURST - 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes as the task does: sleeps until it's due, and goes on with the next change at once.
    async fn write(pace: &mut Pace, urgency: Urgency) -> Duration {
        let start = Instant::now();
        tokio::time::sleep_until(pace.due(urgency, start)).await;
        pace.writes(Instant::now());
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn three_writes_then_one_in_ten_seconds() {
        let mut pace = Pace::default();
        let mut waits = Vec::new();
        for _ in 0..6 {
            waits.push(write(&mut pace, Urgency::Routine).await.as_secs());
        }
        assert_eq!(waits, [1, 1, 1, 8, 10, 10]);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(write(&mut pace, Urgency::Routine).await, GATHER);
    }

    #[tokio::test(start_paused = true)]
    async fn what_opens_is_gathered_and_what_closes_goes_at_once_however_many_were_written() {
        let mut pace = Pace::default();
        for _ in 0..5 {
            write(&mut pace, Urgency::Routine).await;
        }
        assert_eq!(write(&mut pace, Urgency::Opens).await, GATHER);
        assert_eq!(write(&mut pace, Urgency::Closes).await, Duration::ZERO);
        assert_eq!(write(&mut pace, Urgency::Routine).await, BETWEEN, "urgent writes are counted");
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_urgent_writes_came_before_a_routine_one_waits_for_one_turn() {
        let mut pace = Pace::default();
        for _ in 0..100 {
            write(&mut pace, Urgency::Closes).await;
            write(&mut pace, Urgency::Opens).await;
        }
        assert_eq!(write(&mut pace, Urgency::Routine).await, BETWEEN);
    }

    #[tokio::test(start_paused = true)]
    async fn later_changes_do_not_push_a_write_back() {
        let mut pace = Pace::default();
        let due = pace.due(Urgency::Routine, Instant::now());
        tokio::time::advance(GATHER / 2).await;
        assert_eq!(pace.due(Urgency::Routine, Instant::now()), due);
        // What was undone before it was written begins anew.
        pace.settled();
        assert_eq!(pace.due(Urgency::Routine, Instant::now()), Instant::now() + GATHER);
    }
}
