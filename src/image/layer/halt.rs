use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use super::LayerError;

/// What the stages of one layer stop by: the first error of any of them, or being told to.
#[derive(Debug, Clone)]
pub(super) struct Halt {
    token: CancellationToken,
    first: Arc<Mutex<Option<LayerError>>>,
}

impl Halt {
    /// Stops when `stop` does, too.
    pub(super) fn below(stop: &CancellationToken) -> Self {
        Self { token: stop.child_token(), first: Arc::default() }
    }

    /// Stops everything. The first error is the one that is told; having been stopped isn't one.
    pub(super) fn fail(&self, error: LayerError) {
        if !matches!(error, LayerError::Stopped) {
            self.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
        self.token.cancel();
    }

    /// # Errors
    /// [`LayerError::Stopped`] where it's over.
    pub(super) fn check(&self) -> Result<(), LayerError> {
        if self.token.is_cancelled() { Err(LayerError::Stopped) } else { Ok(()) }
    }

    pub(super) fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// What went wrong first. To be asked when all stages have ended: one that misses another's bytes doesn't know why.
    pub(super) fn error(&self) -> Option<LayerError> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
