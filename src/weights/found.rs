//! Digests that were found of files whose source publishes none, until the whole set has its manifest: without them,
//! a run that's killed would leave content that nobody knows the name of, and fetch all of it again.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Mutex, PoisonError};

use super::error::OpError;
use super::journal::{self, LONGEST};
use super::layout::PartialKey;
use super::ops::{self, Dir};
use crate::types::Digest;

/// The file that they are kept in. A key holds only for one version of one file, so an old one does no harm.
#[derive(Debug)]
pub(super) struct Found {
    dir: Dir,
    name: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    file: Option<File>,
    length: u64,
}

impl Found {
    /// In the file `name` of `dir`, which is made with the first digest.
    pub(super) fn new(dir: Dir, name: String) -> Self {
        Self { dir, name, state: Mutex::default() }
    }

    /// What earlier runs found. What can't be read was never found.
    pub(super) fn read(&self) -> HashMap<PartialKey, Digest> {
        let bytes = self.dir.read_file(&self.name, LONGEST).ok().flatten();
        let bytes = bytes.unwrap_or_default();
        journal::read_found(&bytes).0.into_iter().collect()
    }

    /// Adds one. It survives the end of this process from here on, and a power cut if `durable`.
    pub(super) fn note(&self, key: &PartialKey, digest: Digest, durable: bool) -> Result<(), OpError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |doing| move |cause| OpError::new(doing, &self.dir.path().join(&self.name), cause);
        let is_new = state.file.is_none();
        if is_new {
            // What isn't whole at its end is written over.
            let before = self.dir.read_file(&self.name, LONGEST).ok().flatten().unwrap_or_default();
            state.length = journal::read_found(&before).1;
            if state.length == 0 {
                self.dir.remove_tree(&self.name)?;
            }
            state.file = Some(self.dir.open_or_create(&self.name, 0o600)?);
        }
        let length = state.length;
        let Some(file) = &state.file else { return Ok(()) };
        let bytes = journal::encode_found(length == 0, key, digest);
        ops::write_all_at(file, &bytes, length).map_err(failed("write"))?;
        if durable {
            ops::sync_data(file).map_err(failed("fdatasync"))?;
            self.dir.sync()?;
        }
        state.length += bytes.len() as u64;
        Ok(())
    }

    /// Takes the file away: the manifest has it all now, or nobody wants it any more.
    pub(super) fn forget(&self) -> Result<(), OpError> {
        self.dir.unlink(&self.name).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> PartialKey {
        PartialKey::of_digest(Digest::of(&[n]))
    }

    #[test]
    fn what_was_noted_is_read_by_the_next_run_up_to_a_torn_end() {
        let home = tempfile::tempdir().unwrap();
        let found = || Found::new(Dir::open_root(home.path()).unwrap(), "found".to_owned());
        assert!(found().read().is_empty());
        let first = found();
        first.note(&key(1), Digest::of(b"1"), false).unwrap();
        first.note(&key(2), Digest::of(b"2"), true).unwrap();
        let path = home.path().join("found");
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(found().read(), [(key(1), Digest::of(b"1")), (key(2), Digest::of(b"2"))].into());
        for (cut, left) in [(whole.len() - 1, 1), (20, 0), (0, 0)] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let next = found();
            next.note(&key(3), Digest::of(b"3"), false).unwrap();
            next.note(&key(4), Digest::of(b"4"), false).unwrap();
            let read = found().read();
            assert_eq!((read.len(), read.get(&key(4))), (left + 2, Some(&Digest::of(b"4"))), "cut at {cut}");
        }
        found().forget().unwrap();
        assert!(found().read().is_empty() && !path.exists());
    }
}
