use std::fs::File;
use std::io::Read as _;

use super::error::{CacheError, OpError};
use super::layout;
use super::ops::{self, Dir};

/// The right to write to a cache. Held as long as this lives; the kernel takes it back from a killed process.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of the cache whose `v1` this is.
    ///
    /// # Errors
    /// [`CacheError::Locked`] names the holder's pid if the holder wrote it (as its own pid namespace counts).
    pub(super) fn take(root: &Dir, v1: &Dir) -> Result<Self, CacheError> {
        let file = v1.open_or_create(layout::LOCK, 0o644)?;
        let failed = |doing, cause| OpError::new(doing, &v1.path().join(layout::LOCK), cause);
        if !ops::try_lock(&file).map_err(|e| failed("lock", e))? {
            let mut text = String::new();
            let read = (&file).take(32).read_to_string(&mut text);
            let holder = read.ok().and_then(|_| text.trim().parse().ok());
            return Err(CacheError::Locked { root: root.path().to_owned(), holder });
        }
        let pid = format!("{}\n", std::process::id());
        ops::truncate(&file, 0).map_err(|e| failed("truncate", e))?;
        ops::write_all_at(&file, pid.as_bytes(), 0).map_err(|e| failed("write", e))?;
        Ok(Self { _file: file })
    }
}
