use std::os::fd::OwnedFd;

use super::stream::Stream;
use super::tree::Tree;
use super::{Limits, TarSink, UnpackError, Unpacked};

/// Unpacks one layer into one directory.
#[derive(Debug)]
pub(crate) struct Unpacker {
    stream: Stream,
    tree: Tree,
}

impl Unpacker {
    /// Into `root`, an empty directory, for a layer with others below it.
    ///
    /// # Errors
    /// When the kernel, or a seccomp profile, has no openat2.
    pub(crate) fn new(root: OwnedFd, limits: Limits) -> Result<Self, UnpackError> {
        Self::with(root, limits, false)
    }

    /// The same for an image's lowest layer. There containerd writes no whiteouts, which nothing could be below: what
    /// they name is removed from the layer itself.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(crate) fn lowest(root: OwnedFd, limits: Limits) -> Result<Self, UnpackError> {
        Self::with(root, limits, true)
    }

    fn with(root: OwnedFd, limits: Limits, lowest: bool) -> Result<Self, UnpackError> {
        let tree = Tree::new(root, limits, lowest).map_err(|trouble| trouble.at(b"/"))?;
        Ok(Self { stream: Stream::new(limits.entries), tree })
    }
}

impl TarSink for Unpacker {
    fn feed(&mut self, block: &[u8]) -> Result<(), UnpackError> {
        self.stream.feed(block, &mut self.tree).map_err(|trouble| trouble.at(self.stream.name()))
    }

    fn finish(&mut self) -> Result<Unpacked, UnpackError> {
        self.stream.finish().map_err(|trouble| trouble.at(self.stream.name()))?;
        let implied = self.tree.finish().map_err(|(path, trouble)| trouble.at(&path))?;
        Ok(Unpacked { implied, entries: self.stream.entries(), bytes: self.tree.bytes() })
    }
}
