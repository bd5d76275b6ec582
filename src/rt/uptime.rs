use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// How long the node has been up, sleep included. No clock that somebody sets, and the same in every process and
/// container of the node.
#[must_use]
pub fn uptime() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}
