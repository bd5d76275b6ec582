use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// The heartbeat of a loop that must never stand still. The loop beats it at each turn (and has a turn at least
/// every few seconds); the liveness probe reads how long ago that was. Clones are the same heart.
#[derive(Debug, Clone)]
pub struct Liveness(Arc<watch::Sender<Instant>>);

impl Liveness {
    /// A loop that goes longer than this without a turn is stuck, and only a restart helps.
    pub const STUCK: Duration = Duration::from_secs(60);

    /// A heart that has beaten just now.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Instant::now())))
    }

    /// The loop has made a turn.
    pub fn beat(&self) {
        self.0.send_replace(Instant::now());
    }

    /// How long ago the last turn was.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.0.borrow().elapsed()
    }

    /// Whether the loop stands still.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.age() > Self::STUCK
    }
}

impl Default for Liveness {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_means_stuck_and_a_beat_mends_it() {
        let heart = Liveness::new();
        tokio::time::advance(Liveness::STUCK).await;
        assert!(!heart.is_stuck());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(heart.is_stuck());
        heart.clone().beat();
        assert!(!heart.is_stuck());
    }
}
