//! A registry behind a link as object stores have it: each answer comes a round trip later, and each connection gives
//! so many bytes a second and no more. It stands in for a shaped network where the kernel has no netem and no fq, and
//! takes little of the processor: bytes go from the page cache into the socket by sendfile.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::made::{Image, Made};
use crate::parts::FreePort;
use crate::store::Store;

const SLICE: u64 = 256 << 10;

/// Such a registry. It stops when dropped.
pub(crate) struct SlowRegistry {
    port: FreePort,
    shared: Arc<Shared>,
}

struct Shared {
    /// What is served at which path, and as which media type.
    served: HashMap<String, (PathBuf, String)>,
    digests: HashMap<String, String>,
    round_trip: Duration,
    rate: u64,
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

impl SlowRegistry {
    /// Starts one with one image.
    pub(crate) fn start(made: &Made, image: &Image, round_trip: Duration, rate: u64) -> Self {
        let port = FreePort::find();
        let listener = TcpListener::bind(port.address()).expect("the port is free");
        let mut served = HashMap::new();
        let mut digests = HashMap::new();
        let store = Store::at(&made.directory);
        let base = format!("/v2/{}", image.repository());
        let blob = "application/octet-stream".to_owned();
        for digest in image.layers.iter().map(|layer| layer.digest).chain([image.config]) {
            served.insert(format!("{base}/blobs/{digest}"), (store.blob(digest), blob.clone()));
        }
        for name in ["v1".to_owned(), image.manifest.to_string()] {
            let kind = "application/vnd.oci.image.manifest.v1+json".to_owned();
            let path = format!("{base}/manifests/{name}");
            digests.insert(path.clone(), image.manifest.to_string());
            served.insert(path, (store.blob(image.manifest), kind));
        }
        let (stopped, sending, told) = (AtomicBool::new(false), AtomicU64::new(0), Mutex::default());
        let shared = Arc::new(Shared { served, digests, round_trip, rate, stopped, sending, told });
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

impl Drop for SlowRegistry {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        // The listener is woken.
        let _ = TcpStream::connect(self.port.address());
    }
}

impl Shared {
    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        // The handshake's round trip.
        pause(self.round_trip);
        let mut reader = BufReader::new(stream);
        let mut next = Instant::now();
        while let Some(request) = Request::read(&mut reader)? {
            pause(self.round_trip);
            self.answer(stream, &request, &mut next)?;
        }
        Ok(())
    }

    fn answer(&self, mut stream: &TcpStream, request: &Request, next: &mut Instant) -> io::Result<()> {
        let path = request.path.split('?').next().unwrap_or_default();
        let Some((file, kind)) = self.served.get(path) else {
            let status = if path == "/v2/" { "200 OK" } else { "404 Not Found" };
            return write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        };
        let file = File::open(file)?;
        let size = file.metadata()?.len();
        let (from, end) = request.range.map_or((0, size), |(from, last)| (from, (last + 1).min(size)));
        let mut head = if request.range.is_some() {
            format!(
                "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{}/{size}\r\n",
                end.saturating_sub(1)
            )
        } else {
            "HTTP/1.1 200 OK\r\n".to_owned()
        };
        if let Some(digest) = self.digests.get(path) {
            head.push_str(&format!("Docker-Content-Digest: {digest}\r\n"));
        }
        let length = end.saturating_sub(from);
        write!(
            stream,
            "{head}Accept-Ranges: bytes\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
        )?;
        if request.head {
            return Ok(());
        }
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
            *next += Duration::from_secs_f64(slice as f64 / self.rate as f64);
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
