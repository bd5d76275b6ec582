use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use rustix::fs::Stat;

use super::error::OpError;
use super::incoming::Incoming;
use super::layout;
use super::ops::{self, Dir};
use super::parts_of;
use super::sums::Sums;
use crate::types::{Digest, GitHasher, Hasher, Published};

/// Whether `stat` is how a blob of `size` bytes looks. Its digest was right before it got its name, and nobody
/// but root can have changed it since.
pub(super) fn looks_right(stat: &Stat, size: u64) -> bool {
    let same_size = u64::try_from(stat.st_size) == Ok(size);
    same_size && is_our_file(stat) && ops::mode_of(stat) == layout::BLOB
}

/// Whether its bytes were found to be wrong.
pub(super) fn is_suspect(stat: &Stat) -> bool {
    is_our_file(stat) && ops::mode_of(stat) == layout::SUSPECT
}

/// Remembers that a blob's bytes are wrong. Its names stay, and what they show is no longer warm.
pub(super) fn suspect(root: &Dir, digest: Digest) -> Result<(), OpError> {
    let (fan, name) = layout::blob(digest);
    let Some(dir) = root.find(fan)? else { return Ok(()) };
    let Some(file) = dir.open_file(&name)? else { return Ok(()) };
    let path = &dir.path().join(&name);
    let failed = |doing| move |cause| OpError::new(doing, path, cause);
    ops::set_mode(&file, layout::SUSPECT).map_err(failed("set the mode of"))?;
    ops::sync(&file).map_err(failed("fsync"))
}

fn is_our_file(stat: &Stat) -> bool {
    ops::is_file(stat) && ops::is_ours(stat)
}

/// Whether the cache has this blob of this size. One that isn't as it should be is read again: it stays, mended, if
/// its digest is still right, and loses its name if it isn't.
pub(super) fn settle(root: &Dir, digest: Digest, size: u64) -> Result<bool, OpError> {
    let (fan, name) = layout::blob(digest);
    let Some(dir) = root.find(fan)? else { return Ok(false) };
    let Some(stat) = dir.stat(&name)? else { return Ok(false) };
    if looks_right(&stat, size) {
        return Ok(true);
    }
    if is_our_file(&stat) && mend(&dir, &name, digest)? {
        // With the right digest and another length than was asked for, it's the asker who is wrong.
        return Ok(dir.stat(&name)?.is_some_and(|stat| looks_right(&stat, size)));
    }
    tracing::warn!(%digest, "a blob isn't what its name says, and is thrown away");
    dir.remove_tree(&name)?;
    Ok(false)
}

/// Gives a blob its mode again, if its bytes are still right.
fn mend(dir: &Dir, name: &str, digest: Digest) -> Result<bool, OpError> {
    let Some(file) = dir.open_file(name)? else { return Ok(false) };
    let failed = |doing| move |cause| OpError::new(doing, &dir.path().join(name), cause);
    // The mode first: whoever opens it for writing after this must be root.
    ops::set_mode(&file, layout::BLOB).map_err(failed("set the mode of"))?;
    if hash(&file).map_err(failed("read"))? != digest {
        return Ok(false);
    }
    ops::sync(&file).map_err(failed("fsync"))?;
    Ok(true)
}

/// Gives a file whose digest has been compared its place among the blobs: durable first, named after.
pub(super) fn adopt(root: &Dir, incoming: &mut Incoming, digest: Digest, size: u64) -> Result<(), OpError> {
    incoming.seal(layout::BLOB)?;
    let dir = name(root, incoming.dir(), incoming.name(), digest, size)?;
    dir.sync()?;
    root.open(layout::BLOBS)?.sync()
}

/// Gives a durable file with a blob's mode its place among the blobs, beside the name that it has in `from`. Says which
/// directory isn't durable yet; nor is that one's own name.
pub(super) fn name(root: &Dir, from: &Dir, staged: &str, digest: Digest, size: u64) -> Result<Dir, OpError> {
    let (fan, name) = layout::blob(digest);
    let dir = root.make(fan, layout::PUBLIC_DIR)?;
    // A link and not a rename: it never replaces what is there.
    if !dir.link_from(from, staged, OsStr::new(&name))?
        && !settle(root, digest, size)?
        && !dir.link_from(from, staged, OsStr::new(&name))?
    {
        return Err(OpError::new("link", &dir.path().join(&name), rustix::io::Errno::EXIST));
    }
    Ok(dir)
}

/// The digest of all of an open file.
pub(super) fn hash(file: &File) -> io::Result<Digest> {
    let mut hasher = Hasher::new();
    read_all(file, |bytes| hasher.update(bytes))?;
    Ok(hasher.finish())
}

/// What bytes should be and are, where that isn't the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mismatch {
    pub(super) expected: String,
    pub(super) found: String,
}

impl Mismatch {
    pub(super) fn of<T: PartialEq + ToString>(expected: &T, found: &T) -> Option<Self> {
        (expected != found).then(|| Self { expected: expected.to_string(), found: found.to_string() })
    }
}

/// Where an open file, which should be `size` bytes long, isn't what is published of it.
pub(super) fn mismatch(file: &File, published: &Published, size: u64) -> io::Result<Option<Mismatch>> {
    match published {
        Published::Sha256(expected) => Ok(Mismatch::of(expected, &hash(file)?)),
        Published::Git(expected) => {
            let mut hasher = GitHasher::new(size);
            read_all(file, |bytes| hasher.update(bytes))?;
            Ok(Mismatch::of(&Published::Git(*expected), &Published::Git(hasher.finish())))
        }
        Published::Parts(parts) => parts_of::mismatch(file, parts, size),
        Published::Crc(expected) => {
            let sums = Sums::new(expected.kind());
            let read = |offset, bytes: &mut [u8]| ops::read_exact_at(file, bytes, offset);
            Ok(Mismatch::of(expected, &sums.whole(size, read)?))
        }
    }
}

fn read_all(file: &File, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let mut offset = 0;
    loop {
        match file.read_at(&mut buffer, offset) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                take(buffer.get(..n).unwrap_or_default());
                offset += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
