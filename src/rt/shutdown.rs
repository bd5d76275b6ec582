use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

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

    /// A token that the first signal cancels. The second one ends the process with 128 + its number, as a shell
    /// would report it: the caller asked twice.
    #[must_use]
    pub fn token(mut self) -> CancellationToken {
        let token = CancellationToken::new();
        let stop = token.clone();
        tokio::spawn(async move {
            self.next().await;
            tracing::info!("stopping; a second signal stops at once");
            stop.cancel();
            let number = self.next().await;
            std::process::exit(128 + number);
        });
        token
    }

    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => 15,
            _ = self.interrupt.recv() => 2,
        }
    }
}
