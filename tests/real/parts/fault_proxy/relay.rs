use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::rule::{Fault, Seen, note};
use super::{Shared, State};

const CHUNK: usize = 64 * 1024;

/// Takes connections until it is told to stop.
pub(super) async fn serve(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).expect("a listener of this runtime");
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            Some(_) = connections.join_next() => {}
            Ok((client, _)) = listener.accept() => {
                let shared = Arc::clone(&shared);
                // A client or a server that goes away is no failure of the proxy's.
                connections.spawn(async move { drop(connection(client, &shared).await) });
            }
        }
    }
}

/// Serves the requests of one connection, one after the other.
async fn connection(client: TcpStream, shared: &Shared) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut client = BufReader::new(client);
    while let Some(head) = Head::read(&mut client).await? {
        if !exchange(&head, &mut client, shared).await? {
            break;
        }
    }
    client.get_mut().shutdown().await
}

/// One request and its answer; says whether the connection may serve another.
async fn exchange(head: &Head, client: &mut BufReader<TcpStream>, shared: &Shared) -> io::Result<bool> {
    let mut words = head.first.split(' ');
    let seen = Seen {
        method: words.next().unwrap_or_default().to_owned(),
        path: words.next().unwrap_or_default().to_owned(),
        range: head.value("range").map(str::to_owned),
        if_match: head.value("if-match").map(str::to_owned),
        status: None,
        fault: None,
    };
    let is_head = seen.method == "HEAD";
    let (number, fault) = note(&mut shared.state(), seen);
    match &fault {
        Some(Fault::Close) => return Ok(false),
        Some(Fault::Status { code, retry_after }) => {
            let mut body = client.take(head.length());
            tokio::io::copy(&mut body, &mut tokio::io::sink()).await?;
            set_status(&mut shared.state(), number, *code);
            let retry = retry_after.map(|seconds| format!("retry-after: {seconds}\r\n")).unwrap_or_default();
            let answer = format!("HTTP/1.1 {code} Fault\r\n{retry}content-length: 0\r\n\r\n");
            client.get_mut().write_all(answer.as_bytes()).await?;
            return Ok(true);
        }
        _ => {}
    }
    let mut server = BufReader::new(TcpStream::connect(&shared.upstream).await?);
    server.get_mut().set_nodelay(true)?;
    let without: &[&str] = if fault == Some(Fault::IgnoreRange) {
        &["connection", "range", "if-range"]
    } else {
        &["connection"]
    };
    server.get_mut().write_all(&head.with(without, "connection: close")).await?;
    tokio::io::copy(&mut (&mut *client).take(head.length()), server.get_mut()).await?;
    let mut answer = Head::read(&mut server).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    // "100 Continue" comes before the real answer.
    while answer.status() == 100 {
        answer = Head::read(&mut server).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    }
    set_status(&mut shared.state(), number, answer.status());
    let bodiless = is_head || matches!(answer.status(), 204 | 304);
    let length =
        if bodiless { Some(0) } else { answer.value("content-length").and_then(|text| text.parse().ok()) };
    // A body without a known length ends with the connection.
    let stays = if length.is_some() { "connection: keep-alive" } else { "connection: close" };
    let answer = match &fault {
        Some(Fault::Header(name, value)) => {
            answer.with(&["connection", name], &format!("{name}: {value}\r\n{stays}"))
        }
        _ => answer.with(&["connection"], stays),
    };
    client.get_mut().write_all(&answer).await?;
    let whole = relay_body(server, length, client, fault.as_ref(), shared).await?;
    Ok(whole && length.is_some())
}

fn set_status(state: &mut State, number: usize, status: u16) {
    if let Some(seen) = state.seen.get_mut(number) {
        seen.status = Some(status);
    }
}

/// Sends the body on with its fault; says whether all of it was sent.
async fn relay_body(
    server: impl AsyncRead + Unpin,
    length: Option<u64>,
    client: &mut BufReader<TcpStream>,
    fault: Option<&Fault>,
    shared: &Shared,
) -> io::Result<bool> {
    let mut server = server.take(length.unwrap_or(u64::MAX));
    let mut chunk = vec![0; CHUNK];
    let mut sent: u64 = 0;
    let mut stall = matches!(fault, Some(Fault::Stall(_)));
    loop {
        // Never reads past the place where something is to be done.
        let room = match fault {
            Some(Fault::CutBody(after)) => after - sent,
            Some(Fault::Stall(after)) if stall => after - sent,
            _ => CHUNK as u64,
        };
        match fault {
            Some(Fault::CutBody(_)) if room == 0 => return Ok(false),
            Some(Fault::Stall(_)) if stall && room == 0 => {
                stall = false;
                if !wait_for_release(client, shared).await? {
                    return Ok(false);
                }
                continue;
            }
            _ => {}
        }
        let room = usize::try_from(room).unwrap_or(CHUNK).min(CHUNK);
        let count = server.read(&mut chunk[..room]).await?;
        if count == 0 {
            return Ok(length.is_none_or(|length| length == sent));
        }
        let bytes = &mut chunk[..count];
        if let Some(Fault::FlipByte(at)) = fault
            && let Some(place) = at.checked_sub(sent).and_then(|place| usize::try_from(place).ok())
            && let Some(byte) = bytes.get_mut(place)
        {
            *byte ^= 1;
        }
        pace(count, shared).await;
        // Counted first: whoever has the bytes finds them counted.
        shared.state().body_bytes += count as u64;
        client.get_mut().write_all(bytes).await?;
        sent += count as u64;
    }
}

/// Waits until stalls are released; false when the client goes away first.
async fn wait_for_release(client: &mut BufReader<TcpStream>, shared: &Shared) -> io::Result<bool> {
    let released = shared.released.notified();
    shared.state().stalled += 1;
    let stays = tokio::select! {
        () = released => Ok(true),
        // A client that has asked and not been answered says nothing more: what can be read is its end.
        more = client.fill_buf() => more.map(|bytes| !bytes.is_empty()),
    };
    shared.state().stalled -= 1;
    stays
}

/// Waits as long as `count` bytes take under the throttle.
async fn pace(count: usize, shared: &Shared) {
    let Some(rate) = shared.state().bytes_per_second else { return };
    let _turn = shared.pace.lock().await;
    tokio::time::sleep(Duration::from_secs_f64(count as f64 / rate.max(1) as f64)).await;
}

/// The first line and the headers of a request or an answer.
struct Head {
    first: String,
    headers: Vec<String>,
}

impl Head {
    /// Reads one; `None` at the connection's end.
    async fn read(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Self>> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if from.read_line(&mut line).await? == 0 {
                return Ok(None);
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            lines.push(line.to_owned());
        }
        if lines.is_empty() {
            return Ok(None);
        }
        let first = lines.remove(0);
        Ok(Some(Self { first, headers: lines }))
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// How long a request's body is.
    fn length(&self) -> u64 {
        self.value("content-length").and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    fn status(&self) -> u16 {
        self.first.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// Its bytes, without some headers and with more lines.
    fn with(&self, without: &[&str], more: &str) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.first);
        for line in &self.headers {
            let name = line.split(':').next().unwrap_or_default();
            if !without.iter().any(|unwanted| name.eq_ignore_ascii_case(unwanted)) {
                text.push_str(line);
                text.push_str("\r\n");
            }
        }
        text.push_str(more);
        text.push_str("\r\n\r\n");
        text.into_bytes()
    }
}
