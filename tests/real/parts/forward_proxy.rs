//! A proxy that clients are told of by HTTPS_PROXY and HTTP_PROXY, written for these tests: CONNECT, and GET and HEAD of
//! whole URLs (RFC 9110, 9.3.6; RFC 9112, 3.2.2). It alone knows where the names are that are asked of it, so what
//! arrives came by it.

use std::collections::HashMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// It runs as long as the test's process, on threads that wait.
#[derive(Debug)]
pub(crate) struct ForwardProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Where a host is.
    hosts: HashMap<String, String>,
    seen: Mutex<Vec<String>>,
}

/// No connection outlives its test by much.
const SILENCE: Duration = Duration::from_secs(60);

impl ForwardProxy {
    /// Starts one that knows these hosts (`models.test`) and where each is (`127.0.0.1:PORT`).
    pub(crate) fn start<'a>(hosts: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let hosts = hosts.into_iter().map(|(host, at)| (host.to_owned(), at)).collect();
        let shared = Arc::new(Shared { hosts, seen: Mutex::default() });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&accepting);
                // Clients and servers that go away are no failure of the proxy's.
                std::thread::spawn(move || drop(shared.serve(&client)));
            }
        });
        Self { address, shared }
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The first line of each request so far.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.shared.seen.lock().expect("nobody panics with it").clone()
    }
}

impl Shared {
    fn serve(&self, client: &TcpStream) -> io::Result<()> {
        client.set_read_timeout(Some(SILENCE))?;
        let mut reader = BufReader::new(client);
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line.trim_end().is_empty() {
                break;
            }
            head.push(line.trim_end().to_owned());
        }
        let first = head.remove(0);
        self.seen.lock().expect("nobody panics with it").push(first.clone());
        let mut words = first.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let authority = target.strip_prefix("http://").unwrap_or(target);
        let (authority, path) = authority.split_once('/').unwrap_or((authority, ""));
        let host = authority.split(':').next().unwrap_or_default();
        let Some(at) = self.hosts.get(host) else {
            return (&mut &*client).write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n");
        };
        let mut server = TcpStream::connect(at)?;
        if method == "CONNECT" {
            (&mut &*client).write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
        } else {
            // One request a connection: the next may be for another host.
            let kept = head.iter().filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
            let lines: String = kept.map(|line| format!("{line}\r\n")).collect();
            write!(server, "{method} /{path} HTTP/1.1\r\n{lines}connection: close\r\n\r\n")?;
        }
        let buffered = reader.buffer().to_vec();
        server.write_all(&buffered)?;
        both_ways(client, &server)
    }
}

fn both_ways(client: &TcpStream, server: &TcpStream) -> io::Result<()> {
    let (from, to) = (client.try_clone()?, server.try_clone()?);
    let there = std::thread::spawn(move || one_way(&from, &to));
    let back = one_way(server, client);
    let _ = there.join();
    back
}

fn one_way(mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
    let mut chunk = vec![0; 64 << 10];
    let ended = loop {
        match from.read(&mut chunk) {
            Ok(0) => break Ok(()),
            Ok(count) => to.write_all(&chunk[..count])?,
            Err(error) => break Err(error),
        }
    };
    let _ = to.shutdown(Shutdown::Write);
    ended
}
