use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::{SourceConfig, SourceError};
use crate::types::Secret;

/// The values of one named set of credentials: file names and what is in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) name: String,
    values: BTreeMap<String, Secret<String>>,
}

/// A secret is a few hundred bytes; a key file of a cloud some thousand.
const LONGEST: u64 = 64 << 10;
const MOST: usize = 64;

impl Credentials {
    /// Reads `<credentials_dir>/NAME/*`, now: whoever rotates a Secret needs no restart.
    pub(super) async fn read(config: &SourceConfig, name: &str) -> Result<Self, SourceError> {
        let failed = |problem: String| SourceError::Credentials { name: name.to_owned(), problem };
        let is_one_part = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
        if !is_one_part {
            return Err(failed("not the name of a directory".to_owned()));
        }
        let Some(dir) = &config.credentials_dir else {
            return Err(failed(
                "the agent has no --credentials-dir; mount the Secret and name its parent".to_owned(),
            ));
        };
        let dir = dir.join(name);
        let read = tokio::task::spawn_blocking(move || read_dir(&dir)).await;
        match read.map_err(io::Error::other).flatten() {
            Ok(values) if values.is_empty() => Err(failed("its directory is empty".to_owned())),
            Ok(values) => Ok(Self { name: name.to_owned(), values }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(failed(
                "there is no such directory under --credentials-dir; is the Secret mounted?".to_owned(),
            )),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// The value in the file `key`, without the newline that editors leave.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(|value| value.reveal().as_str())
    }

    /// All files and their values.
    pub(super) fn all(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.values.iter().map(|(key, value)| (key.clone(), value.reveal().clone()))
    }

    /// The value in the file `key`, or an error that says which is missing.
    pub(super) fn need(&self, key: &str) -> Result<&str, SourceError> {
        self.get(key).ok_or_else(|| self.failed(&format!("it has no file {key}")))
    }

    pub(super) fn failed(&self, problem: &str) -> SourceError {
        SourceError::Credentials { name: self.name.clone(), problem: problem.to_owned() }
    }
}

/// A mounted Secret holds links to files, and hidden names (`..data`) that are not values.
fn read_dir(dir: &Path) -> io::Result<BTreeMap<String, Secret<String>>> {
    let mut values = BTreeMap::new();
    for entry in std::fs::read_dir(dir)?.take(MOST) {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with('.') {
            continue;
        }
        let meta = std::fs::metadata(entry.path())?;
        if !meta.is_file() || meta.len() > LONGEST {
            continue;
        }
        let text = std::fs::read_to_string(entry.path())
            .map_err(|error| io::Error::new(error.kind(), format!("{name} can't be read: {error}")))?;
        values.insert(name, Secret::new(text.trim_end_matches(['\n', '\r']).to_owned()));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(dir: &Path, name: &str) -> Result<Credentials, SourceError> {
        let config = SourceConfig { credentials_dir: Some(dir.to_owned()), ..SourceConfig::default() };
        Credentials::read(&config, name).await
    }

    #[tokio::test]
    async fn a_mounted_secret_is_read_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let mount = dir.path().join("s3");
        std::fs::create_dir_all(mount.join("..2026")).unwrap();
        std::fs::write(mount.join("..2026/token"), "hunter2\n").unwrap();
        std::os::unix::fs::symlink("..2026", mount.join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/token", mount.join("token")).unwrap();
        let credentials = read(dir.path(), "s3").await.unwrap();
        assert_eq!(credentials.get("token"), Some("hunter2"));
        assert!(!format!("{credentials:?}").contains("hunter2"));
        assert!(credentials.need("password").unwrap_err().to_string().contains("password"));
    }

    #[tokio::test]
    async fn what_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("empty")).unwrap();
        for name in ["missing", "empty", "..", "a/b", "", ".hidden"] {
            let error = read(dir.path(), name).await.unwrap_err();
            assert_eq!(error.kind(), crate::types::ErrorKind::Denied);
            assert!(error.to_string().contains(&format!("{name:?}")), "{error}");
        }
        let none = Credentials::read(&SourceConfig::default(), "x").await.unwrap_err();
        assert!(none.to_string().contains("--credentials-dir"));
    }
}
