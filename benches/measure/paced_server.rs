//! An HTTP server behind a link as object stores have it: each answer comes a round trip later, and each connection
//! gives so many bytes a second and no more. It stands in for a shaped network where the kernel has no netem and no fq,
//! and takes little of the processor: bytes go from the page cache into the socket by sendfile.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::parts::FreePort;

const SLICE: u64 = 256 << 10;

/// What is served at one path.
pub(crate) struct Served {
    body: Body,
    /// Header lines, each with its end.
    headers: String,
}

enum Body {
    File(PathBuf),
    Bytes(Vec<u8>),
}

impl Served {
    /// A file as it is on the disk.
    pub(crate) fn file(path: impl Into<PathBuf>) -> Self {
        Self { body: Body::File(path.into()), headers: String::new() }
    }

    /// A few bytes, which come at once.
    pub(crate) fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self { body: Body::Bytes(bytes.into()), headers: String::new() }
    }

    /// With a header more.
    pub(crate) fn header(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.headers.push_str(&format!("{name}: {value}\r\n"));
        self
    }
}

/// How slow it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Before each answer, and for each handshake.
    pub(crate) round_trip: Duration,
    /// Bytes a second of each connection; no limit if none.
    pub(crate) rate: Option<u64>,
}

/// Such a server. It stops when dropped.
pub(crate) struct PacedServer {
    port: FreePort,
    shared: Arc<Shared>,
}

struct Shared {
    /// By path.
    served: HashMap<String, Served>,
    pace: Pace,
    stopped: AtomicBool,
    sending: AtomicU64,
    told: Mutex<Told>,
}

/// What it has seen.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Told {
    /// The largest number of connections that had a body on its way at once.
    pub(crate) connections: u64,
    /// Bytes of bodies.
    pub(crate) bytes: u64,
    /// From the first byte of a large body to the last one.
    pub(crate) first: Option<Instant>,
    /// The same.
    pub(crate) last: Option<Instant>,
}

impl PacedServer {
    /// Starts one; `served` has what is at each path.
    pub(crate) fn start(served: HashMap<String, Served>, pace: Pace) -> Self {
        let port = FreePort::find();
        let listener = TcpListener::bind(port.address()).expect("the port is free");
        let (stopped, sending, told) = (AtomicBool::new(false), AtomicU64::new(0), Mutex::default());
        let shared = Arc::new(Shared { served, pace, stopped, sending, told });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accepting.stopped.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                // A client that goes away ends its connection, and nothing else.
                std::thread::spawn(move || shared.serve(&stream));
            }
        });
        Self { port, shared }
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn host(&self) -> String {
        self.port.address()
    }

    /// What it has seen.
    pub(crate) fn told(&self) -> Told {
        *self.shared.told.lock().expect("no thread panics with the lock")
    }
}

impl Drop for PacedServer {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        // The listener is woken.
        let _ = TcpStream::connect(self.port.address());
    }
}

impl Shared {
    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        // The handshake's round trip.
        pause(self.pace.round_trip);
        let mut reader = BufReader::new(stream);
        let mut next = Instant::now();
        while let Some(request) = Request::read(&mut reader)? {
            pause(self.pace.round_trip);
            self.answer(stream, &request, &mut next)?;
        }
        Ok(())
    }

    fn answer(&self, mut stream: &TcpStream, request: &Request, next: &mut Instant) -> io::Result<()> {
        let path = request.path.split('?').next().unwrap_or_default();
        let Some(Served { body, headers }) = self.served.get(path) else {
            return write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        };
        let file = match body {
            Body::File(path) => Some(File::open(path)?),
            Body::Bytes(_) => None,
        };
        let size = match (&file, body) {
            (None, Body::Bytes(bytes)) => bytes.len() as u64,
            (file, _) => file.as_ref().map_or(Ok(0), |file| file.metadata().map(|meta| meta.len()))?,
        };
        let (from, end) = request.range.map_or((0, size), |(from, last)| (from, (last + 1).min(size)));
        let head = if request.range.is_some() {
            format!(
                "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{}/{size}\r\n",
                end.saturating_sub(1)
            )
        } else {
            "HTTP/1.1 200 OK\r\n".to_owned()
        };
        let length = end.saturating_sub(from);
        write!(stream, "{head}{headers}Accept-Ranges: bytes\r\nContent-Length: {length}\r\n\r\n")?;
        if request.head {
            return Ok(());
        }
        let Some(file) = file else {
            let Body::Bytes(bytes) = body else { return Ok(()) };
            let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
            return stream.write_all(&bytes[place(from)..place(end)]);
        };
        let sending = self.sending.fetch_add(1, Ordering::Relaxed) + 1;
        self.tell(|told| {
            told.connections = told.connections.max(sending);
            told.first.get_or_insert_with(Instant::now);
        });
        let sent = self.send(stream, &file, from, end, next);
        self.sending.fetch_sub(1, Ordering::Relaxed);
        self.tell(|told| {
            told.last = Some(Instant::now());
        });
        sent
    }

    /// Sends a slice whenever its time has come.
    fn send(
        &self,
        stream: &TcpStream,
        file: &File,
        from: u64,
        end: u64,
        next: &mut Instant,
    ) -> io::Result<()> {
        let mut at = from;
        *next = (*next).max(Instant::now());
        while at < end {
            let slice = SLICE.min(end - at);
            pause(next.saturating_duration_since(Instant::now()));
            let to = at + slice;
            while at < to {
                let count = usize::try_from(to - at).unwrap_or(usize::MAX);
                if rustix::fs::sendfile(stream, file, Some(&mut at), count)? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            // A client may go away in the middle: only what went out counts.
            self.tell(|told| told.bytes += slice);
            if let Some(rate) = self.pace.rate {
                *next += Duration::from_secs_f64(slice as f64 / rate as f64);
            }
        }
        Ok(())
    }

    fn tell(&self, what: impl FnOnce(&mut Told)) {
        what(&mut self.told.lock().expect("no thread panics with the lock"));
    }
}

struct Request {
    head: bool,
    path: String,
    range: Option<(u64, u64)>,
}

impl Request {
    /// The next one; `None` when the client is done.
    fn read(reader: &mut BufReader<&TcpStream>) -> io::Result<Option<Self>> {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split(' ');
        let head = words.next() == Some("HEAD");
        let path = words.next().unwrap_or_default().to_owned();
        let mut range = None;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                return Ok(Some(Self { head, path, range }));
            }
            if let Some((from, last)) =
                line.strip_prefix("range: bytes=").and_then(|range| range.split_once('-'))
            {
                range = from.parse().ok().map(|from| (from, last.parse().unwrap_or(u64::MAX - 1)));
            }
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "the link's delay is what is made here")]
fn pause(time: Duration) {
    if !time.is_zero() {
        std::thread::sleep(time);
    }
}
