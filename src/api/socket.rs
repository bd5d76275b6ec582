//! The unix socket: where it is, who may connect, and whose it is.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// Why the socket can't be had.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum SocketError {
    #[error("another agent answers on {path}; stop it, or give this one its own --socket")]
    Live { path: PathBuf },
    #[error("another agent is starting on {path}; stop it, or give this one its own --socket")]
    Starting { path: PathBuf },
    #[error("{path} is there and is not a socket; remove it, or choose another --socket")]
    NotASocket { path: PathBuf },
    #[error("cannot listen on {path}: {step} failed; choose another --socket")]
    Io {
        path: PathBuf,
        step: &'static str,
        #[source]
        cause: io::Error,
    },
}

/// Listens on a unix socket at `path`. A socket that a dead agent left is replaced, one that is answered never is.
///
/// A missing folder is made, with mode 0755. The socket gets mode 0666: init containers of any user ask there
/// whether their weights are warm, through a hostPath that is mounted read-only, and connecting needs the right to
/// write. All that can be asked for there is what the list names anyway.
///
/// # Errors
/// When another agent has the socket, something else is at `path`, or the file system says no.
pub async fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    let failed = |step| move |cause: io::Error| SocketError::Io { path: path.to_owned(), step, cause };
    make_folder(path).map_err(failed("making its folder"))?;
    // Two agents that start at once must not take each other's fresh socket for a stale one. Looking and binding
    // is done under a lock, in a file that only root can open: a pod that sees the folder can't hold it.
    let lock = open_lock(path).map_err(failed("opening its lock file"))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => {
            return Err(SocketError::Starting { path: path.to_owned() });
        }
        Err(std::fs::TryLockError::Error(cause)) => return Err(failed("locking")(cause)),
    }
    remove_stale(path).await?;
    let listener = UnixListener::bind(path).map_err(failed("binding"))?;
    std::fs::set_permissions(path, Permissions::from_mode(0o666)).map_err(failed("setting its mode"))?;
    drop(lock);
    Ok(listener)
}

fn make_folder(path: &Path) -> io::Result<()> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists())
    else {
        return Ok(()); // somebody's folder keeps its mode: it may be /tmp
    };
    DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    // The umask may have taken bits away.
    std::fs::set_permissions(folder, Permissions::from_mode(0o755))
}

fn open_lock(path: &Path) -> io::Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(name)
}

async fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let failed = |step| move |cause: io::Error| SocketError::Io { path: path.to_owned(), step, cause };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("looking at it")(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(path = %path.display(), "replacing the socket of an agent that is gone");
            std::fs::remove_file(path).map_err(failed("removing the stale one"))
        }
        // A full backlog (EAGAIN) is a live one too.
        Ok(_) => Err(SocketError::Live { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(SocketError::Live { path: path.to_owned() })
        }
        Err(error) => Err(failed("asking whether it is in use")(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[tokio::test]
    async fn folder_and_socket_are_made_for_every_user() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/stoker/stoker.sock");
        let _listener = bind(&path).await.unwrap();
        assert_eq!(mode(path.parent().unwrap()), 0o755);
        assert_eq!(mode(&path), 0o666);
        assert_eq!(mode(&dir.path().join("run/stoker/stoker.sock.lock")), 0o600);
    }

    #[tokio::test]
    async fn a_folder_that_is_there_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o1777)).unwrap();
        let _listener = bind(&dir.path().join("stoker.sock")).await.unwrap();
        assert_eq!(mode(dir.path()), 0o1777);
    }

    #[tokio::test]
    async fn a_dead_agents_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stoker.sock");
        drop(bind(&path).await.unwrap());
        assert!(path.exists(), "the dead leave their socket behind");
        let listener = bind(&path).await.unwrap();
        let (client, server) = tokio::join!(UnixStream::connect(&path), listener.accept());
        assert!(client.is_ok() && server.is_ok());
    }

    #[tokio::test]
    async fn a_live_agents_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stoker.sock");
        let listener = bind(&path).await.unwrap();
        let error = bind(&path).await.unwrap_err();
        assert!(matches!(error, SocketError::Live { .. }), "{error}");
        // The question itself was one connection; the next is ours.
        listener.accept().await.unwrap();
        let (client, server) = tokio::join!(UnixStream::connect(&path), listener.accept());
        assert!(client.is_ok() && server.is_ok());
    }

    #[tokio::test]
    async fn an_agent_that_is_starting_is_not_overtaken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stoker.sock");
        let other = open_lock(&path).unwrap();
        other.lock().unwrap();
        let error = bind(&path).await.unwrap_err();
        assert!(matches!(error, SocketError::Starting { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_file_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stoker.sock");
        std::fs::write(&path, "precious").unwrap();
        let error = bind(&path).await.unwrap_err();
        assert!(matches!(error, SocketError::NotASocket { .. }), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn an_error_names_the_path_and_the_flag() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x".repeat(120));
        let error = bind(&path).await.unwrap_err().to_string();
        assert!(error.contains("xxx") && error.contains("--socket"), "{error}");
    }
}
