//! What it costs to have bytes come over loopback from a server, and to do nothing with them.

use std::io::{self, BufReader, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::usage::{cpu, cpu_of_thread};

const RANGE: u64 = 16 << 20;
const CONNECTIONS: usize = 8;

/// The cost.
pub(crate) struct Loopback {
    /// The client's processor time.
    pub(crate) client: Duration,
    /// The server's.
    pub(crate) server: Duration,
    /// How long it took.
    pub(crate) wall: Duration,
}

impl Loopback {
    /// Both sides' processor time.
    pub(crate) fn cpu(&self) -> Duration {
        self.client + self.server
    }
}

/// Downloads files by ranges, eight at once: of each its path with its query, and its size. `server` is the process at
/// `host`.
pub(crate) fn measure(host: &str, server: u32, files: &[(String, u64)]) -> Loopback {
    let before = cpu(server);
    let begun = Instant::now();
    let mut ranges = Vec::new();
    for (path, size) in files {
        let starts = (0..*size).step_by(RANGE as usize);
        ranges.extend(starts.map(|from| (path.clone(), from, (from + RANGE).min(*size))));
    }
    let ranges = Mutex::new(ranges);
    let client = tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(|| worker(host, &ranges))).collect();
            workers.into_iter().map(|worker| worker.join().expect("no worker panics")).sum()
        })
    });
    Loopback { client, server: cpu(server).saturating_sub(before), wall: begun.elapsed() }
}

/// Fetches ranges over one connection after the other until there are none; gives its processor time.
fn worker(host: &str, ranges: &Mutex<Vec<(String, u64, u64)>>) -> Duration {
    let begun = cpu_of_thread();
    let mut open = None;
    loop {
        let Some((path, from, end)) = ranges.lock().expect("no worker panics").pop() else { break };
        let mut reader = open.take().unwrap_or_else(|| {
            let stream = TcpStream::connect(host).expect("the server listens");
            BufReader::with_capacity(256 << 10, stream)
        });
        let last = end - 1;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nRange: bytes={from}-{last}\r\n\r\n");
        reader.get_mut().write_all(request.as_bytes()).expect("a request");
        let (status, stays) = skip_head(&mut reader).expect("an answer");
        assert!(status.contains(" 206 "), "{status}");
        skip_body(&mut reader, end - from).expect("a body");
        // Some servers close it after each answer.
        open = stays.then_some(reader);
    }
    cpu_of_thread() - begun
}

/// Reads an answer's head, and gives its first line, and whether the connection stays.
fn skip_head(reader: &mut impl io::BufRead) -> io::Result<(String, bool)> {
    let mut status = String::new();
    reader.read_line(&mut status)?;
    let mut stays = true;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        stays &= !line.trim_end().eq_ignore_ascii_case("connection: close");
        line.clear();
    }
    Ok((status, stays))
}

/// Reads so many bytes to nowhere.
fn skip_body(reader: &mut impl io::BufRead, mut left: u64) -> io::Result<()> {
    while left > 0 {
        let got = reader.fill_buf()?.len();
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let taken = left.min(got as u64);
        reader.consume(usize::try_from(taken).unwrap_or(got));
        left -= taken;
    }
    Ok(())
}
