//! The file in which containerd has the bytes of a blob that is being written, for those who can write there themselves.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::client::{NAMESPACE, WRITE_DEADLINE};
use super::content_write::{COMMIT_DEADLINE, reference};
use super::{BlobWriter, Containerd, ContainerdError, Lease};
use crate::rt::chain;
use crate::types::{Descriptor, Digest};

/// Where the bytes of a half-written blob are, and where they are to be.
#[derive(Debug)]
pub(super) struct IngestFile {
    data: PathBuf,
    blob: PathBuf,
}

impl BlobWriter {
    /// Opens the file in which containerd has the bytes, and empties it; `None` where it isn't to be seen from here. `root`
    /// is the directory of its content store. What is written there counts by [`Self::commit_file`] or
    /// [`Self::adopt_file`]: over its socket the same bytes take containerd five times the processor time, or more.
    ///
    /// # Errors
    /// When something of it can't be read or opened.
    pub async fn file(&mut self, root: &Path) -> io::Result<Option<File>> {
        let (root, reference, digest) = (root.to_owned(), self.reference.clone(), self.blob.digest);
        let open = move || -> io::Result<_> {
            let Some(data) = data_file(&root, NAMESPACE, &reference)? else { return Ok(None) };
            let file = OpenOptions::new().write(true).open(&data)?;
            if file.metadata()?.nlink() != 1 {
                // It was put into its place already.
                return Ok(None);
            }
            file.set_len(0)?;
            let blob = blob_file(&root, digest);
            Ok(Some((file, IngestFile { data, blob })))
        };
        let opened = tokio::task::spawn_blocking(open).await.map_err(io::Error::other)??;
        Ok(opened.map(|(file, at)| {
            self.file = Some(at);
            file
        }))
    }

    /// Has containerd take over its file as it stands by now: all of it, and with the blob's digest, for which whoever calls
    /// answers. containerd looks at its size only, and so reads nothing. Where it doesn't take it, this is
    /// [`Self::commit_file`].
    ///
    /// A blob that is in its store's directory is given to whoever names its digest, as one that another of its
    /// namespaces has (`content_sharing_policy`, "shared" by default); where it's "isolated", it isn't.
    ///
    /// # Errors
    /// Those of [`Self::commit_file`].
    pub async fn adopt_file(mut self, labels: &BTreeMap<String, String>) -> Result<(), ContainerdError> {
        let Some(file) = self.file.take() else { return self.commit_file(labels).await };
        let (containerd, lease) = (self.containerd.clone(), self.lease.clone());
        let (what, blob) = (self.what.clone(), self.blob.clone());
        self.let_go().await;
        let placed = tokio::task::spawn_blocking(move || file.place().map(|()| file)).await;
        match placed.unwrap_or_else(|ended| Err(io::Error::other(ended))) {
            Ok(_) if containerd.take_whole(&lease, &blob, labels).await? => return Ok(()),
            // Nobody's, it would only be in the way.
            Ok(file) => drop(tokio::task::spawn_blocking(move || file.withdraw()).await),
            Err(error) => {
                tracing::debug!(blob = %blob.digest, error = chain(&error), "containerd is to read it");
            }
        }
        read_again(&containerd, &lease, &blob, what, labels).await
    }

    /// Has containerd read and hash what stands in its file by now, and puts the whole blob in its place as
    /// [`Self::commit`] does.
    ///
    /// # Errors
    /// When a call fails, and when containerd finds another number of bytes than the blob has, or other ones.
    pub async fn commit_file(self, labels: &BTreeMap<String, String>) -> Result<(), ContainerdError> {
        let (containerd, lease) = (self.containerd.clone(), self.lease.clone());
        let (what, blob) = (self.what.clone(), self.blob.clone());
        self.let_go().await;
        read_again(&containerd, &lease, &blob, what, labels).await
    }
}

impl Containerd {
    /// Takes over a blob whose file is in the content store's directory `root`, while nobody of our namespace has it: another
    /// namespace does, or we were killed while we put it there. `false` where there is none, or it isn't given.
    ///
    /// # Errors
    /// When something can't be read, or a call fails.
    pub async fn adopt_blob(
        &self,
        lease: &Lease,
        blob: &Descriptor,
        root: &Path,
        labels: &BTreeMap<String, String>,
    ) -> Result<bool, ContainerdError> {
        let (path, size) = (blob_file(root, blob.digest), blob.size);
        let look = move || fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == size);
        let is_there = tokio::task::spawn_blocking(look).await.unwrap_or_default();
        Ok(is_there && self.take_whole(lease, blob, labels).await?)
    }

    /// Whether containerd takes the file that it finds in its store for the blob.
    async fn take_whole(
        &self,
        lease: &Lease,
        blob: &Descriptor,
        labels: &BTreeMap<String, String>,
    ) -> Result<bool, ContainerdError> {
        // Under another name: what was written so far stays what it is, for the case that it isn't taken.
        let whole = format!("stoker-whole-{}", blob.digest);
        match self.open_blob(lease, blob, whole, WRITE_DEADLINE).await? {
            None => self.label_blob(blob.digest, labels).await?,
            Some(taken) if taken.offset() == blob.size => taken.commit(labels).await?,
            Some(other) => {
                other.abort().await?;
                return Ok(false);
            }
        }
        self.throw_away(blob.digest).await?;
        Ok(true)
    }
}

/// containerd reads the file when the blob is opened again (`resumeStatus`).
async fn read_again(
    containerd: &Containerd,
    lease: &Lease,
    blob: &Descriptor,
    what: String,
    labels: &BTreeMap<String, String>,
) -> Result<(), ContainerdError> {
    let Some(again) = containerd.open_blob(lease, blob, reference(blob.digest), COMMIT_DEADLINE).await?
    else {
        // Somebody else has put it there meanwhile.
        return containerd.label_blob(blob.digest, labels).await;
    };
    if again.offset() != blob.size {
        let problem = format!("it sees {} bytes in its own file, and not {}", again.offset(), blob.size);
        // Merely dropped, it would stay locked until containerd notices.
        again.abort().await?;
        return Err(ContainerdError::Answer { what, problem });
    }
    again.commit(labels).await
}

fn blob_file(root: &Path, blob: Digest) -> PathBuf {
    root.join("blobs/sha256").join(blob.hex())
}

impl IngestFile {
    /// Puts the file, on the disk, where containerd has a blob of its digest, as containerd itself does it: nobody may write
    /// it any more.
    fn place(&self) -> io::Result<()> {
        let file = File::open(&self.data)?;
        let readers = file.metadata()?.permissions().mode() & 0o444;
        file.set_permissions(Permissions::from_mode(readers))?;
        file.sync_all()?;
        let dir = self.blob.parent().ok_or(io::ErrorKind::InvalidInput)?;
        fs::create_dir_all(dir)?;
        fs::hard_link(&self.data, &self.blob)?;
        File::open(dir)?.sync_all()
    }

    /// Takes it away from there, unless it's another's.
    fn withdraw(&self) -> io::Result<()> {
        let (ours, there) = (fs::metadata(&self.data)?, fs::metadata(&self.blob)?);
        if (ours.dev(), ours.ino()) == (there.dev(), there.ino()) {
            fs::remove_file(&self.blob)
        } else {
            Ok(())
        }
    }
}

/// The file that holds the bytes of the half-written blob `reference`, below the content store's directory `root`;
/// `None` where there is none to be seen from here.
///
/// The store has a directory for each (`plugins/content/local`): its own name for the blob in a file `ref`, the bytes in
/// `data`. That name is the namespace, a number and `reference`, with slashes between (`createKey` in `core/metadata`).
fn data_file(root: &Path, namespace: &str, reference: &str) -> io::Result<Option<PathBuf>> {
    let ingests = match std::fs::read_dir(root.join("ingest")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        ingests => ingests?,
    };
    let mut found = None;
    for ingest in ingests {
        let dir = ingest?.path();
        let name = match std::fs::read_to_string(dir.join("ref")) {
            // Its writer is just done with it, or has just begun.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            name => name?,
        };
        if !is_name(&name, namespace, reference) {
            continue;
        }
        // Two of one name: one was left behind, and can't be told from the other.
        if found.replace(dir.join("data")).is_some() {
            return Ok(None);
        }
    }
    Ok(found.filter(|data| data.is_file()))
}

fn is_name(name: &str, namespace: &str, reference: &str) -> bool {
    let mut parts = name.splitn(3, '/');
    let is_first = parts.next() == Some(namespace);
    let is_number = parts.next().is_some_and(|number| number.parse::<u64>().is_ok());
    is_first && is_number && parts.next() == Some(reference)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_found_by_its_name() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path();
        let find = || data_file(root, "k8s.io", "stoker-sha256:ab").unwrap();
        assert_eq!(find(), None);
        let add = |dir: &str, name: &str| {
            let dir = root.join("ingest").join(dir);
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("ref"), name).unwrap();
            std::fs::write(dir.join("data"), "").unwrap();
            dir.join("data")
        };
        add("a", "k8s.io/12/layer-sha256:ab");
        add("b", "moby/12/stoker-sha256:ab");
        std::fs::create_dir_all(root.join("ingest/half")).unwrap();
        assert_eq!(find(), None);
        let ours = add("c", "k8s.io/7/stoker-sha256:ab");
        assert_eq!(find(), Some(ours.clone()));
        std::fs::remove_file(&ours).unwrap();
        assert_eq!(find(), None);
        std::fs::write(ours, "").unwrap();
        add("d", "k8s.io/8/stoker-sha256:ab");
        assert_eq!(find(), None, "which one is it?");
    }
}
