//! Blobs straight into the storage directory of the distribution project's registry: faster than a push, and the next
//! run finds them there (distribution's `registry/storage/paths.go` tells where each thing lies).

use std::path::{Path, PathBuf};

use stoker::types::Digest;

/// The directory that a registry has as its `rootdirectory`.
pub(crate) struct Store<'a> {
    directory: &'a Path,
}

impl<'a> Store<'a> {
    /// One in `directory`.
    pub(crate) fn at(directory: &'a Path) -> Self {
        Self { directory }
    }

    /// Where a blob's bytes are.
    pub(crate) fn blob(&self, digest: Digest) -> PathBuf {
        let hex = digest.hex();
        self.root().join("blobs/sha256").join(&hex[..2]).join(&hex).join("data")
    }

    /// Takes a finished file in as the blob that it is; it is moved.
    pub(crate) fn take(&self, file: &Path, digest: Digest) {
        let place = self.blob(digest);
        make_parent(&place);
        std::fs::rename(file, &place).unwrap_or_else(|error| panic!("{}: {error}", place.display()));
    }

    /// Writes a small blob.
    pub(crate) fn put(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        write(&self.blob(digest), bytes);
        digest
    }

    /// Has a repository own a blob: the registry serves no other.
    pub(crate) fn link_blob(&self, repository: &str, digest: Digest) {
        self.link(&format!("{repository}/_layers/sha256/{}", digest.hex()), digest);
    }

    /// Has a repository own a manifest, by its digest and by a tag.
    pub(crate) fn link_manifest(&self, repository: &str, tag: &str, digest: Digest) {
        let manifests = format!("{repository}/_manifests");
        self.link(&format!("{manifests}/revisions/sha256/{}", digest.hex()), digest);
        self.link(&format!("{manifests}/tags/{tag}/index/sha256/{}", digest.hex()), digest);
        self.link(&format!("{manifests}/tags/{tag}/current"), digest);
    }

    fn link(&self, below: &str, digest: Digest) {
        write(&self.root().join("repositories").join(below).join("link"), digest.to_string().as_bytes());
    }

    fn root(&self) -> PathBuf {
        self.directory.join("docker/registry/v2")
    }
}

fn write(place: &Path, bytes: &[u8]) {
    make_parent(place);
    std::fs::write(place, bytes).unwrap_or_else(|error| panic!("{}: {error}", place.display()));
}

fn make_parent(place: &Path) {
    let parent = place.parent().expect("it lies in a directory");
    std::fs::create_dir_all(parent).unwrap_or_else(|error| panic!("{}: {error}", parent.display()));
}
