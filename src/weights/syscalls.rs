//! Two requests to the kernel that rustix has no name for: a lease on a file, and a thread's place in the queue for the
//! disk. The only unsafe code of this room.
#![allow(
    unsafe_code,
    reason = "fcntl's leases and ioprio_set are plain system calls, which Rust can't check"
)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

/// Of `asm-generic/fcntl.h`; the same on every architecture that we run on.
const F_SETSIG: libc::c_int = 10;

/// Takes the write lease on a file that was opened for reading only: false when anybody else has the file open, mapped
/// or executing, in whatever mount namespace and by whatever of its names (fcntl(2), "Leases"). It ends with the handle.
/// Whoever opens the file meanwhile waits for that.
///
/// # Errors
/// When the file system has no leases, or the file isn't ours.
pub(super) fn take_write_lease(file: &File) -> io::Result<bool> {
    let fd = file.as_raw_fd();
    // Who opens the file has the kernel tell the holder, by a signal that ends a process that doesn't expect it. SIGURG
    // is one that is ignored where nobody asked for it.
    // SAFETY: the descriptor is open for as long as `file` is borrowed; both commands take an integer and no pointer.
    let done = unsafe {
        match libc::fcntl(fd, F_SETSIG, libc::SIGURG) {
            -1 => -1,
            _ => libc::fcntl(fd, libc::F_SETLEASE, libc::F_WRLCK),
        }
    };
    if done != -1 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::WouldBlock { Ok(false) } else { Err(error) }
}

/// What a thread reads and writes while this lives is done when nobody else wants the disk (ioprio_set(2)).
#[derive(Debug)]
pub(super) struct IdleIo {
    before: libc::c_int,
}

const WHO_PROCESS: libc::c_int = 1;
const THIS_THREAD: libc::c_int = 0;
/// `IOPRIO_CLASS_IDLE`, in the bits that the class has.
const IDLE: libc::c_int = 3 << 13;

impl IdleIo {
    /// For the calling thread. Where the kernel won't, it reads as everybody does: the rate is limited all the same.
    pub(super) fn begin() -> Self {
        // SAFETY: both calls take integers only, and change nothing but this thread's class.
        let before = unsafe {
            let before = libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, THIS_THREAD);
            libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, THIS_THREAD, IDLE);
            before
        };
        Self { before: libc::c_int::try_from(before).unwrap_or(0).max(0) }
    }

    #[cfg(test)]
    fn is_idle_now() -> bool {
        // SAFETY: as above.
        let now = unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, THIS_THREAD) };
        now == libc::c_long::from(IDLE)
    }
}

impl Drop for IdleIo {
    fn drop(&mut self) {
        // SAFETY: as in `begin`.
        unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, THIS_THREAD, self.before) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_had_only_while_nobody_else_has_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, "a").unwrap();
        std::fs::hard_link(&path, dir.path().join("b")).unwrap();
        let open = || File::open(&path).unwrap();
        assert!(take_write_lease(&open()).unwrap());
        let other = File::open(dir.path().join("b")).unwrap();
        assert!(!take_write_lease(&open()).unwrap(), "open by another name");
        drop(other);
        assert!(take_write_lease(&open()).unwrap());
    }

    #[test]
    fn who_opens_a_leased_file_waits_and_ends_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, "a").unwrap();
        let held = File::open(&path).unwrap();
        assert!(take_write_lease(&held).unwrap());
        let text = std::thread::scope(|scope| {
            let opener = scope.spawn(|| std::fs::read_to_string(&path).unwrap());
            // It has said that it wants the file: the lease is being broken.
            while !breaks(&held) {
                std::thread::yield_now();
            }
            drop(held);
            opener.join().unwrap()
        });
        assert_eq!(text, "a");
    }

    /// The kernel tells what the lease is about to become.
    fn breaks(file: &File) -> bool {
        // SAFETY: as above; this one takes no argument.
        let left = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLEASE) };
        left != libc::F_WRLCK
    }

    #[test]
    fn the_class_is_given_back() {
        let before = IdleIo::is_idle_now();
        let idle = IdleIo::begin();
        let during = IdleIo::is_idle_now();
        drop(idle);
        assert_eq!((before, during, IdleIo::is_idle_now()), (false, true, false));
    }
}
