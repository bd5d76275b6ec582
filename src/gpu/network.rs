//! Leaves the network, for a privileged process that has no business in it.
#![allow(
    unsafe_code,
    reason = "rustix marks unshare as unsafe for the sake of one flag that isn't used here"
)]

use std::io;

/// The process isn't allowed to.
#[derive(Debug, thiserror::Error)]
#[error("cannot leave the network namespace; the probe container must be privileged (or have CAP_SYS_ADMIN)")]
pub struct NetworkError(#[source] io::Error);

/// Moves the calling thread, and all threads and processes that it starts from then on, into a network namespace of
/// its own, with no interface that is up. To be called while the process has one thread only.
///
/// # Errors
/// When the process may not.
pub fn leave_network() -> Result<(), NetworkError> {
    // SAFETY: what rustix warns of is UnshareFlags::FILES, which gives a thread a table of descriptors of its own.
    let left = unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) };
    left.map_err(|error| NetworkError(error.into()))
}
