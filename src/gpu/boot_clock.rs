//! What two processes of one node agree on: which boot this is, and times in it.

use std::io;
use std::time::Duration;

/// The kernel's, the same in every container.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The id of this boot.
pub(super) fn boot_id() -> io::Result<String> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("cannot read {BOOT_ID}: {error}"));
    std::fs::read_to_string(BOOT_ID).map(|id| id.trim().to_owned()).map_err(named)
}

/// In whole milliseconds, as files hold it.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
