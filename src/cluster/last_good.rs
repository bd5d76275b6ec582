//! The last good list in the state directory, so that a restart with a broken or missing document drops nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::list::{AllowList, List, MAX_BYTES, from_json, recheck, to_json};
use crate::rt::chain;

const NAME: &str = "list.json";
const UNFINISHED: &str = "list.json.new";

/// A stored list is larger than its document (defaults are spelt out), and may hold the entries of several.
const MAX_STORED_BYTES: u64 = 32 * MAX_BYTES as u64;

/// What was stored last, as far as `allow` still permits it. `None` if there is nothing, or nothing that can be used:
/// that is warned about, and no reason not to start.
pub(super) fn load(state_dir: &Path, allow: &AllowList) -> Option<List> {
    let path = state_dir.join(NAME);
    let mut text = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(MAX_STORED_BYTES + 1).read_to_end(&mut text));
    match read {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the last good list can't be read and is ignored");
            return None;
        }
    }
    match from_json(&text) {
        Ok(list) => Some(recheck(&list, allow)),
        Err(error) => {
            let error = chain(&error);
            tracing::warn!(path = %path.display(), error, "the last good list can't be used and is ignored");
            None
        }
    }
}

/// Stores the list so that after a crash at any moment either it or the one before it is there, whole. Readable by the
/// agent's user only: a URL in a list may carry a signature.
pub(super) fn store(state_dir: &Path, list: &List) -> io::Result<()> {
    let text = to_json(list)?;
    fs::create_dir_all(state_dir)?;
    let unfinished = state_dir.join(UNFINISHED);
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, state_dir.join(NAME))?;
    File::open(state_dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list::merge;

    fn list() -> List {
        let text =
            "{apiVersion: stoker.dev/v1, kind: PrefetchList, entries: [{id: a, image: nginx}, {id: x y}]}";
        merge(None, text.as_bytes(), &AllowList::default())
    }

    #[test]
    fn what_is_stored_is_loaded_and_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("deep/state");
        let allow = AllowList::default();
        assert_eq!(load(&state, &allow), None);
        store(&state, &list()).unwrap();
        assert_eq!(load(&state, &allow), Some(list()));
        store(&state, &List::empty()).unwrap();
        assert_eq!(load(&state, &allow), Some(List::empty()));
        assert_eq!(fs::metadata(state.join(NAME)).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1, "nothing unfinished is left");
    }

    #[test]
    fn a_damaged_or_half_written_file_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let allow = AllowList::default();
        store(dir.path(), &list()).unwrap();
        fs::write(dir.path().join(UNFINISHED), "{\"ver").unwrap();
        assert_eq!(load(dir.path(), &allow), Some(list()), "a crash in the middle of storing");
        store(dir.path(), &list()).unwrap();
        for damage in [&b""[..], b"{", b"\xff\xfe", b"{\"version\": 99}", b"[]"] {
            fs::write(dir.path().join(NAME), damage).unwrap();
            assert_eq!(load(dir.path(), &allow), None, "{damage:?}");
        }
    }

    #[test]
    fn what_is_no_longer_allowed_is_not_loaded() {
        let dir = tempfile::tempdir().unwrap();
        store(dir.path(), &list()).unwrap();
        let strict = AllowList::new(&[], &["ghcr.io".to_owned()], None).unwrap();
        assert!(load(dir.path(), &strict).unwrap().entries.iter().all(|listed| listed.entry().is_none()));
    }
}
