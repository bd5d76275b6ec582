//! The agent's task when a container beside it probes: reads that one's file, and asks it to hold when it must.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::boot_clock::{boot_id, millis};
use super::gate::{Gate, ProbeResult};
use super::hold::Hold;
use super::hold_file::HoldFile;
use super::listener::Listener;
use super::notice::{Notice, Unusable, hold_path};
use crate::rt::uptime;
use crate::types::GpuState;

/// How the file is followed.
pub(super) struct Follow {
    /// The probe container's file.
    pub(super) path: PathBuf,
    /// How often it's read.
    pub(super) poll: Duration,
    /// See [`Listener::new`].
    pub(super) every: Duration,
}

/// Follows the file for ever. A hold file that this agent finds is left to grow old until somebody says that nothing
/// is to be held; its own stays behind when the agent ends in the midst of a hold, for the one that comes next.
pub(super) async fn follow(
    follow: Follow,
    mut gate: Gate,
    mut holds: watch::Receiver<Hold>,
    mut tell: impl FnMut(GpuState),
) {
    let mut hold_file = HoldFile::new(hold_path(&follow.path));
    let mut listener = Listener::new(millis(uptime()), follow.every);
    let mut was_held = false;
    let mut told = false;
    loop {
        let hold = *holds.borrow_and_update();
        if let Some(reason) = hold.reason() {
            tell(gate.hold(reason));
            hold_file.keep(hold).await;
        } else {
            if was_held {
                listener.begin_anew(millis(uptime()));
            }
            if hold_file.is_there() || told {
                hold_file.lift().await;
            }
        }
        was_held = hold.reason().is_some();
        tokio::select! {
            biased;
            () = changed(&mut holds) => {
                told = true;
                continue;
            }
            heard = look(&follow.path, &mut listener) => {
                if let Some(result) = heard.filter(|_| !was_held) {
                    tell(gate.apply(result));
                }
            }
        }
        tokio::select! {
            () = changed(&mut holds) => told = true,
            () = sleep(follow.poll) => told = false,
        }
    }
}

async fn look(path: &std::path::Path, listener: &mut Listener) -> Option<ProbeResult> {
    let at = path.to_owned();
    let read = spawn_blocking(move || {
        let boot_id = boot_id().map_err(|cause| Unusable::Unreadable { path: at.clone(), cause })?;
        Ok((Notice::read(&at)?, boot_id))
    });
    // Gone only with the runtime.
    let (notice, boot_id) = match read.await.ok()? {
        Ok((notice, boot_id)) => (Ok(notice), boot_id),
        Err(error) => (Err(error), String::new()),
    };
    listener.hear(notice, &boot_id, millis(uptime()))
}

async fn changed(holds: &mut watch::Receiver<Hold>) {
    if holds.changed().await.is_err() {
        // Nobody is left to hold anything.
        std::future::pending().await
    }
}
