use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// One request, as it came.
#[derive(Debug, Clone)]
pub(in crate::source) struct Request {
    pub(in crate::source) method: String,
    pub(in crate::source) target: String,
    headers: HashMap<String, String>,
    pub(in crate::source) body: String,
}

impl Request {
    pub(in crate::source) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The first and the last byte of its `Range`.
    pub(in crate::source) fn range(&self) -> Option<(usize, usize)> {
        let (first, last) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse().unwrap(), last.parse().unwrap()))
    }
}

/// One answer. `Content-Length` is that of the body, unless a header says another.
#[derive(Debug, Clone, Default)]
pub(in crate::source) struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    hangs: bool,
    is_silent: bool,
}

impl Answer {
    pub(in crate::source) fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// No answer at all.
    pub(in crate::source) fn none() -> Self {
        Self { is_silent: true, ..Self::default() }
    }

    pub(in crate::source) fn is_ok(&self) -> bool {
        self.status == 200
    }

    pub(in crate::source) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(in crate::source) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends what there is of the body, and then nothing, without an end.
    pub(in crate::source) fn hanging(mut self) -> Self {
        self.hangs = true;
        self
    }

    /// What a proper server answers about `blob` at version `etag`.
    pub(in crate::source) fn of(request: &Request, blob: &[u8], etag: &str) -> Self {
        let quoted = format!("\"{etag}\"");
        if request.header("if-match").is_some_and(|wanted| wanted != quoted) {
            return Self::new(412);
        }
        let len = blob.len();
        match request.range() {
            None => Self::new(200).header("ETag", quoted).body(blob),
            Some((first, _)) if first >= len => {
                Self::new(416).header("Content-Range", format!("bytes */{len}"))
            }
            Some((first, last)) => {
                let last = last.min(len - 1);
                Self::new(206)
                    .header("ETag", quoted)
                    .header("Content-Range", format!("bytes {first}-{last}/{len}"))
                    .body(&blob[first..=last])
            }
        }
    }
}

/// A server on a free port of loopback, until it's dropped.
pub(in crate::source) struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    accepting: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Server {
    pub(in crate::source) async fn start(
        answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (seen_by_all, answer) = (Arc::clone(&seen), Arc::new(answer));
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, answer) = (Arc::clone(&seen_by_all), Arc::clone(&answer));
                connections.spawn(async move {
                    let _ = serve(stream, &seen, &*answer).await;
                });
            }
        });
        Self { address, seen, accepting }
    }

    pub(in crate::source) fn url(&self, target: &str) -> String {
        format!("http://{}{target}", self.address)
    }

    pub(in crate::source) fn forget(&self) {
        self.seen.lock().unwrap().clear();
    }

    pub(in crate::source) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

async fn serve(
    stream: TcpStream,
    seen: &Mutex<Vec<Request>>,
    answer: &(dyn Fn(&Request) -> Answer + Send + Sync),
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            if line.trim().is_empty() {
                break;
            }
            lines.push(line.trim().to_owned());
        }
        let mut words = lines[0].split(' ').map(str::to_owned);
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let headers = lines[1..].iter().filter_map(|line| line.split_once(": "));
        let headers: HashMap<String, String> =
            headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let body = String::from_utf8(body).unwrap();
        let request = Request { method, target, headers, body };
        seen.lock().unwrap().push(request.clone());
        let answer = answer(&request);
        if answer.is_silent {
            std::future::pending::<()>().await;
        }
        let mut head = format!("HTTP/1.1 {} Told\r\n", answer.status);
        if !answer.headers.iter().any(|(name, _)| ["Content-Length", "Transfer-Encoding"].contains(name)) {
            head += &format!("Content-Length: {}\r\n", answer.body.len());
        }
        for (name, value) in &answer.headers {
            head += &format!("{name}: {value}\r\n");
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).await?;
        stream.flush().await?;
        if request.method == "HEAD" {
            continue;
        }
        stream.write_all(&answer.body).await?;
        stream.flush().await?;
        if answer.hangs {
            std::future::pending::<()>().await;
        }
        let promised = answer.headers.iter().find(|(name, _)| *name == "Content-Length");
        if promised.is_some_and(|(_, length)| length.parse() != Ok(answer.body.len())) {
            return Ok(());
        }
    }
}
