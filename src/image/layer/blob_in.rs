use std::time::Duration;

use super::LayerError;
use super::hashing::{Hashing, Mismatch};
use crate::image::early_file::EarlyFile;
use crate::types::Digest;

/// The compressed bytes as they come: hashed, and kept where they are wanted.
#[derive(Debug)]
pub(super) struct BlobIn {
    hashing: Hashing,
    copy: Option<EarlyFile>,
    taken: u64,
}

impl BlobIn {
    pub(super) fn new(blob: Digest, copy: Option<EarlyFile>) -> Self {
        Self { hashing: Hashing::new(blob), copy, taken: 0 }
    }

    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(), LayerError> {
        self.hashing.update(bytes);
        if let Some(copy) = &mut self.copy {
            copy.write(self.taken, bytes).map_err(|cause| LayerError::Keep { cause })?;
        }
        self.taken += bytes.len() as u64;
        Ok(())
    }

    /// How long the hashing took; it says that the digest is right.
    pub(super) fn finish(self) -> Result<Duration, LayerError> {
        if let Some(copy) = self.copy {
            copy.finish();
        }
        self.hashing.finish().map_err(|Mismatch { wanted, found }| LayerError::BlobDigest { wanted, found })
    }
}
