//! `stoker status`: what this node has, does, and why not.

mod view;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::time::Instant;

use super::client::{Client, ClientError, DEFAULT_SOCKET};
use super::document::Status;
use super::terminal::{Look, unless_closed};
use super::tracker::{Tracker, items};
use crate::rt::{Attempts, RetryPolicy, chain};
use crate::types::ErrorKind;

/// Show what this node has, what it is doing, and why something is not warm
///
/// Asks the agent of this node over its socket. --json prints one document whose fields stay: version, boot_id,
/// ready, settled, done, gpu, list, ready_by, labels, unconfirmed_labels, and entries with id, kind, required, state,
/// reason, bytes_done, bytes_total, revision, source, verified, requested.
#[derive(Debug, Clone, clap::Args)]
pub struct StatusArgs {
    /// The agent's socket
    #[arg(long, env = "STOKER_SOCKET", value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,

    /// Print JSON; with --watch, one object a line
    #[arg(long)]
    pub json: bool,

    /// Go on: redraw on a terminal, print a line per change elsewhere
    #[arg(long, short)]
    pub watch: bool,
}

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// Nobody answers, or not as an agent does.
    #[error(transparent)]
    Agent(#[from] ClientError),
    /// It can't be printed. A closed pipe isn't that.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
}

/// Prints to standard output. With `--watch` it goes on until its reader is gone; an agent that restarts is waited
/// for.
///
/// # Errors
/// When the agent can't be reached (with `--watch`: at the start), or standard output fails.
pub async fn run(args: &StatusArgs) -> Result<(), StatusError> {
    print(args, || Look::of(&io::stdout()), &mut io::stdout()).await
}

/// [`run`] on any output. `look` is asked again for each screen: terminals change their size.
///
/// # Errors
/// As [`run`].
pub async fn print(
    args: &StatusArgs,
    look: impl Fn() -> Look,
    out: &mut impl Write,
) -> Result<(), StatusError> {
    let mut client = Client::connect(&args.socket).await?;
    if args.watch {
        return watch(args, client, look, out).await;
    }
    let status = client.status().await?;
    let text = if args.json { json(&status, true)? } else { view::render(&status, look()) };
    unless_closed(write(out, &text)).map_err(StatusError::Output)?;
    Ok(())
}

async fn watch(
    args: &StatusArgs,
    mut client: Client,
    look: impl Fn() -> Look,
    out: &mut impl Write,
) -> Result<(), StatusError> {
    let mut printer = Printer::new(args.json, look().height.is_some());
    let mut attempts = Attempts::new(RetryPolicy::RECONNECT);
    loop {
        let mut lost: Option<ClientError> = None;
        match client.watch().await {
            Ok(mut states) => {
                while let Some(state) = states.next().await {
                    match state {
                        Ok(status) => {
                            attempts.succeeded();
                            let text = printer.text(&status, &look, Instant::now())?;
                            if !unless_closed(write(out, &text)).map_err(StatusError::Output)? {
                                return Ok(());
                            }
                        }
                        Err(error) => lost = Some(error),
                    }
                }
            }
            Err(error) => lost = Some(error),
        }
        let why = lost.map_or_else(|| "it stopped".to_owned(), |error| chain(&error));
        client = loop {
            let pause = attempts.failed_with(ErrorKind::Transient, fastrand::f64()).unwrap_or(LONG_PAUSE);
            if attempts.failed() == 1 {
                // Standard output belongs to the states.
                let _ = writeln!(io::stderr(), "the agent is gone ({why}); waiting for it to come back");
            }
            tokio::time::sleep(pause).await;
            if let Ok(client) = Client::connect(&args.socket).await {
                break client;
            }
        };
    }
}

/// The policy has no end; this is only what it would be if it had one.
const LONG_PAUSE: Duration = RetryPolicy::RECONNECT.longest;

/// How a series of states is written.
enum Printer {
    /// The screen, again and again.
    Screen,
    /// One document a line, when it's another than the last.
    Json { last: String },
    /// One line a change, and one now and then for each job.
    Lines { tracker: Tracker, told: Option<Instant> },
}

/// How often a log is told how far a job is.
const LINE: Duration = Duration::from_secs(3);

impl Printer {
    fn new(json: bool, terminal: bool) -> Self {
        match (json, terminal) {
            (true, _) => Self::Json { last: String::new() },
            (false, true) => Self::Screen,
            (false, false) => Self::Lines { tracker: Tracker::default(), told: None },
        }
    }

    fn text(
        &mut self,
        status: &Status,
        look: impl Fn() -> Look,
        now: Instant,
    ) -> Result<String, StatusError> {
        match self {
            Self::Screen => {
                let look = look();
                Ok(view::redraw(&view::render(status, look), look))
            }
            Self::Json { last } => {
                let line = json(status, false)?;
                if line == *last {
                    return Ok(String::new());
                }
                last.clone_from(&line);
                Ok(line)
            }
            Self::Lines { tracker, told } => {
                let sight = tracker.look(now, &items(status));
                let mut lines = sight.changes;
                if told.is_none_or(|told| now.duration_since(told) >= LINE) {
                    *told = Some(now);
                    lines.extend(sight.moving.iter().map(|job| format!("{}: {}", job.name, job.numbers())));
                }
                Ok(lines.iter().map(|line| format!("{line}\n")).collect())
            }
        }
    }
}

fn json(status: &Status, pretty: bool) -> Result<String, StatusError> {
    let text = if pretty { serde_json::to_string_pretty(status) } else { serde_json::to_string(status) };
    Ok(text.map_err(|error| StatusError::Output(error.into()))? + "\n")
}

fn write(out: &mut impl Write, text: &str) -> io::Result<()> {
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::document::tests::sample;
    use crate::node::EntryState;

    #[test]
    fn json_lines_are_whole_documents_and_only_new_ones() {
        let mut printer = Printer::new(true, false);
        let now = Instant::now();
        let first = printer.text(&sample(), Look::default, now).unwrap();
        assert_eq!(first.matches('\n').count(), 1);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&first).unwrap()["entries"][0]["id"], "vllm");
        assert_eq!(printer.text(&sample(), Look::default, now).unwrap(), "");
        let mut next = sample();
        next.ready = true;
        assert_ne!(printer.text(&next, Look::default, now).unwrap(), "");
    }

    #[test]
    fn text_lines_tell_changes_at_once_and_bytes_every_three_seconds() {
        let mut printer = Printer::new(false, false);
        let start = Instant::now();
        let mut status = sample();
        let first = printer.text(&status, Look::default, start).unwrap();
        assert!(first.contains("llama-70b: 1.2 of 4.0 GiB (30%)\n"), "{first}");
        status.entries[1].bytes_done += 300_000_000;
        assert_eq!(printer.text(&status, Look::default, start + Duration::from_secs(1)).unwrap(), "");
        status.entries[1].bytes_done += 600_000_000;
        let moved = printer.text(&status, Look::default, start + LINE).unwrap();
        assert_eq!(moved, "llama-70b: 2.0 of 4.0 GiB (50%), 300 MB/s, 8 s left\n");
        status.entries[1].state = Some(EntryState::Failed);
        status.entries[1].bytes_done = 0;
        status.entries[1].bytes_total = 0;
        let failed = printer.text(&status, Look::default, start + LINE).unwrap();
        assert_eq!(failed, "llama-70b: Failed (after 3 s)\n");
    }

    #[test]
    fn the_arguments_are_as_documented() {
        #[derive(clap::Parser)]
        struct Command {
            #[command(flatten)]
            args: StatusArgs,
        }
        let parse =
            |words: &[&str]| <Command as clap::Parser>::try_parse_from(words).map(|command| command.args);
        let args = parse(&["status", "--socket", "/tmp/s", "--json", "-w"]).unwrap();
        assert_eq!((args.socket.to_str(), args.json, args.watch), (Some("/tmp/s"), true, true));
        let help = parse(&["status", "--help"]).unwrap_err().to_string();
        assert!(help.contains("STOKER_SOCKET") && help.contains(DEFAULT_SOCKET), "{help}");
    }
}
