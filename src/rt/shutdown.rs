use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// As in the table of exit codes.
const INTERRUPTED: i32 = 130;

/// SIGTERM and SIGINT as one request to stop. The first asks; a second means now.
#[derive(Debug)]
pub struct Shutdown {
    terminate: Signal,
    interrupt: Signal,
}

impl Shutdown {
    /// Takes over both signals.
    ///
    /// # Errors
    /// When the runtime can't install a handler.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// A token that the first signal cancels. The second one ends the process at once, with the
    /// exit code of an interrupted command: the caller asked twice.
    #[must_use]
    pub fn token(mut self) -> CancellationToken {
        let token = CancellationToken::new();
        let stop = token.clone();
        tokio::spawn(async move {
            self.next().await;
            tracing::info!("stopping; a second signal stops at once");
            stop.cancel();
            self.next().await;
            std::process::exit(INTERRUPTED);
        });
        token
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
