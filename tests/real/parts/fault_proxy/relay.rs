use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::head::Head;
use super::rule::{Fault, Headers, SIGNATURE, Seen, note};
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
        headers: Headers(head.headers().to_vec()),
        status: None,
        fault: None,
    };
    let is_head = seen.method == "HEAD";
    let (number, fault) = note(&mut shared.state(), seen);
    if fault == Some(Fault::Close) {
        return Ok(false);
    }
    let answer = fault.as_ref().and_then(|fault| instead(fault, number, &shared.state()));
    if let Some((status, answer)) = answer {
        let mut body = (&mut *client).take(head.length());
        tokio::io::copy(&mut body, &mut tokio::io::sink()).await?;
        set_status(&mut shared.state(), number, status);
        let end =
            if is_head { answer.find(END).map_or(answer.len(), |at| at + END.len()) } else { answer.len() };
        client.get_mut().write_all(&answer.as_bytes()[..end]).await?;
        return Ok(true);
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
    if let Some(challenge) = answer.value("www-authenticate").filter(|_| answer.status() == 401) {
        shared.state().challenge = Some(challenge.to_owned());
    }
    let bodiless = is_head || matches!(answer.status(), 204 | 304);
    let length =
        if bodiless { Some(0) } else { answer.value("content-length").and_then(|text| text.parse().ok()) };
    // A body without a known length ends with the connection.
    let stays = if length.is_some() { "connection: keep-alive" } else { "connection: close" };
    let more = fault.as_ref().and_then(|fault| header(fault, &answer));
    let answer = match more {
        Some((name, value)) => answer.with(&["connection", name], &format!("{name}: {value}\r\n{stays}")),
        None => answer.with(&["connection"], stays),
    };
    client.get_mut().write_all(&answer).await?;
    shared.state().relaying += 1;
    let relayed = relay_body(server, length, client, fault.as_ref(), shared).await;
    shared.state().relaying -= 1;
    let whole = relayed?;
    Ok(whole && length.is_some())
}

/// The end of a head.
const END: &str = "\r\n\r\n";

/// The status and all of the answer, where a fault answers in the server's place.
fn instead(fault: &Fault, number: usize, state: &State) -> Option<(u16, String)> {
    let expired = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>";
    let (status, header, body) = match fault {
        Fault::Status { code, retry_after } => {
            (*code, retry_after.map(|seconds| format!("retry-after: {seconds}")), "")
        }
        Fault::Unauthorized => {
            (401, state.challenge.as_ref().map(|challenge| format!("www-authenticate: {challenge}")), "")
        }
        Fault::Expired => (403, Some("content-type: application/xml".to_owned()), expired),
        Fault::Redirect(base) => {
            let path = state.seen.get(number).map(|seen| seen.path.as_str()).unwrap_or_default();
            let mark = if path.contains('?') { '&' } else { '?' };
            (307, Some(format!("location: {base}{path}{mark}{SIGNATURE}={number}")), "")
        }
        _ => return None,
    };
    let header = header.map(|header| format!("{header}\r\n")).unwrap_or_default();
    Some((status, format!("HTTP/1.1 {status} Fault\r\n{header}content-length: {}{END}{body}", body.len())))
}

/// What a fault puts in place of one header of the server's answer.
fn header(fault: &Fault, answer: &Head) -> Option<(&'static str, String)> {
    let range = || {
        let (range, total) = answer.value("content-range")?.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        Some((first.parse::<u64>().ok()?, last.parse::<u64>().ok()?, total.parse::<u64>().ok()?))
    };
    let name = "content-range";
    match fault {
        Fault::Header(name, value) => Some((*name, value.clone())),
        Fault::OtherRange => {
            let (first, last, total) = range()?;
            let (first, last) =
                if last + 1 < total { (first + 1, last + 1) } else { (first.max(1) - 1, last) };
            Some((name, format!("bytes {first}-{last}/{total}")))
        }
        Fault::OtherTotal => {
            let (first, last, total) = range()?;
            Some((name, format!("bytes {first}-{last}/{}", total + 1)))
        }
        _ => None,
    }
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
    // Never reads past the place where something is to be done.
    let mut until = match fault {
        Some(Fault::CutBody(after) | Fault::Reset(after) | Fault::Stall(after)) => *after,
        Some(Fault::HalfBody) => length.unwrap_or(0) / 2,
        _ => u64::MAX,
    };
    loop {
        if sent == until {
            match fault {
                Some(Fault::Stall(_)) if wait_for_release(client, shared).await? => until = u64::MAX,
                Some(Fault::Reset(_)) => return Err(reset(client)),
                _ => return Ok(false),
            }
        }
        let room = until - sent;
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
        if let Some(Fault::SlowStart { bytes, per_second }) = fault
            && sent < *bytes
        {
            tokio::time::sleep(Duration::from_secs_f64(count as f64 / (*per_second).max(1) as f64)).await;
        }
        pace(count, shared).await;
        // Counted first: whoever has the bytes finds them counted.
        shared.state().body_bytes += count as u64;
        client.get_mut().write_all(bytes).await?;
        sent += count as u64;
    }
}

/// Makes the connection end as after a crash: whoever reads from it gets an error, and not an end.
fn reset(client: &BufReader<TcpStream>) -> io::Error {
    client.get_ref().set_zero_linger().err().unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())
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
