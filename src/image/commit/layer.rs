use std::collections::BTreeMap;
use std::path::PathBuf;

use super::exchange::{Exchange, exchange};
use super::workplace::OURS;
use super::{CommitError, Scratch, Workplace};
use crate::containerd::{Mount, lower_dirs, upper_dir};
use crate::image::unpack::ImpliedDir;
use crate::types::Digest;

/// Tries for a layer that is reported as there and then isn't: somebody else's is just being collected.
const TRIES: usize = 3;

/// An unpacked layer, and where it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitLayer {
    /// The name of its snapshot: the digest over its diff id and those of all layers below.
    pub chain: Digest,
    /// The digest of its tar stream.
    pub diff: Digest,
    /// The chain of the layer below, which is committed and held; `None` for the lowest.
    pub parent: Option<Digest>,
    /// The directories that it uses and doesn't describe.
    pub(crate) implied: Vec<ImpliedDir>,
}

impl CommitLayer {
    /// The layer `diff` on top of `parent`, that is called `chain` with all below it. It uses the directories `implied`,
    /// parents first, without describing them.
    #[must_use]
    pub fn new(
        chain: Digest,
        diff: Digest,
        parent: Option<Digest>,
        implied: impl IntoIterator<Item = PathBuf>,
    ) -> Self {
        Self { chain, diff, parent, implied: implied.into_iter().map(ImpliedDir).collect() }
    }
}

impl Workplace {
    /// Makes of an unpacked layer the committed snapshot of its chain. Its files must be on the disk already: this syncs
    /// only what it changes itself. If somebody else has been faster, theirs stays and ours goes.
    ///
    /// # Errors
    /// When a call or the file system fails. The lease knows then what is left over.
    pub async fn commit(&self, scratch: Scratch, layer: &CommitLayer) -> Result<(), CommitError> {
        let chain = layer.chain;
        let labels = labels(layer);
        let parent = layer.parent.map(|parent| parent.to_string());
        for _ in 0..TRIES {
            // With its target named, the key is refused where that is there already.
            let key = format!("{OURS}layer-{:016x}", fastrand::u64(..));
            match self.prepare(&key, parent.as_deref(), &labels).await {
                Ok(mounts) => return self.fill(scratch, &key, &mounts, layer, &labels).await,
                Err(error) if error.is_already_there() => {}
                Err(error) => return Err(error.into()),
            }
            if self.holds(chain).await? {
                return self.discard(scratch).await;
            }
        }
        Err(CommitError::Vanishing { chain })
    }

    async fn fill(
        &self,
        scratch: Scratch,
        key: &str,
        mounts: &[Mount],
        layer: &CommitLayer,
        labels: &BTreeMap<String, String>,
    ) -> Result<(), CommitError> {
        let name = &self.snapshotter.name;
        let (real, lowers) = (upper_dir(mounts), lower_dirs(mounts));
        let known = |real: &PathBuf| lowers.iter().chain([real]).all(|dir| self.is_snapshot(dir));
        let Some(real) = real.filter(known) else {
            return Err(self.unknown_mounts(mounts));
        };
        let work = Exchange {
            snapshots: self.snapshotter.root.join("snapshots"),
            scratch: scratch.dir.clone(),
            real,
            lowers,
            implied: layer.implied.clone(),
        };
        let placed = tokio::task::spawn_blocking(move || exchange(&work)).await;
        placed
            .unwrap_or_else(|joined| Err(joined.into()))
            .map_err(|cause| CommitError::Place { chain: layer.chain, cause })?;
        let chain = layer.chain.to_string();
        match self.containerd.commit_snapshot(&self.lease, name, &chain, key, labels).await {
            Ok(()) => {}
            Err(error) if error.is_already_there() => {
                self.containerd.remove_snapshot(name, key).await?;
                if !self.holds(layer.chain).await? {
                    return Err(CommitError::Vanishing { chain: layer.chain });
                }
            }
            Err(error) => return Err(error.into()),
        }
        self.discard(scratch).await
    }
}

/// What containerd's own unpacking puts on a layer's snapshot (`core/unpack`).
fn labels(layer: &CommitLayer) -> BTreeMap<String, String> {
    let label = |key: &str, digest: Digest| (key.to_owned(), digest.to_string());
    let parent = layer.parent.map(|parent| label("containerd.io/snapshot/parent-chain-id", parent));
    [label("containerd.io/snapshot.ref", layer.chain), label("containerd.io/snapshot/diff-id", layer.diff)]
        .into_iter()
        .chain(parent)
        .collect()
}
