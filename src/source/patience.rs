use std::future::Future;
use std::time::Duration;

use super::SourceError;
use crate::rt::{Attempts, RetryPolicy, chain};

/// A server that asks for more patience than this gets it from the agent, which has other work meanwhile.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Makes one small request (a listing, a probe), again while it fails in a way that time mends.
pub(super) async fn patiently<T, F>(mut ask: impl FnMut() -> F) -> Result<T, SourceError>
where
    F: Future<Output = Result<T, SourceError>>,
{
    let mut attempts = Attempts::new(RetryPolicy::REQUEST);
    loop {
        let error = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        match attempts.failed_with(error.kind(), fastrand::f64()) {
            Some(delay) if delay <= LONGEST_WAIT => {
                tracing::debug!(error = chain(&error), ?delay, "asking again");
                tokio::time::sleep(delay).await;
            }
            _ => return Err(error),
        }
    }
}
