use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::cache::Cache;
use super::declared::Declared;
use crate::containerd::Containerd;
use crate::rt::chain;

/// Asks CRI which containers use what is in the cache.
#[derive(Debug, Clone)]
pub struct Users {
    containerd: Containerd,
    host_root: PathBuf,
    /// It has answered, or is there: then it is waited for.
    was_there: Arc<AtomicBool>,
    said: Arc<AtomicBool>,
}

impl Users {
    /// `host_root`: where the host's `/` is for us.
    #[must_use]
    pub fn new(containerd: Containerd, host_root: PathBuf) -> Self {
        Self { containerd, host_root, was_there: Arc::default(), said: Arc::default() }
    }

    /// Who uses what, now. On a node without containerd there are no containers, and processes are all there is; a
    /// containerd that is only away isn't none.
    ///
    /// # Errors
    /// When it can't be told: then nothing may be removed. The text says why, and what to do.
    pub async fn declared(&self, cache: &Arc<Cache>) -> Result<Declared, String> {
        let containers = match self.containerd.container_mounts().await {
            Ok(containers) => containers,
            Err(_) if self.there_is_none() => {
                if !self.said.swap(true, Relaxed) {
                    let socket = self.containerd.address().display();
                    tracing::warn!(%socket, "there is no containerd: only what processes have open counts as used");
                }
                return Ok(Declared::default());
            }
            Err(error) => return Err(format!("nobody can tell which containers use it: {}", chain(&error))),
        };
        self.was_there.store(true, Relaxed);
        let (cache, host_root) = (Arc::clone(cache), self.host_root.clone());
        let declared = tokio::task::spawn_blocking(move || cache.declared(&containers, &host_root)).await;
        declared.map_err(|error| error.to_string())?.map_err(|error| chain(&error))
    }

    /// A socket that a daemon left behind, and one that answered before, say that there is one.
    fn there_is_none(&self) -> bool {
        let socket = self.containerd.address();
        // While it is stopped its containers go on, and it keeps their bundles beside its socket.
        let bundles = socket.with_file_name("io.containerd.runtime.v2.task").join("k8s.io");
        let has_containers = std::fs::read_dir(bundles).is_ok_and(|mut bundles| bundles.next().is_some());
        !self.was_there.load(Relaxed) && !has_containers && matches!(socket.try_exists(), Ok(false))
    }
}
