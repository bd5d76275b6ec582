use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, stream};

use crate::containerd::{BlobReader, Containerd, ContainerdError};
use crate::source::{RangeBody, RangeSource, SourceError};
use crate::types::{ByteRange, Digest};

const ORIGIN: &str = "containerd";

/// A layer's blob that containerd has already: an image that lost its snapshots, or shares a blob with another.
#[derive(Debug)]
pub(super) struct LocalBlob {
    containerd: Containerd,
    blob: Digest,
}

impl LocalBlob {
    pub(super) fn new(containerd: Containerd, blob: Digest) -> Self {
        Self { containerd, blob }
    }
}

impl RangeSource for LocalBlob {
    fn get(&self, range: ByteRange) -> BoxFuture<'_, Result<RangeBody, SourceError>> {
        async move {
            let found = self.containerd.read_range(self.blob, range.start(), range.len()).await;
            let Some(reader) = found.map_err(broken)? else {
                let what = format!("the blob {} in containerd", self.blob);
                return Err(SourceError::Changed { what });
            };
            let pieces = stream::unfold(Some(reader), |reader| async move {
                let mut reader: BlobReader = reader?;
                match reader.next().await {
                    Ok(piece) => piece.map(|bytes| (Ok(bytes.into()), Some(reader))),
                    Err(error) => Some((Err(broken(error)), None)),
                }
            });
            Ok(RangeBody { bytes: pieces.boxed() })
        }
        .boxed()
    }

    fn origin(&self) -> &str {
        ORIGIN
    }
}

fn broken(error: ContainerdError) -> SourceError {
    SourceError::Broken { origin: ORIGIN.to_owned(), cause: Box::new(error) }
}
