//! What earlier runs left in `v1/partial`: whose it is, and how long it stays.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::Stat;

use super::error::OpError;
use super::journal::{Journal, Origin};
use super::layout::{self, PartialKey};
use super::ops::{self, Dir};
use crate::types::EntryId;

/// What nobody has gone on with for so long is thrown away: whoever wanted it no longer does, or will begin again.
const KEPT_FOR: Duration = Duration::from_secs(14 * 24 * 3600);

/// Enough for the first record of a journal.
const ORIGIN_AT_MOST: u64 = 64 << 10;

/// Takes away what nobody can go on with: without a journal, of another length, content already, or left for too long.
/// Only looks at names, lengths and first records; whether bytes are right is found out when they are wanted.
pub(super) fn sweep(partials: &Dir, now: SystemTime) -> Result<(), OpError> {
    for name in partials.list()? {
        match may_go_on(partials, &name, now) {
            Ok(true) => {}
            Ok(false) => partials.remove_tree(&name)?,
            Err(error) => {
                tracing::warn!(
                    error = crate::rt::chain(&error),
                    "a partial file can't be read, and is thrown away"
                );
                partials.remove_tree(&name)?;
            }
        }
    }
    Ok(())
}

fn may_go_on(partials: &Dir, name: &OsStr, now: SystemTime) -> Result<bool, OpError> {
    if finder(name).is_some() {
        let stat = partials.stat(name)?;
        return Ok(stat.is_some_and(|stat| ops::is_file(&stat) && is_recent(&stat, now)));
    }
    let Some(key) = name.to_str().and_then(PartialKey::read) else { return Ok(false) };
    let Some(origin) = origin(partials, &key)? else { return Ok(false) };
    let dir = partials.open(key.as_str())?;
    let (Some(data), Some(journal)) = (dir.stat(layout::DATA)?, dir.stat(layout::JOURNAL)?) else {
        return Ok(false);
    };
    let alone = ops::is_file(&data) && ops::is_ours(&data) && data.st_nlink == 1;
    Ok(alone && u64::try_from(data.st_size) == Ok(origin.size) && is_recent(&journal, now))
}

fn is_recent(stat: &Stat, now: SystemTime) -> bool {
    let changed = UNIX_EPOCH + Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or(0));
    // A time that is yet to come is as good as now.
    now.duration_since(changed).unwrap_or_default() < KEPT_FOR
}

/// The entry whose found digests are called `name`.
fn finder(name: &OsStr) -> Option<EntryId> {
    name.to_str()?.strip_suffix(layout::FOUND)?.parse().ok()
}

/// The entries that anything is left of.
pub(super) fn owners(partials: &Dir) -> Result<BTreeSet<EntryId>, OpError> {
    let mut owners: BTreeSet<EntryId> = partials.list()?.iter().filter_map(|name| finder(name)).collect();
    owners.extend(origins(partials)?.into_iter().filter_map(|origin| origin.owner));
    Ok(owners)
}

/// What the journal of `key` is of; `None` where it has none that can be read.
fn origin(partials: &Dir, key: &PartialKey) -> Result<Option<Origin>, OpError> {
    let Some(dir) = partials.find(key.as_str())? else { return Ok(None) };
    let Some(start) = dir.read_start(layout::JOURNAL, ORIGIN_AT_MOST)? else { return Ok(None) };
    Ok(Journal::read_origin(&start).filter(|origin| origin.key == *key))
}

/// Everything that is left, what was left longest first.
pub(super) fn origins(partials: &Dir) -> Result<Vec<Origin>, OpError> {
    let mut origins = Vec::new();
    for name in partials.list()? {
        let Some(key) = name.to_str().and_then(PartialKey::read) else { continue };
        // It may go while this looks.
        if let Some(origin) = origin(partials, &key)?
            && let Some(dir) = partials.find(key.as_str())?
            && let Some(journal) = dir.stat(layout::JOURNAL)?
        {
            origins.push(((journal.st_mtime, journal.st_mtime_nsec), origin));
        }
    }
    origins.sort_by_key(|(marked, _)| *marked);
    Ok(origins.into_iter().map(|(_, origin)| origin).collect())
}

/// Bytes that the file system counts as used for `key` already.
pub(super) fn allocated(partials: &Dir, key: &PartialKey) -> Result<u64, OpError> {
    let Some(dir) = partials.find(key.as_str())? else { return Ok(0) };
    Ok(dir.stat(layout::DATA)?.map_or(0, |stat| ops::allocated(&stat)))
}
