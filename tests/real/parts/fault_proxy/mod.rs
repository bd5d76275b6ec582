//! Spoils what a real server answers: an HTTP/1.1 proxy in front of it that flips a byte, cuts, stalls, refuses.
//! It has a thread and a runtime of its own, so that it works whatever the test's own runtime does.

mod head;
mod relay;
mod rule;
mod trouble;

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub(crate) use rule::{Fault, Rule, Seen};
pub(crate) use trouble::Trouble;

/// A proxy in front of one server.
#[derive(Debug)]
pub(crate) struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    upstream: String,
    state: Mutex<State>,
    released: Notify,
    stop: CancellationToken,
    /// Held while bytes are waited for under a throttle, so that it counts for all connections together.
    pace: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<Rule>,
    trouble: Option<Trouble>,
    /// Paths with their queries that have expired.
    expired: HashSet<String>,
    /// The last `WWW-Authenticate` that came with a 401 of the server's own.
    challenge: Option<String>,
    seen: Vec<Seen>,
    body_bytes: u64,
    /// Bodies that are being sent on.
    relaying: usize,
    bytes_per_second: Option<u64>,
    stalled: usize,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with the lock")
    }
}

impl FaultProxy {
    /// Starts one in front of `upstream` (`127.0.0.1:PORT`). Without rules it changes nothing.
    pub(crate) fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        listener.set_nonblocking(true).expect("a listener can be non-blocking");
        let address = listener.local_addr().expect("a listener has an address");
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            state: Mutex::default(),
            released: Notify::new(),
            stop: CancellationToken::new(),
            pace: tokio::sync::Mutex::default(),
        });
        let thread = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                // Dropping the runtime drops every connection's task with its sockets.
                runtime.expect("a runtime can be built").block_on(relay::serve(listener, shared));
            })
        };
        Self { address, shared, thread: Some(thread) }
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a rule. For each request the first rule that matches, and isn't used up, has its fault.
    pub(crate) fn add(&self, rule: Rule) {
        self.shared.state().rules.push(rule);
    }

    /// From now on requests that no rule has a fault for have one at random.
    pub(crate) fn trouble(&self, trouble: Trouble) {
        self.shared.state().trouble = Some(trouble);
    }

    /// Takes off all rules and all trouble and ends all stalls.
    pub(crate) fn clear(&self) {
        {
            let mut state = self.shared.state();
            state.rules.clear();
            state.trouble = None;
        }
        self.release();
    }

    /// Ends all stalls under way: the rest of those bodies is sent.
    pub(crate) fn release(&self) {
        self.shared.released.notify_waiters();
    }

    /// Limits all bodies together; `None` takes the limit off.
    pub(crate) fn throttle(&self, bytes_per_second: Option<u64>) {
        self.shared.state().bytes_per_second = bytes_per_second;
    }

    /// The requests so far, in the order in which they came.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.state().seen.clone()
    }

    /// The requests that had a fault.
    pub(crate) fn spoilt(&self) -> Vec<Seen> {
        self.shared.state().seen.iter().filter(|seen| seen.fault.is_some()).cloned().collect()
    }

    /// How many bytes of bodies were sent on to clients.
    pub(crate) fn body_bytes(&self) -> u64 {
        self.shared.state().body_bytes
    }

    /// How many bodies are being sent on now, those that are stalled included: also to clients that are gone, until that
    /// is noticed.
    pub(crate) fn relaying(&self) -> usize {
        self.shared.state().relaying
    }

    /// How many bodies are stalled now.
    pub(crate) fn stalled(&self) -> usize {
        self.shared.state().stalled
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
