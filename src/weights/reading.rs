use super::cache::Cache;
use super::error::OpError;
use super::layout;
use super::ops;
use super::syscalls::IdleIo;
use crate::fetch::ALIGNMENT;
use crate::types::{Digest, Hasher};

/// How much is read at a time.
const PIECE: usize = 1 << 20;

/// One blob that is being read again, a piece at a time. Between two pieces the file isn't open, so that it looks used
/// to nobody.
#[derive(Debug)]
pub(super) struct Reading {
    digest: Digest,
    hasher: Hasher,
    offset: u64,
    /// Which file it is; another one by its name is another blob.
    inode: Option<u64>,
    /// Longer than a piece, so that an aligned one lies in it.
    storage: Vec<u8>,
}

/// What a piece brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    /// So many bytes; there may be more.
    Some(u64),
    /// The end, and this is the digest of all of it.
    All(Digest),
    /// It's gone, another file by now, or found wrong already.
    Gone,
}

impl Reading {
    pub(super) fn begin(digest: Digest) -> Self {
        let storage = vec![0; PIECE + ALIGNMENT];
        Self { digest, hasher: Hasher::new(), offset: 0, inode: None, storage }
    }

    /// Reads the next piece.
    pub(super) fn go_on(&mut self, cache: &Cache) -> Result<Read, OpError> {
        let _nobody_takes_it_away = cache.reading();
        let _idle = IdleIo::begin();
        let (fan, name) = layout::blob(self.digest);
        let Some(dir) = cache.root.find(fan)? else { return Ok(Read::Gone) };
        let path = dir.path().join(&name);
        let failed = |doing, cause| OpError::new(doing, &path, cause);
        let direct = dir.open_direct_to_read(&name);
        let Some(file) = direct.map_or_else(|| dir.open_file(&name), |file| Ok(Some(file)))? else {
            return Ok(Read::Gone);
        };
        let stat = ops::stat_of(&file).map_err(|cause| failed("stat", cause))?;
        let is_same = *self.inode.get_or_insert(stat.st_ino) == stat.st_ino;
        if !is_same || !ops::is_file(&stat) || ops::mode_of(&stat) != layout::BLOB {
            return Ok(Read::Gone);
        }
        let (skip, offset) = (self.storage.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT), self.offset);
        let piece = self.storage.get_mut(skip..skip + PIECE).unwrap_or_default();
        let read = match ops::read_some_at(&file, piece, offset) {
            // It had said that it reads past the page cache, and doesn't at this offset.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => {
                let Some(file) = dir.open_file(&name)? else { return Ok(Read::Gone) };
                ops::read_some_at(&file, piece, offset)
            }
            read => read,
        };
        let read = read.map_err(|cause| failed("read", cause))?;
        if read == 0 {
            return Ok(Read::All(std::mem::take(&mut self.hasher).finish()));
        }
        self.hasher.update(piece.get(..read).unwrap_or_default());
        self.offset += read as u64;
        Ok(Read::Some(read as u64))
    }
}
