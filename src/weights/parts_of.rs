use std::fs::File;
use std::io;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::blob::Mismatch;
use super::ops;
use crate::types::{ByteRange, Digest, Hasher, PartDigests};

/// Threads that read one file: one hashes about as fast as a disk of today reads a quarter of what it can.
const MOST_THREADS: usize = 4;

const READ_AT_ONCE: usize = 1 << 20;

/// Where a file's parts, which should make `size` bytes, aren't what is published of them: the first that isn't. They
/// are read again, several at once: a part can begin anywhere, and its bytes come in any order.
pub(super) fn mismatch(file: &File, parts: &PartDigests, size: u64) -> io::Result<Option<Mismatch>> {
    if parts.size() != size {
        return Ok(Mismatch::of(&format!("{} bytes", parts.size()), &format!("{size} bytes")));
    }
    let all = parts.parts();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let next = AtomicUsize::new(0);
    let wrong: Mutex<Option<(usize, Digest)>> = Mutex::new(None);
    let first_wrong = || *wrong.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || -> io::Result<()> {
        let mut buffer = vec![0; READ_AT_ONCE];
        loop {
            let number = next.fetch_add(1, Relaxed);
            let Some((range, expected)) = all.get(number).filter(|_| first_wrong().is_none()) else {
                return Ok(());
            };
            let found = hash(file, *range, &mut buffer)?;
            if found != *expected {
                let mut wrong = wrong.lock().unwrap_or_else(PoisonError::into_inner);
                *wrong = (*wrong).into_iter().chain([(number, found)]).min_by_key(|(number, _)| *number);
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> =
            (1..cores.min(MOST_THREADS).min(all.len())).map(|_| scope.spawn(work)).collect();
        let own = work();
        let died = || io::Error::other("a thread that hashes a part died");
        workers.into_iter().try_fold(own?, |(), worker| worker.join().map_err(|_| died())?)
    })?;
    Ok(first_wrong().and_then(|(number, found)| {
        let part = |digest| format!("part {} of {}: {digest}", number + 1, all.len());
        let (_, expected) = all.get(number)?;
        Some(Mismatch { expected: part(*expected), found: part(found) })
    }))
}

fn hash(file: &File, range: ByteRange, buffer: &mut [u8]) -> io::Result<Digest> {
    let mut hasher = Hasher::new();
    let mut offset = range.start();
    while offset < range.end() {
        let left = usize::try_from(range.end() - offset).unwrap_or(usize::MAX).min(buffer.len());
        let part = buffer.get_mut(..left).unwrap_or_default();
        ops::read_exact_at(file, part, offset)?;
        hasher.update(part);
        offset += left as u64;
    }
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_part_that_is_wrong_is_named() {
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
        let part = |bytes: &[u8]| (bytes.len() as u64, Digest::of(bytes));
        let parts = PartDigests::new(bytes.chunks(700_000).map(part)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let look = |bytes: &[u8], size: u64| {
            std::fs::write(&path, bytes).unwrap();
            mismatch(&File::open(&path).unwrap(), &parts, size).unwrap()
        };
        assert_eq!(look(&bytes, 3_000_000), None);
        let mut flipped = bytes.clone();
        flipped[700_000] ^= 1;
        let wrong = look(&flipped, 3_000_000).unwrap();
        assert!(wrong.expected.starts_with("part 2 of 5: sha256:"), "{wrong:?}");
        assert!(wrong.expected.ends_with(&Digest::of(&bytes[700_000..1_400_000]).hex()), "{wrong:?}");
        assert_eq!(look(&bytes, 2_999_999).unwrap().found, "2999999 bytes");
        std::fs::write(&path, &bytes[..2_000_000]).unwrap();
        assert!(mismatch(&File::open(&path).unwrap(), &parts, 3_000_000).is_err(), "cut short");
    }
}
