//! When the Node may be written. Pure: moments in, moments out.

use std::time::Duration;

use tokio::time::Instant;

/// Changes that come together are written together.
const GATHER: Duration = Duration::from_secs(1);

/// Every write of every node reaches everyone who watches nodes, so in the long run there is one in this time…
const BETWEEN: Duration = Duration::from_secs(10);

/// …after so many that may follow each other at once.
const BURST: u32 = 3;

/// Somebody who takes off what we write, again and again, is answered this often at the usual pace; then each time
/// after twice as long…
const PATIENT_FIGHTS: u32 = 3;

/// …but not after longer than this.
const LONGEST_BETWEEN: Duration = Duration::from_secs(600);

/// How soon a change must be on the Node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// No label differs: people can wait, and a whole fleet that has seen the same new list must not speak at once.
    Told,
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
    /// Over how long a fleet spreads what is only told.
    spread: Duration,
    /// Since when the Node has been other than it should be, and this node's share of the spread.
    since: Option<(Instant, Duration)>,
    /// How often in a row the same had to be written again.
    fights: u32,
    /// The last write.
    last: Option<Instant>,
    /// When the bucket of writes is full again.
    full_at: Option<Instant>,
}

impl Pace {
    /// A pace at which a fleet takes `spread` to tell what can wait.
    #[must_use]
    pub fn new(spread: Duration) -> Self {
        Self { spread, ..Self::default() }
    }

    /// When a difference that is there now may be written; `chance` is between 0 and 1.
    pub fn due(&mut self, urgency: Urgency, now: Instant, chance: f64) -> Instant {
        let (since, share) = *self.since.get_or_insert((now, self.spread.mul_f64(chance)));
        let gathered = since + GATHER;
        let in_turn = gathered.max(self.turn().unwrap_or(gathered));
        match urgency {
            Urgency::Closes => now,
            Urgency::Opens => gathered,
            Urgency::Routine => in_turn,
            Urgency::Told => in_turn.max(gathered + share),
        }
    }

    /// The same, where what differs was written before and is gone again.
    pub fn due_again(&mut self, now: Instant, chance: f64) -> Instant {
        let due = self.due(Urgency::Routine, now, chance);
        let doubled = self.fights.saturating_sub(PATIENT_FIGHTS - 1);
        let between = BETWEEN.saturating_mul(2_u32.saturating_pow(doubled)).min(LONGEST_BETWEEN);
        match self.last {
            Some(last) if doubled > 0 => due.max(last + between),
            _ => due,
        }
    }

    /// The Node is as it should be.
    pub fn settled(&mut self) {
        self.since = None;
    }

    /// A write is about to be sent; `again`: what it writes was written before.
    pub fn writes(&mut self, now: Instant, again: bool) {
        self.since = None;
        let is_over = self.last.is_none_or(|last| now.duration_since(last) > LONGEST_BETWEEN + BETWEEN);
        self.fights = if again && !is_over { self.fights + 1 } else { 0 };
        self.last = Some(now);
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
        tokio::time::sleep_until(pace.due(urgency, start, 0.0)).await;
        pace.writes(Instant::now(), false);
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
        let due = pace.due(Urgency::Routine, Instant::now(), 0.5);
        tokio::time::advance(GATHER / 2).await;
        assert_eq!(pace.due(Urgency::Routine, Instant::now(), 0.5), due);
        // What was undone before it was written begins anew.
        pace.settled();
        assert_eq!(pace.due(Urgency::Routine, Instant::now(), 0.5), Instant::now() + GATHER);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_only_told_is_spread_and_what_matters_is_not() {
        let mut pace = Pace::new(Duration::from_secs(20));
        let now = Instant::now();
        assert_eq!(pace.due(Urgency::Told, now, 0.5), now + GATHER + Duration::from_secs(10));
        // Drawn once: a later look doesn't draw anew.
        assert_eq!(pace.due(Urgency::Told, now, 0.9), now + GATHER + Duration::from_secs(10));
        assert_eq!(pace.due(Urgency::Routine, now, 0.5), now + GATHER);
        assert_eq!(pace.due(Urgency::Closes, now, 0.5), now);
    }

    #[tokio::test(start_paused = true)]
    async fn who_undoes_what_is_written_is_answered_ever_more_slowly() {
        let mut pace = Pace::default();
        pace.writes(Instant::now(), false);
        let mut waits = Vec::new();
        for _ in 0..12 {
            let start = Instant::now();
            tokio::time::sleep_until(pace.due_again(start, 0.0)).await;
            pace.writes(Instant::now(), true);
            waits.push(start.elapsed().as_secs());
        }
        assert_eq!(waits, [1, 1, 8, 20, 40, 80, 160, 320, 600, 600, 600, 600]);
        // A change of our own isn't kept waiting by that.
        assert!(write(&mut pace, Urgency::Routine).await <= BETWEEN);
        let start = Instant::now();
        assert!(pace.due_again(start, 0.0) <= start + BETWEEN);
    }
}
