//! Who goes first when several fetch at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// How much a fetch matters beside others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Urgency {
    /// Begins no new range while anything urgent comes.
    #[default]
    Ordinary,
    /// A node waits for it.
    Urgent,
}

/// The urgent fetches under way, and the others that wait for them.
///
/// Waiting comes before any memory is asked for. What has memory goes on to its end, so those who go first never wait
/// for memory of those who wait for them.
#[derive(Debug, Clone, Default)]
pub(super) struct Precedence(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    urgent: Mutex<Urgent>,
    fewer: Notify,
}

#[derive(Debug, Default)]
struct Urgent {
    under_way: usize,
    /// Those that wait for what others hold.
    waiting: usize,
    /// When one began, or had a byte, or what it waited for.
    moved: Option<Instant>,
}

/// Urgent fetches of which nothing came for so long hold nobody up: their server is silent, or they have enough to do
/// with what came.
const SILENCE: Duration = Duration::from_secs(2);

impl Precedence {
    /// Says that a fetch is under way.
    pub(super) fn begin(&self, urgency: Urgency) -> UnderWay {
        if urgency == Urgency::Urgent {
            let mut urgent = self.urgent();
            urgent.under_way += 1;
            urgent.moved = Some(Instant::now());
        }
        UnderWay { precedence: self.clone(), urgency }
    }

    fn urgent(&self) -> MutexGuard<'_, Urgent> {
        self.0.urgent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until when an ordinary fetch waits, unless that changes.
    fn held_until(&self) -> Option<Instant> {
        let (urgent, now) = (self.urgent(), Instant::now());
        let since = if urgent.waiting > 0 { now } else { urgent.moved? };
        let until = since + SILENCE;
        (urgent.under_way > 0 && until > now).then_some(until)
    }
}

/// One fetch.
#[derive(Debug)]
pub(super) struct UnderWay {
    precedence: Precedence,
    urgency: Urgency,
}

impl UnderWay {
    /// Waits until it may begin another range.
    pub(super) async fn turn(&self) {
        if self.urgency == Urgency::Urgent {
            return;
        }
        loop {
            let fewer = self.precedence.0.fewer.notified();
            let Some(until) = self.precedence.held_until() else { return };
            tokio::select! {
                () = fewer => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    /// Waits for something that others hold, and that comes without anybody's turn: that isn't the silence of a server.
    pub(super) async fn waiting<T>(&self, wait: impl Future<Output = T>) -> T {
        let _waiting = (self.urgency == Urgency::Urgent).then(|| Waiting::new(&self.precedence));
        wait.await
    }

    /// Bytes came for it.
    pub(super) fn moved(&self) {
        if self.urgency == Urgency::Urgent {
            self.precedence.urgent().moved = Some(Instant::now());
        }
    }
}

struct Waiting<'a>(&'a Precedence);

impl<'a> Waiting<'a> {
    fn new(precedence: &'a Precedence) -> Self {
        precedence.urgent().waiting += 1;
        Self(precedence)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut urgent = self.0.urgent();
        urgent.waiting -= 1;
        urgent.moved = Some(Instant::now());
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if self.urgency == Urgency::Urgent {
            self.precedence.urgent().under_way -= 1;
            self.precedence.0.fewer.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_others_wait_while_something_urgent_comes_and_go_on_when_it_ends() {
        let precedence = Precedence::default();
        let other = precedence.begin(Urgency::Ordinary);
        assert!(other.turn().now_or_never().is_some());
        let (first, second) = (precedence.begin(Urgency::Urgent), precedence.begin(Urgency::Urgent));
        assert!(first.turn().now_or_never().is_some(), "they don't wait for each other");
        for _ in 0..60 {
            tokio::time::advance(Duration::from_secs(1)).await;
            first.moved();
            assert!(other.turn().now_or_never().is_none());
        }
        let turn = other.turn();
        tokio::pin!(turn);
        drop(first);
        assert!(futures::poll!(&mut turn).is_pending());
        drop(second);
        assert!(turn.now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_gets_nothing_holds_nobody_up() {
        let precedence = Precedence::default();
        let other = precedence.begin(Urgency::Ordinary);
        let urgent = precedence.begin(Urgency::Urgent);
        let begun = Instant::now();
        other.turn().await;
        assert_eq!(begun.elapsed().as_secs(), SILENCE.as_secs());
        urgent.moved();
        assert!(other.turn().now_or_never().is_none(), "it's there again");

        let waits = urgent.waiting(std::future::pending::<()>());
        tokio::pin!(waits);
        assert!(futures::poll!(&mut waits).is_pending());
        let turn = tokio::time::timeout(Duration::from_secs(60), other.turn());
        assert!(turn.await.is_err(), "who waits for the others isn't silent");
    }
}
