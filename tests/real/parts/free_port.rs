//! A loopback port that nobody else takes.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

use super::scratch::base;

// Below the kernel's own range (32768 and up), so that no outgoing connection is given one of these.
const FIRST: u16 = 20_000;
const COUNT: u16 = 10_000;

/// A free port of 127.0.0.1. It is held with a file lock while this lives: other tests and other runs pick others,
/// also before the server has bound it and while the server restarts.
#[derive(Debug)]
pub(crate) struct FreePort {
    port: u16,
    _lock: File,
}

impl FreePort {
    /// Finds one.
    pub(crate) fn find() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let locks = base().join("ports");
        std::fs::create_dir_all(&locks).unwrap_or_else(|error| panic!("{}: {error}", locks.display()));
        // Runs side by side begin at different places.
        let begin = u32::from(NEXT.fetch_add(1, Ordering::Relaxed)) + std::process::id() * 97;
        for step in 0..u32::from(COUNT) {
            let offset = u16::try_from((begin + step) % u32::from(COUNT)).expect("less than COUNT");
            let port = FIRST + offset;
            let lock = File::create(locks.join(port.to_string())).expect("a lock file can be made");
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Self { port, _lock: lock };
            }
        }
        panic!("no port between {FIRST} and {} is free", FIRST + COUNT);
    }

    /// The number.
    pub(crate) fn number(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}
