//! Bounds on connections: anybody on the node may connect, so how many there are, and how long one that only
//! costs lives, isn't left to them.

use std::collections::HashMap;
use std::future::Future as _;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tonic::transport::server::Connected;

/// Connections to the unix socket at once; more wait in the kernel's backlog.
const UNIX_CONNECTIONS: usize = 128;
/// HTTP connections at once.
const HTTP_CONNECTIONS: usize = 256;
/// Of these from one address; more are hung up on. In a cluster every pod reaches this port, and one that takes all
/// connections would keep kubelet's liveness probe out, which restarts the agent.
const HTTP_FROM_ONE: usize = 32;
/// One request and its answer; both are small. It's short, so that whoever holds connections open can't keep a
/// liveness probe out.
const HTTP_LIFETIME: Duration = Duration::from_secs(10);
/// To the unix socket, until the first byte is there. From then on HTTP/2 pings find out who is dead.
const UNIX_SILENCE: Duration = Duration::from_secs(5);
/// Out of file descriptors, most likely: trying again at once would only burn a core.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(500);

/// A connection, counted while it's open, and cut off at its deadline.
#[derive(Debug)]
pub(super) struct Connection<S> {
    stream: S,
    deadline: Option<Pin<Box<Sleep>>>,
    /// Whether the deadline is for the first byte only, and not for all there is.
    until_first_byte: bool,
    _counted: OwnedSemaphorePermit,
    _from: Option<FromOne>,
}

/// How many connections there are from each address that has any.
type Peers = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// One connection from an address, counted while it's open.
#[derive(Debug)]
struct FromOne {
    peers: Peers,
    address: IpAddr,
}

impl FromOne {
    /// `None` when there are as many from this address as there may be.
    fn count(peers: &Peers, address: IpAddr) -> Option<Self> {
        let mut open = peers.lock().unwrap_or_else(PoisonError::into_inner);
        let from_one = open.entry(address).or_default();
        if *from_one == HTTP_FROM_ONE {
            return None;
        }
        *from_one += 1;
        Some(Self { peers: Arc::clone(peers), address })
    }
}

impl Drop for FromOne {
    fn drop(&mut self) {
        let mut open = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(from_one) = open.get_mut(&self.address) {
            *from_one -= 1;
            if *from_one == 0 {
                open.remove(&self.address);
            }
        }
    }
}

/// Accepts gRPC connections, for ever.
pub(super) fn unix_connections(
    listener: UnixListener,
) -> impl Stream<Item = io::Result<Connection<UnixStream>>> + Send {
    let slots = Arc::new(Semaphore::new(UNIX_CONNECTIONS));
    futures::stream::unfold((listener, slots), |(listener, slots)| async {
        // Nobody closes the semaphore; if somebody did, no more connections is the right answer.
        let counted = slots.clone().acquire_owned().await.ok()?;
        let stream = loop {
            match listener.accept().await {
                Ok((stream, _)) => break stream,
                Err(error) => pause_after(&error).await,
            }
        };
        let connection = Connection::new(stream, UNIX_SILENCE, true, (counted, None));
        Some((Ok(connection), (listener, slots)))
    })
}

/// Accepts HTTP connections, for ever.
#[derive(Debug)]
pub(super) struct HttpConnections {
    listener: TcpListener,
    slots: Arc<Semaphore>,
    peers: Peers,
}

impl HttpConnections {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self { listener, slots: Arc::new(Semaphore::new(HTTP_CONNECTIONS)), peers: Peers::default() }
    }
}

impl axum::serve::Listener for HttpConnections {
    type Io = Connection<TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let Ok(counted) = self.slots.clone().acquire_owned().await else {
            return std::future::pending().await; // nobody closes the semaphore
        };
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    let Some(from) = FromOne::count(&self.peers, address.ip()) else { continue };
                    return (Connection::new(stream, HTTP_LIFETIME, false, (counted, Some(from))), address);
                }
                Err(error) => pause_after(&error).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

async fn pause_after(error: &io::Error) {
    let gone = [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset];
    if !gone.contains(&error.kind()) {
        tracing::warn!(%error, "cannot accept a connection; trying again");
        tokio::time::sleep(PAUSE_AFTER_ERROR).await;
    }
}

impl<S> Connection<S> {
    fn new(
        stream: S,
        within: Duration,
        until_first_byte: bool,
        (counted, from): (OwnedSemaphorePermit, Option<FromOne>),
    ) -> Self {
        let deadline = Some(Box::pin(tokio::time::sleep(within)));
        Self { stream, deadline, until_first_byte, _counted: counted, _from: from }
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.deadline.as_mut().map(|sleep| sleep.as_mut().poll(cx)) {
            Some(Poll::Ready(())) => Err(io::ErrorKind::TimedOut.into()),
            Some(Poll::Pending) | None => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_deadline(cx)?;
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if self.until_first_byte && read.is_ready() {
            self.deadline = None;
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_deadline(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_deadline(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_deadline(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Connected for Connection<UnixStream> {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_cut_off_and_who_spoke_may_be_silent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let mut connections = Box::pin(unix_connections(UnixListener::bind(&path).unwrap()));
        let _silent = UnixStream::connect(&path).await.unwrap();
        let mut accepted = connections.next().await.unwrap().unwrap();
        assert_eq!(accepted.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);

        let mut polite = UnixStream::connect(&path).await.unwrap();
        polite.write_all(b"x").await.unwrap();
        let mut accepted = connections.next().await.unwrap().unwrap();
        accepted.read_u8().await.unwrap();
        tokio::time::advance(10 * UNIX_SILENCE).await;
        polite.write_all(b"y").await.unwrap();
        assert_eq!(accepted.read_u8().await.unwrap(), b'y');
    }

    #[tokio::test(start_paused = true)]
    async fn an_http_connection_ends_even_if_it_talks() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut connections = HttpConnections::new(listener);
        let (mut accepted, _) = axum::serve::Listener::accept(&mut connections).await;
        client.write_all(b"xy").await.unwrap();
        accepted.read_u8().await.unwrap();
        tokio::time::advance(HTTP_LIFETIME).await;
        assert_eq!(accepted.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn more_connections_than_slots_wait_for_one_to_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut connections =
            HttpConnections { slots: Arc::new(Semaphore::new(1)), ..HttpConnections::new(listener) };
        let _clients =
            (TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap());
        let first = axum::serve::Listener::accept(&mut connections).await;
        assert_eq!(connections.slots.available_permits(), 0);
        drop(first);
        axum::serve::Listener::accept(&mut connections).await;
    }

    #[tokio::test]
    async fn one_address_leaves_room_for_the_others() {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let from = async |address: [u8; 4]| {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind((address, 0).into()).unwrap();
            socket.connect(([127, 0, 0, 1], port).into()).await.unwrap()
        };
        let mut connections = HttpConnections::new(listener);
        let mut greedy = Vec::new();
        for _ in 0..HTTP_FROM_ONE {
            let client = from([127, 0, 0, 2]).await;
            greedy.push((client, axum::serve::Listener::accept(&mut connections).await));
        }
        let mut one_too_many = from([127, 0, 0, 2]).await;
        let _other = from([127, 0, 0, 3]).await;
        let (_probe, address) = axum::serve::Listener::accept(&mut connections).await;
        assert_eq!(address.ip(), IpAddr::from([127, 0, 0, 3]));
        assert_eq!(one_too_many.read(&mut [0]).await.unwrap_or_default(), 0, "hung up on");
        greedy.pop();
        let _again = from([127, 0, 0, 2]).await;
        let (again, address) = axum::serve::Listener::accept(&mut connections).await;
        assert_eq!(address.ip(), IpAddr::from([127, 0, 0, 2]));
        drop((greedy, again));
        assert_eq!(connections.peers.lock().unwrap().len(), 1, "what is closed is forgotten");
    }
}
