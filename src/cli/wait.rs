//! `stoker wait`: until entries are warm here, for init containers and scripts.

mod lines;

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt as _};
use tokio::time::{Instant, sleep, timeout_at};

use super::Exit;
use super::client::{Client, ClientError};
use super::flags::SocketFlags;
use super::proto::{Verdict, WaitResponse};
use crate::rt::{Attempts, RetryPolicy, chain};
use crate::types::{EntryId, ErrorKind};
use lines::Lines;

/// Wait until entries of the list are warm on this node
///
/// Asks the agent of this node over its socket, which an init container has from a read-only hostPath /run/stoker; any
/// user may ask. Each change is a line on standard error. It ends with 0 once all are warm; with 1 at once when one of
/// them will not be warm here: it is not listed, not for this node (but see --fetch), past its expiresAt, badly said by
/// the list, or over this node's limit; with 3 when the agent does not answer for --agent-timeout; with 124 when
/// --timeout is over. An entry that failed is waited for: the agent tries it again.
#[derive(Debug, Clone, clap::Args)]
pub struct WaitArgs {
    /// The entries' ids
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<EntryId>,

    // Off: a fraction is there to spare the other nodes' disks and the network.
    /// Ask this node for listed entries that `nodes` leaves out here, instead of ending with 1
    #[arg(long, env = "STOKER_WAIT_FETCH")]
    pub fetch: bool,

    /// How long to wait in all, such as 90s, 10m or 1h30m; for ever if not given
    #[arg(long, env = "STOKER_WAIT_TIMEOUT", value_name = "DURATION", value_parser = duration)]
    pub timeout: Option<Duration>,

    // A pod may start while the agent is being updated.
    /// How long the agent may be away, at the start and later
    #[arg(
        long,
        env = "STOKER_WAIT_AGENT_TIMEOUT",
        value_name = "DURATION",
        default_value = "30s",
        value_parser = duration
    )]
    pub agent_timeout: Duration,

    #[allow(missing_docs, reason = "a flattened group; a doc comment would become help text")]
    #[command(flatten)]
    pub socket: SocketFlags,
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<jiff::SignedDuration>().ok();
    parsed
        .and_then(|duration| Duration::try_from(duration).ok())
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "write a duration with its unit, such as 90s, 10m or 1h30m".to_owned())
}

/// A socket on the same machine costs nothing to try, and a pod's start waits for it.
const RECONNECT: RetryPolicy = RetryPolicy {
    first: Duration::from_millis(100),
    longest: Duration::from_secs(1),
    retries: None,
    jitter: RetryPolicy::HALF,
};

/// Waits, and says what happens on standard error.
pub(super) async fn run(args: &WaitArgs) -> Exit {
    wait(args, &mut io::stderr()).await
}

/// Waits, and says what happens there. That nobody reads it is no reason not to wait.
pub async fn wait(args: &WaitArgs, out: &mut impl Write) -> Exit {
    let mut lines = Lines::default();
    let mut say = |text: String| {
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    };
    let end = args.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        let mut answers = match reach(args, end, &mut say).await {
            Ok(answers) => answers,
            Err(error) => {
                say(format!("stoker: {}\n", chain(&error)));
                return if is_an_answer(&error) { Exit::Broken } else { Exit::Unreachable };
            }
        };
        let why = loop {
            let Ok(answer) = before(end, answers.next()).await else {
                say(lines.timed_out(args.timeout.unwrap_or_default()));
                return Exit::TimedOut;
            };
            match answer {
                Some(Ok(answer)) => {
                    say(lines.tell(&answer, Instant::now()));
                    match answer.verdict() {
                        Verdict::Unspecified => {}
                        Verdict::Warm => return Exit::Done,
                        Verdict::Never => return Exit::No,
                    }
                }
                Some(Err(error)) => break chain(&error),
                None => break "it stopped".to_owned(),
            }
        };
        say(format!("the agent is gone ({why}); waiting for it to come back\n"));
        sleep(RECONNECT.first).await;
    }
}

/// Asks the agent, again and again while it's away. The first answer is there when this returns.
async fn reach(
    args: &WaitArgs,
    end: Option<Instant>,
    say: &mut impl FnMut(String),
) -> Result<Answers, ClientError> {
    let until = Instant::now().checked_add(args.agent_timeout).into_iter().chain(end).min();
    let mut attempts = Attempts::new(RECONNECT);
    loop {
        let error = match before(until, ask(args)).await {
            Ok(Ok(answers)) => return Ok(answers),
            Ok(Err(error)) => error,
            Err(_) => silent(&args.socket.socket),
        };
        let pause = attempts.failed_with(ErrorKind::Transient, fastrand::f64()).unwrap_or(RECONNECT.longest);
        let is_over = until.is_some_and(|until| Instant::now() + pause >= until);
        if is_an_answer(&error) || is_over {
            return Err(error);
        }
        if attempts.failed() == 1 {
            say(format!("{}; trying again\n", chain(&error)));
        }
        sleep(pause).await;
    }
}

type Answers = BoxStream<'static, Result<WaitResponse, ClientError>>;

async fn ask(args: &WaitArgs) -> Result<Answers, ClientError> {
    let mut client = Client::connect(&args.socket.socket).await?;
    let mut answers = client.wait(&args.ids, args.fetch).await?;
    let first = answers.next().await.ok_or_else(|| silent(&args.socket.socket))??;
    Ok(futures::stream::iter([Ok(first)]).chain(answers).boxed())
}

fn silent(socket: &Path) -> ClientError {
    ClientError::Unreachable { socket: socket.to_owned(), cause: io::ErrorKind::TimedOut.into() }
}

async fn before<T>(
    end: Option<Instant>,
    work: impl Future<Output = T>,
) -> Result<T, tokio::time::error::Elapsed> {
    match end {
        Some(end) => timeout_at(end, work).await,
        None => Ok(work.await),
    }
}

/// Whether the agent is there and says no to the question itself: asking again changes nothing. A broken connection
/// has other codes.
fn is_an_answer(error: &ClientError) -> bool {
    use tonic::Code::{InvalidArgument, PermissionDenied, Unimplemented};
    matches!(error, ClientError::Answer { code: InvalidArgument | PermissionDenied | Unimplemented, .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        for text in ["", "90", "-5s", "0s", "soon"] {
            assert!(duration(text).is_err_and(|error| error.contains("10m")), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_never_comes_is_given_up_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let args = |timeout| WaitArgs {
            ids: vec!["a".parse().unwrap()],
            fetch: false,
            timeout,
            agent_timeout: Duration::from_secs(30),
            socket: SocketFlags { socket: dir.path().join("none.sock") },
        };
        for (timeout, least, most) in [(None, 28, 30), (Some(Duration::from_secs(10)), 8, 10)] {
            let start = Instant::now();
            let mut out = Vec::new();
            assert_eq!(wait(&args(timeout), &mut out).await, Exit::Unreachable);
            let took = start.elapsed().as_secs();
            assert!((least..=most).contains(&took), "{took} s");
            let out = String::from_utf8(out).unwrap();
            assert_eq!(out.lines().count(), 2, "{out}");
            assert!(out.contains("is the agent running?"), "{out}");
        }
    }
}
