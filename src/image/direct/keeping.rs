//! A layer's blob on its way into containerd's content store, while the layer is unpacked.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::sync::mpsc;

use super::flights::Flight;
use crate::containerd::BlobWriter;
use crate::fetch::Piece;
use crate::image::ImageError;
use crate::image::commit::Workplace;
use crate::image::early_file::EarlyFile;
use crate::rt::chain;
use crate::types::Descriptor;

/// Whether blobs are written into containerd's own files, and not sent over its socket. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct ByFile(Arc<AtomicBool>);

impl Default for ByFile {
    fn default() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }
}

/// A blob that is being kept.
#[derive(Debug)]
pub(super) struct Keeping {
    writer: BlobWriter,
    file: Option<EarlyFile>,
    by_file: Option<ByFile>,
    flight: Flight,
}

/// A blob whose bytes are all there; it has yet to get its name.
#[derive(Debug)]
pub(super) struct Kept {
    writer: BlobWriter,
    by_file: Option<ByFile>,
    labels: BTreeMap<String, String>,
    /// Until it has its name, nobody else is to bring it.
    _flight: Flight,
}

impl Keeping {
    /// `None`: somebody has put it there just now.
    pub(super) async fn begin(
        work: &Workplace,
        blob: &Descriptor,
        content_root: Option<&Path>,
        by_file: &ByFile,
        flight: Flight,
    ) -> Result<Option<Self>, ImageError> {
        let Some(mut writer) = work.write_blob(blob).await? else { return Ok(None) };
        let file = match content_root {
            Some(root) if by_file.0.load(Relaxed) => writer.file(root).await.unwrap_or_else(|error| {
                tracing::debug!(root = %root.display(), error = chain(&error), "a blob is sent over containerd's socket");
                None
            }),
            _ => None,
        };
        let by_file = file.is_some().then(|| by_file.clone());
        // An earlier try may have left some; none of it was checked.
        writer.rewind();
        Ok(Some(Self { writer, file: file.map(EarlyFile::new), by_file, flight }))
    }

    /// Where the bytes are to be written. Without one, they go by [`Self::pass`].
    pub(super) fn take_file(&mut self) -> Option<EarlyFile> {
        self.file.take()
    }

    pub(super) fn is_by_file(&self) -> bool {
        self.by_file.is_some()
    }

    /// Hands the pieces on, and sends each to containerd too. What a receiver that is gone misses, it has no use for.
    pub(super) async fn pass(
        &mut self,
        mut from: mpsc::Receiver<Piece>,
        to: mpsc::Sender<Piece>,
    ) -> Result<(), ImageError> {
        while let Some(piece) = from.recv().await {
            if to.send(piece.clone()).await.is_err() {
                break;
            }
            self.writer.write(piece.bytes()).await?;
        }
        Ok(())
    }

    /// It isn't to be kept after all. What was written stays half-written, and containerd has closed it when this returns.
    pub(super) async fn let_go(self) {
        self.writer.let_go().await;
    }

    /// All bytes are there.
    pub(super) fn done(self, labels: BTreeMap<String, String>) -> Kept {
        Kept { writer: self.writer, by_file: self.by_file, labels, _flight: self.flight }
    }
}

impl Kept {
    /// Puts the blob in its place, on the disk.
    pub(super) async fn commit(self) -> Result<(), ImageError> {
        let Some(by_file) = self.by_file else { return Ok(self.writer.commit(&self.labels).await?) };
        let committed = self.writer.adopt_file(&self.labels).await;
        if committed.as_ref().is_err_and(|error| !error.is_daemon_away()) {
            // The next try doesn't depend on what containerd makes of its own files.
            by_file.0.store(false, Relaxed);
        }
        Ok(committed?)
    }
}
