//! Waiting on a condition, with a deadline.

use std::time::Duration;

use tokio::time::Instant;

/// How long a part may take to start. Generous: the machine may be building something else.
pub(crate) const START: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(10);

/// Asks `condition` until it gives something, and gives that.
///
/// # Panics
/// When `deadline` passes first; the message says `what` was waited for.
pub(crate) async fn until<T>(
    what: &str,
    deadline: Duration,
    mut condition: impl AsyncFnMut() -> Option<T>,
) -> T {
    match within(deadline, &mut condition).await {
        Some(value) => value,
        None => panic!("waited {deadline:?} for {what}: it didn't come"),
    }
}

/// The same, but gives `None` when `deadline` passes.
pub(crate) async fn within<T>(deadline: Duration, condition: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    within_asking(POLL, deadline, condition).await
}

/// The same for a condition that costs something to ask, and so isn't asked more often than `each`.
pub(crate) async fn within_asking<T>(
    each: Duration,
    deadline: Duration,
    mut condition: impl AsyncFnMut() -> Option<T>,
) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = condition().await {
            return Some(value);
        }
        if Instant::now() >= end {
            return None;
        }
        tokio::time::sleep(each).await;
    }
}
