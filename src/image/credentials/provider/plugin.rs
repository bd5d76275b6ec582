use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use super::ProviderError;
use crate::types::Secret;

/// How long the kubelet waits for a plugin.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Credentials are a few kilobytes.
pub(super) const MOST_OUTPUT: u64 = 1 << 20;

/// How much of the end of a plugin's messages is kept.
const MOST_MESSAGES: usize = 1000;

/// Somebody whom the plugin started, and who outlives it, may hold its pipes for ever.
const GRACE: Duration = Duration::from_secs(1);

/// An update of the plugin may be in the middle of writing it.
const BUSY_RETRIES: u32 = 20;
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// A program that is told a request on its standard input and answers on its standard output.
#[derive(Debug, Clone)]
pub(super) struct Plugin {
    pub(super) program: PathBuf,
    pub(super) args: Vec<String>,
    /// Variables beside our own.
    pub(super) env: Vec<(String, Secret<String>)>,
    pub(super) patience: Duration,
}

impl Plugin {
    /// Runs it and gives what it wrote, if it ended well. When this is dropped, the plugin and whatever it started are
    /// killed.
    pub(super) async fn run(&self, request: &[u8]) -> Result<Vec<u8>, ProviderError> {
        let mut child = self.start().await?;
        // Dropped before the child, so that its process ID is still its own.
        let mut group = Group::of(&child);
        let (mut output, mut messages) = (Vec::new(), Vec::new());
        let stdin = child.stdin.take();
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let status = {
            let talk = async {
                let write = async {
                    if let Some(mut stdin) = stdin {
                        // A plugin need not read what it's asked; what it answers counts.
                        let _ = stdin.write_all(request).await;
                    }
                    Ok(())
                };
                let read = read(stdout, &mut output);
                tokio::try_join!(write, read, read_end(stderr, &mut messages)).map(drop)
            };
            tokio::pin!(talk);
            let run = async {
                let mut talked = false;
                let status = loop {
                    tokio::select! {
                        outcome = &mut talk, if !talked => {
                            outcome?;
                            talked = true;
                        }
                        status = child.wait() => break status.map_err(|cause| ProviderError::Pipe { cause })?,
                    }
                };
                if !talked {
                    // Too late is not an error: the plugin itself has written all that it had to say.
                    if let Ok(outcome) = tokio::time::timeout(GRACE, &mut talk).await {
                        outcome?;
                        talked = true;
                    }
                }
                if talked {
                    group.is_gone();
                }
                Ok(status)
            };
            tokio::time::timeout(self.patience, run).await
        };
        match status {
            Err(_) => Err(ProviderError::TimedOut { after: self.patience, says: says(&messages) }),
            Ok(Err(error)) => Err(error),
            Ok(Ok(status)) if status.success() => Ok(output),
            Ok(Ok(status)) => {
                Err(ProviderError::Failed { status: status.to_string(), says: says(&messages) })
            }
        }
    }

    async fn start(&self) -> Result<Child, ProviderError> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value.reveal())))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut retries = BUSY_RETRIES;
        loop {
            match command.spawn() {
                Ok(child) => return Ok(child),
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && retries > 0 => {
                    retries -= 1;
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                Err(cause) => return Err(ProviderError::Start { program: self.program.clone(), cause }),
            }
        }
    }
}

/// The processes of a plugin. They are killed when this is dropped.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    /// All of it has ended: the number may be somebody else's soon.
    fn is_gone(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // An error is that nobody is left.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Reads all of `pipe`, unless that is too much.
async fn read(pipe: Option<impl AsyncRead + Unpin>, output: &mut Vec<u8>) -> Result<(), ProviderError> {
    let Some(pipe) = pipe else { return Ok(()) };
    let read = pipe.take(MOST_OUTPUT + 1).read_to_end(output).await;
    read.map_err(|cause| ProviderError::Pipe { cause })?;
    if output.len() as u64 > MOST_OUTPUT {
        return Err(ProviderError::TooMuch { limit: MOST_OUTPUT });
    }
    Ok(())
}

/// Reads all of `pipe` and keeps its end.
async fn read_end(pipe: Option<impl AsyncRead + Unpin>, messages: &mut Vec<u8>) -> Result<(), ProviderError> {
    let Some(mut pipe) = pipe else { return Ok(()) };
    let mut piece = [0; 4096];
    loop {
        match pipe.read(&mut piece).await {
            Ok(0) => return Ok(()),
            Ok(count) => {
                messages.extend_from_slice(&piece[..count]);
                messages.drain(..messages.len().saturating_sub(MOST_MESSAGES));
            }
            Err(cause) => return Err(ProviderError::Pipe { cause }),
        }
    }
}

/// A plugin's messages as the end of a sentence, on one line.
fn says(messages: &[u8]) -> String {
    let text = String::from_utf8_lossy(messages);
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
    if words.is_empty() { String::new() } else { format!(": {}", words.join(" ")) }
}
