use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use http::header::AUTHORIZATION;
use http::{HeaderValue, Request};

/// A token that somebody else (kubelet, a program of the user) writes to a file, and again before it expires. It's read
/// for each request: they are few, the file is small, and a token refused with a 401 is replaced by the next try.
#[derive(Clone)]
pub(super) struct TokenFile {
    path: PathBuf,
    /// What the file held when it last could be read: it's away for a moment while it's replaced.
    last: Arc<Mutex<HeaderValue>>,
}

impl TokenFile {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_path_buf(), last: Arc::new(Mutex::new(read(path)?)) })
    }

    pub(super) fn add_to<B>(&self, mut request: Request<B>) -> Request<B> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(now) = read(&self.path) {
            *last = now;
        }
        request.headers_mut().insert(AUTHORIZATION, last.clone());
        request
    }
}

fn read(path: &Path) -> io::Result<HeaderValue> {
    let text = std::fs::read_to_string(path)?;
    let token = text.trim();
    if token.is_empty() {
        return Err(io::Error::other("it is empty"));
    }
    let value = HeaderValue::try_from(format!("Bearer {token}"));
    let mut value = value.map_err(|_| io::Error::other("it holds something else than a token"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(token: &TokenFile) -> String {
        let request = token.add_to(Request::new(()));
        request.headers()[AUTHORIZATION].to_str().unwrap().to_owned()
    }

    #[test]
    fn a_rewritten_token_is_used_at_once_and_the_last_one_outlives_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "first\n").unwrap();
        let token = TokenFile::open(&path).unwrap();
        assert_eq!(sent(&token), "Bearer first");
        std::fs::write(&path, "second").unwrap();
        assert_eq!(sent(&token), "Bearer second");
        for damage in ["", "a\nb"] {
            std::fs::write(&path, damage).unwrap();
            assert_eq!(sent(&token), "Bearer second", "{damage:?}");
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(sent(&token), "Bearer second");
        assert!(TokenFile::open(&path).is_err());
    }
}
