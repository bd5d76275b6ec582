//! Going on with what an earlier run left: only with what a journal vouches for, and the disk still has.

use std::fs::File;
use std::io;

use tokio_util::sync::CancellationToken;

use super::error::WeightsError;
use super::journal::{Checked, Crc, Journal, Origin};
use super::ops;
use super::spot::Spot;
use crate::fetch::Kept;

/// Bytes of a file that is read back that are in memory at once.
const READ_AT_ONCE: usize = 256 << 10;

/// A file of an earlier run.
#[derive(Debug)]
pub(super) struct Resumed {
    pub(super) file: File,
    /// What of it is right.
    pub(super) kept: Kept,
    /// The same, for its journal. The owner is the new one.
    pub(super) journal: Journal,
}

/// What is left at `spot` of the file `origin`; `None` where that's nothing to go on with, for whatever reason.
/// Every range that the journal names is read and held against its checksum: what rotted, or never reached the disk,
/// is fetched again.
///
/// # Errors
/// Only when `stop` is cancelled; the journal and the file are as they were.
pub(super) fn resume(
    spot: &Spot,
    origin: &Origin,
    stop: &CancellationToken,
) -> Result<Option<Resumed>, WeightsError> {
    let Some(bytes) = spot.read_journal() else { return Ok(None) };
    let Some(mut journal) = Journal::read(&bytes).filter(|journal| journal.origin.is_same_file(origin))
    else {
        tracing::info!(path = %spot.path().display(), "what was fetched before is of another file; beginning again");
        return Ok(None);
    };
    let Some(file) = open_if_alone(spot, origin.size) else { return Ok(None) };
    let (named, mut buffer) = (journal.ranges().count(), vec![0; READ_AT_ONCE]);
    journal.keep_only(|checked| !stop.is_cancelled() && is_right(&file, checked, &mut buffer));
    if stop.is_cancelled() {
        return Err(WeightsError::Stopped);
    }
    let ranges: Vec<_> = journal.marked().collect();
    if ranges.len() < named {
        let wrong = named - ranges.len();
        tracing::warn!(wrong, path = %spot.path().display(), "ranges are not as they were written, and are fetched again");
    }
    let (upto, hasher) = journal.hashed();
    journal.origin = origin.clone();
    ops::will_read_at_random(&file);
    let kept = Kept::new(origin.size, ranges, upto, hasher).filter(|kept| kept.bytes() > 0);
    Ok(kept.map(|kept| Resumed { file, kept, journal }))
}

/// The file, for writing, if it's of this size and has no other name: one that has is content already, which nobody
/// may write to.
fn open_if_alone(spot: &Spot, size: u64) -> Option<File> {
    let stat = spot.dir.stat(&spot.data).ok().flatten()?;
    let alone = ops::is_file(&stat) && ops::is_ours(&stat) && stat.st_nlink == 1;
    if !alone || u64::try_from(stat.st_size) != Ok(size) {
        return None;
    }
    let readable = spot.dir.open_file(&spot.data).ok().flatten()?;
    // It may have been sealed already, but not named.
    ops::set_mode(&readable, 0o600).ok()?;
    spot.dir.open_to_write(&spot.data).ok()
}

fn is_right(file: &File, checked: &Checked, buffer: &mut [u8]) -> bool {
    let mut read = || -> io::Result<u64> {
        let mut crc = Crc::default();
        let mut offset = checked.range.start();
        while offset < checked.range.end() {
            let left = usize::try_from(checked.range.end() - offset).unwrap_or(usize::MAX).min(buffer.len());
            let part = buffer.get_mut(..left).unwrap_or_default();
            ops::read_exact_at(file, part, offset)?;
            crc.update(part);
            offset += left as u64;
        }
        Ok(crc.finish())
    };
    // What can't be read, as on a bad sector, is written once more.
    read().is_ok_and(|crc| crc == checked.crc)
}
