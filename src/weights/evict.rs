//! How bytes leave that nobody needs: one blob at a time, and never one that somebody has.
//!
//! A blob goes by a rename into staging and then for good, with the write lease on it held all the while: at whatever
//! moment the process is killed, the blob is there whole or is swept at the next start.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::cache::Cache;
use super::error::{CacheError, OpError};
use super::in_use;
use super::layout;
use super::manifest::Manifest;
use super::names;
use super::stock::{self, Spare, Want};
use crate::types::Digest;

/// What came of a search for room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Freed {
    /// Blobs that are gone.
    pub blobs: usize,
    /// Bytes that came back.
    pub bytes: u64,
    /// Bytes that nobody needs, and that stay because some process has them open or mapped.
    pub in_use: u64,
    /// Bytes that nobody needs, and that go when their time of grace is over.
    pub young: u64,
    /// Bytes that could go, and did not: together they would not have been enough.
    pub left: u64,
}

/// What became of one blob.
enum Left {
    Gone,
    InUse,
    /// Somebody counts on it after all, or somebody else took it away.
    Needed,
}

impl Cache {
    /// Gives up what no entry shows, the longest unneeded first, until `short` bytes have come back. If all of it isn't
    /// enough, nothing goes.
    ///
    /// # Errors
    /// When the file system fails.
    pub(super) fn make_room(&self, short: u64) -> Result<Freed, CacheError> {
        self.give_up(Want::Enough(short), self.capacity.grace)
    }

    /// Gives up unneeded bytes, the longest unneeded first, until `wanted` have come back, or as many as there are.
    ///
    /// # Errors
    /// When the file system fails.
    pub fn shrink(&self, wanted: u64) -> Result<Freed, CacheError> {
        self.give_up(Want::UpTo(wanted), self.capacity.grace)
    }

    /// Gives up all that no entry shows, also what was needed just now.
    ///
    /// # Errors
    /// When the file system fails.
    pub fn collect(&self) -> Result<Freed, CacheError> {
        self.give_up(Want::UpTo(u64::MAX), Duration::ZERO)
    }

    fn give_up(&self, want: Want, grace: Duration) -> Result<Freed, CacheError> {
        let _alone = self.evicting();
        let mut freed = Freed::default();
        let (mut kept, mut gone) = (BTreeSet::new(), BTreeSet::new());
        loop {
            let mut spare = stock::take_stock(&self.root)?.spare;
            spare.retain(|spare| !kept.contains(&spare.digest));
            let still = match want {
                Want::Enough(bytes) => Want::Enough(bytes.saturating_sub(freed.bytes)),
                Want::UpTo(bytes) => Want::UpTo(bytes.saturating_sub(freed.bytes)),
            };
            let choice = stock::choose(&spare, still, Timestamp::now(), grace);
            (freed.young, freed.left) = (choice.young, choice.may_go);
            // All of them in turn, and then another look: what was in use must be made up for by others.
            let before = freed.blobs + kept.len();
            for spare in choice.go {
                match self.take_away(&spare)? {
                    Left::Gone => {
                        freed.blobs += 1;
                        freed.bytes = freed.bytes.saturating_add(spare.bytes);
                        freed.left = freed.left.saturating_sub(spare.bytes);
                        gone.insert(spare.digest);
                    }
                    Left::InUse => {
                        freed.in_use = freed.in_use.saturating_add(spare.bytes);
                        kept.insert(spare.digest);
                    }
                    Left::Needed => drop(kept.insert(spare.digest)),
                }
            }
            if freed.blobs + kept.len() == before {
                break;
            }
        }
        if freed.blobs > 0 {
            self.forget_manifests(&gone)?;
            tracing::info!(blobs = freed.blobs, bytes = freed.bytes, "gave up weights that no entry needs");
        }
        Ok(freed)
    }

    fn take_away(&self, spare: &Spare) -> Result<Left, OpError> {
        let (fan, name) = layout::blob(spare.digest);
        let Some(dir) = self.root.find(fan)? else { return Ok(Left::Needed) };
        // The scrub has a blob open only while it holds this.
        let _reading = self.reading();
        let Some(file) = dir.open_file(&name)? else { return Ok(Left::Needed) };
        let leased =
            in_use::lease(&file).map_err(|e| OpError::new("take a lease on", &dir.path().join(&name), e))?;
        if !leased {
            return Ok(Left::InUse);
        }
        let staged = self.staged_name();
        let taken = self.holds.unless_held(spare.digest, || {
            // A name that it was given since it was counted is an entry's.
            match dir.stat(&name)? {
                Some(stat) if stat.st_nlink == 1 => {
                    self.staging.rename_from(&dir, &name, &staged).map(|()| true)
                }
                _ => Ok(false),
            }
        });
        match taken.transpose()? {
            Some(true) => {}
            Some(false) | None => return Ok(Left::Needed),
        }
        self.staging.unlink(&staged)?;
        drop(file);
        Ok(Left::Gone)
    }

    /// Takes away the manifests of revisions that no entry shows and that have lost one of these blobs.
    pub(super) fn forget_manifests(&self, gone: &BTreeSet<Digest>) -> Result<(), CacheError> {
        let _changing = self.change_names();
        let shown = names::trees(&self.root)?;
        let revisions = self.root.open(layout::REVISIONS)?;
        for revision in Manifest::revisions(&self.root)? {
            if shown.contains(&revision.short()) {
                continue;
            }
            let Some(manifest) = Manifest::read(&self.root, revision)? else { continue };
            if manifest.files.values().any(|content| gone.contains(&content.sha256)) {
                revisions.unlink(layout::manifest(revision))?;
            }
        }
        Ok(revisions.sync()?)
    }
}
