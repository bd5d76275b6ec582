//! `file://`: one file, or all below a directory, on a volume of the node: a slow disk or a share that feeds the cache.
//!
//! Only below the one directory that the agent's owner allows: the kernel itself resolves every path so that neither
//! `..` nor a symbolic link leads out of it. Nothing is ever opened but regular files.

mod beneath;
mod file;
mod walk;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use self::beneath::{Kind, Root};
use self::file::LocalFile;
use self::walk::Walked;
use super::credentials::Credentials;
use super::selection::Selection;
use super::{RemoteFile, SourceConfig, SourceError};
use crate::types::{RelPath, WeightsUri};

/// Reads at once. One that hangs, as those of a lost NFS server do, keeps its thread: this many are lost, and no more.
const READS: usize = 32;

/// The files of the node that may be read.
#[derive(Debug, Clone)]
pub(super) struct Files {
    root: Option<PathBuf>,
    reads: Reads,
}

/// How files are read: on threads that may hang, in a bounded number, with patience.
#[derive(Debug, Clone)]
struct Reads {
    permits: Arc<Semaphore>,
    first_byte: Duration,
    stall: Duration,
}

/// What is said of a silent file system in a server's place.
const ORIGIN: &str = "the volume";

impl Reads {
    /// Does `work` where it may block, and waits no longer than `patience` for it.
    async fn blocking<T: Send + 'static>(
        &self,
        patience: Duration,
        work: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
    ) -> Result<T, SourceError> {
        let done = async {
            let permit = Arc::clone(&self.permits).acquire_owned().await;
            tokio::task::spawn_blocking(move || {
                let _permit = permit;
                work()
            })
            .await
        };
        match tokio::time::timeout(patience, done).await {
            Ok(Ok(done)) => done,
            Ok(Err(died)) => Err(SourceError::Broken { origin: ORIGIN.to_owned(), cause: Box::new(died) }),
            Err(_) => Err(SourceError::Stalled { origin: ORIGIN.to_owned(), after: patience }),
        }
    }
}

impl Files {
    pub(super) fn new(config: &SourceConfig) -> Self {
        let SourceConfig { first_byte, stall, .. } = *config;
        let reads = Reads { permits: Arc::new(Semaphore::new(READS)), first_byte, stall };
        Self { root: config.file_root.clone(), reads }
    }

    /// The files at `path`: all below a directory when it ends in `/`, else one.
    pub(super) async fn files(
        &self,
        path: &str,
        credentials: Option<&Credentials>,
        selection: &Selection<'_>,
    ) -> Result<Vec<RemoteFile>, SourceError> {
        let invalid = |problem: &str| SourceError::Invalid {
            what: WeightsUri::File(path.to_owned()).to_string(),
            problem: problem.to_owned(),
        };
        if let Some(credentials) = credentials {
            return Err(credentials.failed("file:// asks nobody; leave them out"));
        }
        let root = self.root.clone().ok_or_else(|| {
            invalid("this agent reads no file:// weights; give it a --file-root, and mount the volume there")
        })?;
        let below = Path::new(path).strip_prefix(&root).map(Path::to_owned);
        let below = below.map_err(|_| invalid("it's not below --file-root"))?;
        let is_directory = path.ends_with('/');
        let found = self.find(root.clone(), below.clone(), is_directory).await?;
        let Walked { files, unfit } = found;
        selection.check_names(files.iter().map(|(path, _)| path))?;
        if let Some((path, problem)) = unfit.into_iter().find(|(path, _)| selection.wants(path)) {
            return Err(invalid(&format!("{path} {problem}; take it away, or exclude it")));
        }
        let wanted = files.into_iter().filter(|(path, _)| selection.wants(path));
        let remote = |(path, seen): (RelPath, beneath::Seen)| {
            let place = if is_directory { below.join(path.as_path()) } else { below.clone() };
            let (size, version) = (seen.size, Some(seen.version()));
            let bytes = Arc::new(LocalFile::new(self.reads.clone(), root.clone(), place, seen));
            RemoteFile { path, size, version, digest: None, bytes }
        };
        Ok(wanted.map(remote).collect())
    }

    async fn find(&self, root: PathBuf, below: PathBuf, is_directory: bool) -> Result<Walked, SourceError> {
        let work = move || {
            let root = Root::open(&root)?;
            let what = root.shown(&below);
            let invalid =
                |problem: &str| SourceError::Invalid { what: what.clone(), problem: problem.to_owned() };
            match root.look(&below)? {
                Kind::Directory if is_directory => walk::walk(&root, &below),
                Kind::Directory => {
                    Err(invalid("it's a directory; write a / at its end for all that is in it"))
                }
                Kind::File(_) if is_directory => Err(invalid("it's a file; leave out the / at its end")),
                Kind::File(seen) => {
                    let name = below.file_name().and_then(|name| name.to_str());
                    let name = name.and_then(|name| name.parse().ok());
                    let name = name.ok_or_else(|| invalid("its name can't be a file's in the cache"))?;
                    Ok(Walked { files: vec![(name, seen)], unfit: Vec::new() })
                }
                Kind::Special(kind) => Err(invalid(&format!("it is {kind}, and only files are read"))),
            }
        };
        // A large directory on a slow volume takes its time; there is nothing that tells it from a lost one.
        self.reads.blocking(self.reads.first_byte.saturating_mul(6), work).await
    }
}
