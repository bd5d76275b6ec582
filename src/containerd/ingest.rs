//! The file in which containerd has the bytes of a blob that is being written, for those who can write there themselves.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::client::NAMESPACE;
use super::content_write::{COMMIT_DEADLINE, reference};
use super::{BlobWriter, ContainerdError};

impl BlobWriter {
    /// Opens the file in which containerd has the bytes, and empties it; `None` where it isn't to be seen from here. `root`
    /// is the directory of its content store. What is written there counts by [`Self::commit_file`]: it takes
    /// containerd a fifth of the processor time that the same bytes take over its socket.
    ///
    /// # Errors
    /// When something of it can't be read or opened.
    pub async fn file(&self, root: &Path) -> io::Result<Option<File>> {
        let (root, reference) = (root.to_owned(), reference(self.blob.digest));
        let open = move || match data_file(&root, NAMESPACE, &reference)? {
            Some(path) => OpenOptions::new().write(true).truncate(true).open(path).map(Some),
            None => Ok(None),
        };
        tokio::task::spawn_blocking(open).await.map_err(io::Error::other)?
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
        // It reads the file when the blob is opened again (`resumeStatus`).
        let Some(again) = containerd.open_blob(&lease, &blob, COMMIT_DEADLINE).await? else {
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
