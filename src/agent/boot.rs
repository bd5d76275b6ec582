//! What must outlive the agent but not the node's boot: whether the gate was open and since when, whether the node was
//! ready and why; and, over boots too, which image was last warm for an entry and which entries were asked for here.
//! In `<state-dir>/agent.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::node::ReadyBy;
use crate::types::{EntryId, ImageRef};

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BootState {
    /// The kernel's id of the boot in which this was written.
    pub boot_id: String,
    /// The gate was open at some moment of that boot.
    pub gate_opened: bool,
    /// The gate was open when this was written: a restart of the agent closes no gate.
    #[serde(default)]
    pub gate_open: bool,
    /// When it first was, on the clock that counts from the boot, sleep included.
    #[serde(default)]
    pub gate_opened_at: Option<Duration>,
    /// `stoker.dev/ready` was reached in that boot.
    pub ready_reached: bool,
    /// It was reached because `--max-wait` had passed.
    #[serde(default)]
    pub max_wait_passed: bool,
    /// Entry → the reference of the image that was last warm for it, as text.
    #[serde(default)]
    pub last_warm: BTreeMap<EntryId, String>,
    /// Listed entries that somebody on this node has asked for.
    #[serde(default)]
    pub requested: BTreeSet<EntryId>,
}

/// The state can't be kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {path} (--state-dir must be a writable directory)")]
pub struct BootStateError {
    verb: &'static str,
    path: PathBuf,
    #[source]
    cause: io::Error,
}

impl BootState {
    /// Reads what was kept, for the boot `boot_id`. A missing or unreadable file is a first start: it only means
    /// that the gate is asked anew.
    #[must_use]
    pub fn load(state_dir: &Path, boot_id: &str) -> Self {
        let fresh = Self { boot_id: boot_id.to_owned(), ..Self::default() };
        let Ok(text) = fs::read(file(state_dir)) else { return fresh };
        match serde_json::from_slice::<Self>(&text) {
            Ok(kept) if kept.boot_id == boot_id => kept,
            Ok(kept) => Self { last_warm: kept.last_warm, requested: kept.requested, ..fresh },
            Err(error) => {
                tracing::warn!(path = %file(state_dir).display(), %error, "ignoring an unreadable state file");
                fresh
            }
        }
    }

    /// Writes it durably: the old file or the new one is there after a power cut, never half of one.
    ///
    /// # Errors
    /// Names the file and what could not be done to it.
    pub fn save(&self, state_dir: &Path) -> Result<(), BootStateError> {
        let path = file(state_dir);
        let temporary = path.with_extension("json.new");
        let fail = |verb, path: &Path| {
            let path = path.to_owned();
            move |cause| BootStateError { verb, path, cause }
        };
        let text = serde_json::to_vec(self).map_err(io::Error::other).map_err(fail("encode", &path))?;
        fs::create_dir_all(state_dir).map_err(fail("create", state_dir))?;
        let mut out = fs::File::create(&temporary).map_err(fail("create", &temporary))?;
        out.write_all(&text).and_then(|()| out.sync_all()).map_err(fail("write", &temporary))?;
        fs::rename(&temporary, &path).map_err(fail("replace", &path))?;
        fs::File::open(state_dir).and_then(|dir| dir.sync_all()).map_err(fail("sync", state_dir))
    }

    /// Why `stoker.dev/ready` was reached, if it was.
    #[must_use]
    pub fn ready_by(&self) -> Option<ReadyBy> {
        let why = if self.max_wait_passed { ReadyBy::MaxWaitPassed } else { ReadyBy::AllWarm };
        self.ready_reached.then_some(why)
    }

    /// The references that can still be read.
    #[must_use]
    pub fn images(&self) -> BTreeMap<EntryId, ImageRef> {
        let parsed = self.last_warm.iter().map(|(id, text)| Some((id.clone(), text.parse().ok()?)));
        parsed.flatten().collect()
    }
}

fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("agent.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(boot_id: &str) -> BootState {
        BootState {
            boot_id: boot_id.to_owned(),
            gate_opened: true,
            gate_open: true,
            gate_opened_at: Some(Duration::from_millis(83_250)),
            ready_reached: true,
            max_wait_passed: true,
            last_warm: [("vllm".parse().unwrap(), "docker.io/a/b:1".to_owned())].into(),
            requested: ["llama".parse().unwrap()].into(),
        }
    }

    #[test]
    fn it_is_read_back_in_the_same_boot() {
        let dir = tempfile::tempdir().unwrap();
        state("one").save(dir.path()).unwrap();
        assert_eq!(BootState::load(dir.path(), "one"), state("one"));
        assert_eq!(state("one").ready_by(), Some(ReadyBy::MaxWaitPassed));
    }

    #[test]
    fn another_boot_asks_the_gate_anew_and_remembers_images_and_requests() {
        let dir = tempfile::tempdir().unwrap();
        state("one").save(dir.path()).unwrap();
        let loaded = BootState::load(dir.path(), "two");
        assert!(!loaded.gate_opened && !loaded.gate_open && !loaded.ready_reached);
        assert_eq!((loaded.gate_opened_at, loaded.ready_by()), (None, None));
        assert_eq!(loaded.last_warm, state("one").last_warm);
        assert_eq!(loaded.requested, state("one").requested);
    }

    #[test]
    fn what_an_older_agent_kept_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let older = r#"{"bootId":"one","gateOpened":true,"readyReached":true}"#;
        fs::write(file(dir.path()), older).unwrap();
        let loaded = BootState::load(dir.path(), "one");
        assert_eq!((loaded.gate_opened, loaded.ready_by()), (true, Some(ReadyBy::AllWarm)));
    }

    #[test]
    fn garbage_is_a_first_start() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(file(dir.path()), b"{\"bootId\":").unwrap();
        assert_eq!(
            BootState::load(dir.path(), "one"),
            BootState { boot_id: "one".to_owned(), ..BootState::default() }
        );
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file_in_the_way = dir.path().join("state");
        fs::write(&file_in_the_way, b"").unwrap();
        let error = state("one").save(&file_in_the_way).unwrap_err();
        assert!(error.to_string().contains("--state-dir"), "{error}");
    }
}
