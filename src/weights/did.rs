//! What the seam to the file system tells a recorder in tests. In any other build nobody listens, and nothing of it
//! is left.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;

/// One operation that has succeeded; of those that make something durable, one that is about to be asked for.
#[derive(Debug)]
#[cfg_attr(not(test), expect(dead_code, reason = "only tests look"))]
pub(super) enum Did<'a> {
    /// `name` now stands in `dir`: a new file, directory or symbolic link, or one more name of a file.
    Named { dir: BorrowedFd<'a>, name: &'a OsStr },
    /// `name` is gone from `dir`.
    Unnamed { dir: BorrowedFd<'a>, name: &'a OsStr },
    /// `name` of `from` now stands in `dir` as `to`.
    Moved { from: BorrowedFd<'a>, name: &'a OsStr, dir: BorrowedFd<'a>, to: &'a OsStr },
    /// They have each other's place.
    Exchanged { from: BorrowedFd<'a>, name: &'a OsStr, dir: BorrowedFd<'a>, to: &'a OsStr },
    /// These bytes were written.
    Written { file: BorrowedFd<'a>, bytes: &'a [u8], offset: u64 },
    /// A file is at least so long.
    Allocated { file: BorrowedFd<'a>, size: u64 },
    /// A file is so long.
    Truncated { file: BorrowedFd<'a>, size: u64 },
    /// A file or directory has another mode.
    Mode { of: BorrowedFd<'a>, mode: u32 },
    /// All of a file, or the names in a directory, will be durable.
    Sync { of: BorrowedFd<'a> },
    /// A file's bytes and length will be.
    SyncData { of: BorrowedFd<'a> },
    /// Everything on the file system will be.
    SyncAll { of: BorrowedFd<'a> },
}

#[cfg(not(test))]
pub(super) fn did(_: Did<'_>) {}

#[cfg(test)]
pub(super) use super::tests::trace::did;
