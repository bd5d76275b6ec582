//! What two processes of one node agree on: which boot this is, and how long it has lasted.

use std::io;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The kernel's, the same in every container.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The id of this boot.
pub(super) fn boot_id() -> io::Result<String> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("cannot read {BOOT_ID}: {error}"));
    std::fs::read_to_string(BOOT_ID).map(|id| id.trim().to_owned()).map_err(named)
}

/// How long the node has been up. No clock that somebody sets, and the same in every container.
pub(super) fn uptime() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default())
}

/// In whole milliseconds, as files hold it.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
