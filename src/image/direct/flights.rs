use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::types::Digest;

/// What is being made just now, by which pull: a layer that two images share is fetched once, and an image that is on
/// the list twice is pulled once.
///
/// Chains and blobs have one of these each: a layer that isn't packed has the same digest as both.
///
/// Nobody waits in a circle: who holds a chain never waits for a longer one before committing it, so the lowest chain
/// that is waited for is always under way.
#[derive(Debug, Clone, Default)]
pub(super) struct Flights(Arc<Mutex<HashMap<Digest, watch::Receiver<()>>>>);

/// The answer to who makes something.
#[derive(Debug)]
pub(super) enum Claim {
    /// The asker, for as long as it holds this.
    Mine(Flight),
    /// Another pull.
    Theirs(Landing),
}

/// The right to make something. Dropping it tells those who wait, whatever came of it.
#[derive(Debug)]
pub(super) struct Flight {
    flights: Flights,
    what: Digest,
    _ends: watch::Sender<()>,
}

/// The end of another's flight.
#[derive(Debug)]
pub(super) struct Landing(watch::Receiver<()>);

impl Flights {
    /// Who makes `what`: the first that asks.
    pub(super) fn claim(&self, what: Digest) -> Claim {
        let mut flights = self.lock();
        if let Some(theirs) = flights.get(&what) {
            return Claim::Theirs(Landing(theirs.clone()));
        }
        let (ends, end) = watch::channel(());
        flights.insert(what, end);
        Claim::Mine(Flight { flights: self.clone(), what, _ends: ends })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, watch::Receiver<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        // Before the sender goes: who hears of the end must be able to claim it.
        self.flights.lock().remove(&self.what);
    }
}

impl Landing {
    /// Returns when the other is done with it, well or badly.
    pub(super) async fn wait(mut self) {
        // Nothing is ever sent: the error is the end.
        let _ = self.0.changed().await;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn the_first_makes_it_and_the_others_wait_until_it_is_done_or_has_failed() {
        let flights = Flights::default();
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let Claim::Mine(first) = flights.claim(a) else { panic!("nobody has it") };
        assert!(matches!(flights.claim(b), Claim::Mine(_)));
        let Claim::Theirs(landing) = flights.claim(a) else { panic!("it's taken") };
        let mut waiting = Box::pin(landing.wait());
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(first);
        waiting.await;
        assert!(matches!(flights.claim(a), Claim::Mine(_)));
        assert!(matches!(flights.claim(b), Claim::Mine(_)), "what nobody holds is free");
    }
}
