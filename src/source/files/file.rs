use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, stream};

use super::beneath::{Kind, Root, Seen};
use super::{ORIGIN, Reads};
use crate::source::{RangeBody, RangeSource, SourceError};
use crate::types::{ByteRange, ErrorKind};

/// Bytes of one read.
const PIECE: u64 = 1 << 20;

/// One file, at the version that was seen. It's opened anew for each range: a share tells changes then, and a set of
/// many files doesn't keep as many open.
#[derive(Clone)]
pub(super) struct LocalFile {
    reads: Reads,
    root: PathBuf,
    below: PathBuf,
    seen: Seen,
}

impl std::fmt::Debug for LocalFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LocalFile").field(&self.shown()).finish()
    }
}

impl LocalFile {
    pub(super) fn new(reads: Reads, root: PathBuf, below: PathBuf, seen: Seen) -> Self {
        Self { reads, root, below, seen }
    }

    fn shown(&self) -> String {
        self.root.join(&self.below).display().to_string()
    }

    fn changed(&self) -> SourceError {
        SourceError::Changed { what: self.shown() }
    }

    /// The file, if it's still the one that was seen.
    fn open(&self) -> Result<File, SourceError> {
        let (file, kind) = Root::open(&self.root)?.file(&self.below).map_err(|error| match error.kind() {
            ErrorKind::NotFound => self.changed(),
            _ => error,
        })?;
        if kind == Kind::File(self.seen) { Ok(file) } else { Err(self.changed()) }
    }

    /// Reads what it can of a range, and looks at the version only then: what was read before a change is right, and
    /// what was read after one is thrown away.
    fn read(&self, file: &File, range: ByteRange) -> Result<Bytes, SourceError> {
        let failed = |cause: std::io::Error| SourceError::File { doing: "read", path: self.shown(), cause };
        let mut bytes = vec![0; usize::try_from(range.len().min(PIECE)).unwrap_or_default()];
        let count = file.read_at(&mut bytes, range.start()).map_err(failed)?;
        let stat = rustix::fs::fstat(file).map_err(|cause| failed(cause.into()))?;
        if count == 0 || Seen::of(&stat) != self.seen {
            return Err(self.changed());
        }
        bytes.truncate(count);
        Ok(bytes.into())
    }

    async fn fetch(&self, range: ByteRange) -> Result<RangeBody, SourceError> {
        let this = Arc::new(self.clone());
        let opening = Arc::clone(&this);
        let file = self.reads.blocking(self.reads.first_byte, move || opening.open()).await?;
        let file = Arc::new(file);
        let pieces = stream::unfold(Some(range), move |rest| {
            let (this, file) = (Arc::clone(&this), Arc::clone(&file));
            async move {
                let rest = rest?;
                let reading = Arc::clone(&this);
                let read = this.reads.blocking(this.reads.stall, move || reading.read(&file, rest)).await;
                let next = read.as_ref().ok().and_then(|bytes| rest.after(bytes.len() as u64));
                Some((read, next))
            }
        });
        Ok(RangeBody { bytes: pieces.boxed() })
    }
}

impl RangeSource for LocalFile {
    fn get(&self, range: ByteRange) -> BoxFuture<'_, Result<RangeBody, SourceError>> {
        self.fetch(range).boxed()
    }

    fn origin(&self) -> &str {
        ORIGIN
    }
}
